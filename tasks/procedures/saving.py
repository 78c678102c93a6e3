"""Snapshots of any number of clusters, a few at once; read-only, and so without a lock.

Composes the steps that ask and save.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tasks.engine import frame
from tasks.engine.run import Run, open_run, settle
from tasks.model.errors import RunbookError
from tasks.model.record import Event
from tasks.model.snapshots import Manifest
from tasks.procedures import location
from tasks.report.snapshots import snapshot_remarks, snapshot_table, snapshots_markdown
from tasks.steps import health, revisions, snapshots
from tasks.steps.reports import artifact_key

CLUSTERS_AT_ONCE = 4
"""Each streams one database, through some megabytes of this process's memory."""


async def save_clusters(clusters: Iterable[str], reason: str | None) -> None:
    """Save a snapshot of each; one that fails stops no other, and is raised when all have ended."""
    slots, names = asyncio.Semaphore(CLUSTERS_AT_ONCE), tuple(clusters)

    async def save(cluster: str) -> Manifest:
        async with slots, open_run(cluster, "take_snapshot", reason=reason) as run:
            return await _save(run)

    outcomes = await asyncio.gather(*map(save, names), return_exceptions=True)
    if len(names) > 1:
        told = zip(names, outcomes, strict=True)
        await frame.publish(
            markdown=snapshots_markdown(
                (name, found if isinstance(found, Manifest) else str(found))
                for name, found in told
                if isinstance(found, Manifest | RunbookError)
            ),
            key=artifact_key("take_snapshot", "all"),
            description=f"{sum(isinstance(o, Manifest) for o in outcomes)} of {len(names)} saved",
        )
    settle(outcomes)


async def _save(run: Run) -> Manifest:
    async with health.etcd_client(run, await location.locate_members(run)) as client:
        saved = await snapshots.save_snapshot(run, client)
    revisions.note_revision(run, saved.revision)
    removed = await snapshots.remove_expired(run)
    unfinished = await snapshots.end_unfinished(run)
    proven = await snapshots.tell_proven(run)
    table = snapshot_table([(run.inventory.name, saved)])
    remarks = snapshot_remarks(saved, run.snapshot or saved.file, removed)
    remarks = (*remarks, *filter(None, (unfinished,)), proven)
    run.journal.append(
        Event.OBSERVED, columns=table.columns, rows=table.rows, problems=(), remarks=remarks
    )
    title = f"# Snapshot of {run.inventory.name}"
    await frame.publish(
        markdown="\n\n".join((title, table.to_markdown(), *remarks)),
        key=artifact_key("take_snapshot", run.inventory.name),
        description=saved.file,
    )
    return saved
