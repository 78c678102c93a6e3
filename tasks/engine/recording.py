"""Prefect's record made complete from the journals: task runs, artifacts, and the true end.

Prefect's API or database may be away at any moment, and task runs reach it through queues in
memory. Each run has a file of its own, which names the journals of the clusters that it opened,
holds its artifacts and how it ended; what Prefect lacks is delivered from there, by the run itself
or by the next one on this machine. Who delivers holds the file's lock, and looks before it adds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

from prefect import task
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from tasks.engine.journal import Journal, archive_recorded, find_undelivered, read_journal
from tasks.model.outcome import CRASHED_RUN, Outcome, work_of
from tasks.model.record import Event, Record
from tasks.report.ends import end_markdown

T = TypeVar("T")

TAG = "etcd-runbooks"
"""On each run, as on each deployment's: automations know this project's runs by it."""
CLUSTER_TAG = "cluster:"
SETTLE_SECONDS = 8.0
"""How long Prefect's own queues are given before what they lost is added."""
POLL_SECONDS = 0.1
PAGE = 200
LAST_HEARTBEAT_SECONDS = 5.0
"""By when the last heartbeat of a process that ends has surely been sent."""
RECOVERY_SECONDS = 20.0
"""What a run gives to the record of those before it, beside its own work."""
STUMBLE_SECONDS = 1.0
ATTEMPTS = 3
"""How often, and after how long, an API that stumbles is asked for what was not delivered."""
KEPT = timedelta(days=30)
"""When the file of a run is archived after Prefect has all of it."""
LATE = timedelta(minutes=2)
"""By when the API has surely made, or not made, the run that it was asked for."""


def journal_directory() -> Path:
    """Where journals lie: in PREFECT_HOME, beside the database that they back up."""
    return get_current_settings().home / "etcd-runbooks" / "journal"


def runs_directory() -> Path:
    """Where each run's own file lies."""
    return get_current_settings().home / "etcd-runbooks" / "runs"


def tell_suspension(run: UUID) -> None:
    """Send the event by which deployments/automations.yaml knows that no heartbeat is to come.

    Prefect's engine goes on with heartbeats until its process leaves the flow, also after the run
    is Suspended, and the automation would wait for the next one. This event is dated later than
    any of them.
    """
    tag = {"prefect.resource.id": "prefect.tag.etcd-runbooks", "prefect.resource.role": "tag"}
    with contextlib.suppress(Exception):  # an event more or less ends no run
        emit_event(
            "etcd-runbooks.suspended",
            resource={"prefect.resource.id": f"prefect.flow-run.{run}"},
            related=[tag],
            occurred=datetime.now(UTC) + timedelta(seconds=LAST_HEARTBEAT_SECONDS),
        )


async def settle(path: Path) -> None:
    """Wait until every step and artifact of a run is in Prefect's database; add what stays away.

    Raises what Prefect's client raises; the caller bounds it in time.
    """
    records = read_journal(path)
    run = _known(records)
    if run is None:
        return
    async with get_client() as client:
        steps = _read_opened(records)
        deadline = monotonic() + SETTLE_SECONDS
        while (gaps := await _find_gaps(client, run, steps)) and monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
        await _fill(client, run, steps, gaps)
        await _add_artifacts(client, run, records)
        await _add_tags(client, await client.read_flow_run(run), records)


async def within(seconds: float, call: Coroutine[Any, Any, T]) -> T:
    """Await calls to Prefect's API in a task of their own; raises TimeoutError after a bound.

    Whoever waits is not cancelled with them: Prefect's client has timeouts of its own, and two
    that end at the same moment could leave a cancellation behind for what comes next.
    """
    calling = asyncio.ensure_future(call)
    calling.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await asyncio.wait({calling}, timeout=seconds)
        if not calling.done() or calling.cancelled():
            raise TimeoutError
        return calling.result()
    finally:
        calling.cancel()


async def tag(run: UUID, records: list[Record]) -> None:
    """Give a run the tags by which it is found: its runbook, clusters, who, whether it changes."""
    async with get_client() as client:
        await _add_tags(client, await client.read_flow_run(run), records)


async def _add_tags(client: PrefectClient, found: FlowRun, records: list[Record]) -> None:
    wanted = {t for r in records if r.event is Event.BEGUN for t in r.details.get("tags", ())}
    opened = (Path(r.details["path"]) for r in records if r.event is Event.OPENED)
    wanted |= {CLUSTER_TAG + path.parent.name for path in opened}
    if not wanted <= set(found.tags):
        await client.update_flow_run(found.id, tags=sorted(wanted | set(found.tags)))


