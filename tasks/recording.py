"""Prefect's history made complete: what the journal has and the database lacks is added.

Task runs reach the database through queues in memory; a process that dies loses what was in them.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from uuid import UUID

from prefect import task
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, StateType, TaskRun
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from tasks.journal.journal import Journal, find_dead_runs, read_journal
from tasks.model.record import Event, Record

SETTLE_SECONDS = 15.0
POLL_SECONDS = 0.1
PAGE = 200


async def settle(path: Path) -> int:
    """Wait until every step of an ended run is in Prefect's database, and add what is missing.

    Returns how many had to be added.
    """
    records = read_journal(path)
    async with get_client() as client:
        deadline = monotonic() + SETTLE_SECONDS
        while (gaps := await _find_gaps(client, records)) and monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
        return await _fill(client, records, gaps)


def journal_directory() -> Path:
    """Where journals lie: in PREFECT_HOME, beside the database that they back up."""
    return get_current_settings().home / "etcd-runbooks" / "journal"


async def recover_dead_runs() -> list[str]:
    """Mark the runs of runners that died as Crashed, with every step that they had begun.

    Returns their ids.
    """
    recovered = []
    for path in find_dead_runs(journal_directory()):
        records = read_journal(path)
        started = next((r for r in records if r.event is Event.RUN_STARTED), None)
        with Journal(path) as journal:
            if started is not None:
                async with get_client() as client:
                    await _fill(client, records, await _find_gaps(client, records))
                    await _mark_crashed(client, UUID(started.details["run"]))
                recovered.append(started.details["run"])
            journal.append(Event.RUN_FINISHED, outcome="crashed: the runner died")
    return recovered


async def _mark_crashed(client: PrefectClient, flow_run_id: UUID) -> None:
    try:
        run = await client.read_flow_run(flow_run_id)
    except ObjectNotFound:
        return
    if run.state is None or not run.state.is_final():
        message = "The runner died; found by the next run from its journal."
        state = State(type=StateType.CRASHED, message=message)
        await client.set_flow_run_state(flow_run_id, state, force=True)


def _last_records(records: list[Record]) -> dict[str, Record]:
    """Get the last line of each task run, by its id; a retried step has several."""
    steps = (Event.STEP_STARTED, Event.STEP_FINISHED, Event.STEP_FAILED)
    return {r.details["task_run"]: r for r in records if r.event in steps and r.details["task_run"]}


async def _find_gaps(client: PrefectClient, records: list[Record]) -> dict[str, bool]:
    """Tell which task runs have no final state in the database, and whether they are there."""
    wanted = _last_records(records)
    if not wanted:
        return {}
    found: list[TaskRun] = []
    while True:
        page = await client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[_run_id(records)])),
            limit=PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < PAGE:
            break
    final = {str(run.id): bool(run.state and run.state.is_final()) for run in found}
    return {task_run: task_run in final for task_run in wanted if not final.get(task_run)}


async def _fill(client: PrefectClient, records: list[Record], gaps: dict[str, bool]) -> int:
    last = _last_records(records)
    for task_run, is_there in gaps.items():
        record = last[task_run]
        when = datetime.fromtimestamp(record.time, UTC)
        if not is_there:
            await client.create_task_run(
                _added_from_journal,
                flow_run_id=_run_id(records),
                dynamic_key=task_run,
                id=UUID(task_run),
                name=record.details["step"],
                state=State(type=StateType.RUNNING, timestamp=when),
            )
        kind = {
            Event.STEP_STARTED: StateType.CRASHED,
            Event.STEP_FINISHED: StateType.COMPLETED,
            Event.STEP_FAILED: StateType.FAILED,
        }[record.event]
        message = record.details.get("error") or "Added from the journal."
        final = State(type=kind, timestamp=when, message=message)
        await client.set_task_run_state(UUID(task_run), final, force=True)
    return len(gaps)


def _run_id(records: list[Record]) -> UUID:
    return next(UUID(r.details["run"]) for r in records if r.event is Event.RUN_STARTED)


@task(name="added from the journal")
async def _added_from_journal() -> None:
    """Stand for a task whose run is added; it is only named, never run."""
