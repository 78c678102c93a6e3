"""What Prefect's database knows of past and waiting runs of all workers, by their tags."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from tasks.engine.frame import BY, CHANGES, DRY_TAG
from tasks.engine.recording import CLUSTER_TAG, TAG
from tasks.model.chain import IN_REPORT
from tasks.model.fleet import PastRun

LOOKED_AT = 200
"""Runs that changed something, the newest ones; one page of Prefect's."""
CHANGED = ("Completed", "Failed", "Interrupted", "Crashed")
"""States of runs that may have changed something; a refused one has not."""


async def read_changes_and_waiting() -> tuple[dict[str, PastRun], tuple[PastRun, ...]]:
    """Find each cluster's last change among the last runs, and the runs that wait for a person.

    Raises what Prefect's client raises.
    """
    ended = FlowRunFilterState(name=FlowRunFilterStateName(any_=list(CHANGED)))
    paused = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))
    last: dict[str, PastRun] = {}
    for run in await _read(ended, CHANGES):
        for cluster in run.clusters:
            last.setdefault(cluster, run)
    return last, tuple(await _read(paused))


async def read_seals() -> dict[str, set[str]]:
    """Read from all reports the seals of journals, by the journal's name.

    Raises what Prefect's client raises.
    """
    found: dict[str, set[str]] = {}
    reports = ArtifactFilter(key=ArtifactFilterKey(like_="%report"))
    offset = 0
    async with get_client() as client:
        while True:
            page = await client.read_artifacts(
                artifact_filter=reports, limit=LOOKED_AT, offset=offset
            )
            for one in page:
                for name, seal in IN_REPORT.findall(str(one.data)):
                    found.setdefault(name, set()).add(seal)
            offset += len(page)
            if len(page) < LOOKED_AT:
                return found


async def _read(state: FlowRunFilterState, *tags: str) -> list[PastRun]:
    async with get_client() as client:
        found = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[TAG, *tags]), state=state),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=LOOKED_AT,
        )
    return [_past(run) for run in found if DRY_TAG not in run.tags]


def _past(run: FlowRun) -> PastRun:
    def tagged(start: str) -> tuple[str, ...]:
        return tuple(tag.removeprefix(start) for tag in run.tags if tag.startswith(start))

    known = [tag for tag in run.tags if ":" not in tag and "_" in tag]
    return PastRun(
        run=str(run.id),
        runbook=next(iter(known), run.name),
        clusters=tagged(CLUSTER_TAG),
        by=next(iter(tagged(BY)), "?"),
        when=run.end_time or run.start_time or run.expected_start_time or datetime.now(UTC),
        state=run.state_name or "?",
    )