async def publish(run: UUID, key: str, markdown: str, description: str) -> None:
    """Give one artifact to Prefect."""
    async with get_client() as client:
        await client.create_artifact(
            ArtifactCreate(
                key=key,
                type="markdown",
                data=markdown,
                description=description,
                flow_run_id=run,
            )
        )


async def recover(own: Path) -> list[str]:
    """Deliver the record of all runs of this machine whose runner is gone; returns their ids.

    Takes no longer than RECOVERY_SECONDS and raises nothing: what could not be delivered stays
    for the next run. An API that stumbles is asked again, at most three times; a file that cannot
    be delivered keeps no other from it.
    """
    delivered: list[str] = []
    with contextlib.suppress(Exception):
        archive_recorded(runs_directory(), (datetime.now(UTC) - KEPT).timestamp())
        async with asyncio.timeout(RECOVERY_SECONDS):
            for attempt in range(ATTEMPTS):
                if attempt:
                    await asyncio.sleep(STUMBLE_SECONDS)
                if await _deliver_others(own, delivered):
                    break
    return delivered


async def _deliver_others(own: Path, delivered: list[str]) -> bool:
    """Deliver what can be, and add its runs' ids; returns whether nothing failed."""
    is_whole = True
    for path in find_undelivered(runs_directory()):
        if path == own:
            continue
        try:
            with Journal(path) as journal:
                if (run := await deliver(journal)) is not None:
                    delivered.append(str(run))
        except BlockingIOError:
            continue
        except Exception:  # noqa: BLE001 - whatever it is, the others' records are not its fault
            is_whole = False
    return is_whole


async def deliver(journal: Journal) -> UUID | None:
    """Add to Prefect what a run's file has and Prefect lacks, its end included.

    The caller holds the file. Returns the run's id, or None when it belongs to another API.
    """
    records = read_journal(journal.path)
    begun = next((r.details for r in records if r.event is Event.BEGUN), None)
    if begun is not None and begun["api"] != api_name():
        return None
    async with get_client() as client:
        found = await _find_run(client, records, begun)
        if found is not None:
            steps = _read_opened(records)
            gaps = await _find_gaps(client, found.id, steps)
            await _fill(client, found.id, steps, gaps)
            outcome = _outcome(records)
            if outcome is None:
                outcome = await _end_dead_run(found, journal, records, steps)
            await _add_artifacts(client, found.id, read_journal(journal.path))
            await _add_tags(client, found, records)
            await _set_end(client, found, outcome, records, steps)
    if found is None and _known(records) is None and _is_late(records):
        return None
    journal.append(Event.RECORDED)
    return found.id if found else None


def _is_late(records: list[Record]) -> bool:
    """Whether the API may still be making the run: who asked for it was interrupted."""
    now = datetime.now(UTC)
    return bool(records) and now - datetime.fromtimestamp(records[-1].time, UTC) < LATE


def api_name() -> str:
    """Name the API that runs are recorded in; the embedded one has another port each time."""
    settings = get_current_settings()
    url = settings.api.url or ""
    return f"embedded in {settings.home}" if is_embedded or not url else url


is_embedded = False
"""Whether this process brought an API of its own."""


def _known(records: list[Record]) -> UUID | None:
    return next((UUID(r.details["run"]) for r in records if r.event is Event.KNOWN), None)


def _outcome(records: list[Record]) -> Outcome | None:
    ends = [r.details for r in records if r.event is Event.ENDED]
    if not ends:
        return None
    last = ends[-1]
    return Outcome(last["state"], last["word"], last["message"], last["exit_status"])


def _read_opened(records: list[Record]) -> list[Record]:
    opened = [Path(r.details["path"]) for r in records if r.event is Event.OPENED]
    found = list[Record]()
    for path in opened:
        with contextlib.suppress(FileNotFoundError):
            found += read_journal(path)
    return found


async def _find_run(
    client: PrefectClient, records: list[Record], begun: dict[str, Any] | None
) -> FlowRun | None:
    run = _known(records)
    if run is not None:
        try:
            return await client.read_flow_run(run)
        except ObjectNotFound:
            return None
    if begun is None:
        return None
    # The runner died between the API's work and the note of it: the run has the file's key for
    # its name until it begins.
    named = FlowRunFilter(name=FlowRunFilterName(any_=[begun["key"]]))
    return next(iter(await client.read_flow_runs(flow_run_filter=named)), None)


async def _end_dead_run(
    found: FlowRun, journal: Journal, records: list[Record], steps: list[Record]
) -> Outcome:
    """Write into the journals of a dead run that it is, and its report."""
    for path in (Path(r.details["path"]) for r in records if r.event is Event.OPENED):
        with contextlib.suppress(OSError), Journal(path) as opened:
            opened.append(Event.RUN_FINISHED, outcome=str(CRASHED_RUN.message))
    begun = next((r.details for r in records if r.event is Event.BEGUN), {})
    runbook = begun.get("runbook", found.name)
    if not any(r.event is Event.ARTIFACT and r.details["report"] for r in records):
        journal.append(
            Event.ARTIFACT,
            key=f"{runbook}-report".replace("_", "-"),
            markdown=end_markdown(
                runbook,
                CRASHED_RUN,
                work_of(steps),
                {"run": str(found.id), "journal": str(journal.path)},
            ),
            description=f"{runbook}: {CRASHED_RUN.word}",
            report=True,
        )
    return CRASHED_RUN


async def _set_end(
    client: PrefectClient,
    found: FlowRun,
    outcome: Outcome,
    records: list[Record],
    steps: list[Record],
) -> None:
    """Put the run into its true state, unless it is there or has gone on since."""
    state = found.state
    if outcome.state == "Suspended":
        return
    if state is not None:
        if state.is_final() and (outcome is CRASHED_RUN or state.name == outcome.state):
            return
        # Whoever cancelled it has the last word on a run that was broken off.
        if outcome.state == "Interrupted" and state.is_cancelled():
            return
        last = datetime.fromtimestamp(records[-1].time, UTC)
        has_gone_on = not state.is_final() and state.timestamp > last
        if has_gone_on and any(r.event is Event.KNOWN for r in records) and steps:
            return
    await client.set_flow_run_state(found.id, end_state(outcome, steps), force=True)


def end_state(outcome: Outcome, steps: list[Record]) -> State[Any]:
    """Make the state of Prefect's that tells how a run ended, what was done and what not."""
    said = outcome.message or outcome.word
    said += "" if said.endswith((".", "?")) else "."
    message = f"{said} {work_of(steps).sentence()}"
    return State(type=StateType(outcome.kind), name=outcome.state, message=message)


async def _add_artifacts(client: PrefectClient, run: UUID, records: list[Record]) -> None:
    wanted = [r.details for r in records if r.event is Event.ARTIFACT]
    if not wanted:
        return
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    there = {(a.key, a.data) for a in await client.read_artifacts(artifact_filter=of_run)}
    for one in wanted:
        if (one["key"], one["markdown"]) not in there:
            there.add((one["key"], one["markdown"]))
            await publish(run, one["key"], one["markdown"], one["description"])


def _last_records(records: list[Record]) -> dict[str, Record]:
    """Get the last line of each task run, by its id; a retried step has several."""
    steps = (Event.STEP_STARTED, Event.STEP_FINISHED, Event.STEP_FAILED)
    return {r.details["task_run"]: r for r in records if r.event in steps and r.details["task_run"]}


async def _find_gaps(client: PrefectClient, run: UUID, records: list[Record]) -> dict[str, bool]:
    """Tell which task runs have no final state in the database, and whether they are there."""
    wanted = _last_records(records)
    if not wanted:
        return {}
    found: list[TaskRun] = []
    while True:
        page = await client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])),
            limit=PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < PAGE:
            break
    final = {str(one.id): bool(one.state and one.state.is_final()) for one in found}
    return {task_run: task_run in final for task_run in wanted if not final.get(task_run)}


async def _fill(
    client: PrefectClient, run: UUID, records: list[Record], gaps: dict[str, bool]
) -> None:
    last = _last_records(records)
    for task_run, is_there in gaps.items():
        record = last[task_run]
        when = datetime.fromtimestamp(record.time, UTC)
        kind = {
            Event.STEP_STARTED: StateType.CRASHED,
            Event.STEP_FINISHED: StateType.COMPLETED,
            Event.STEP_FAILED: StateType.FAILED,
        }[record.event]
        message = record.details.get("error") or "Added from the journal."
        final = State(type=kind, timestamp=when, message=message)
        if is_there:
            await client.set_task_run_state(UUID(task_run), final, force=True)
        else:
            await client.create_task_run(
                _added_from_journal,
                flow_run_id=run,
                dynamic_key=task_run,
                id=UUID(task_run),
                name=record.details["step"],
                state=final,
            )


@task(name="added from the journal")
async def _added_from_journal() -> None:
    """Stand for a task whose run is added; it is only named, never run."""
