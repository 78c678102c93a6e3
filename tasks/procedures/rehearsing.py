"""Rehearsals of any number of clusters' snapshots, one after the other; no host is asked.

Composes the steps that read the store, restore and compare.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from tasks.engine import frame
from tasks.engine.run import Run, open_run, settle
from tasks.model.errors import Refused, RunbookError
from tasks.model.inventory import Inventory
from tasks.model.pointers import pointer
from tasks.model.record import Event
from tasks.model.snapshots import Manifest
from tasks.report.snapshots import rehearsal_table
from tasks.steps import health, installation, rehearsals, snapshots
from tasks.steps.reports import artifact_key
from tasks.store.places import Unstorable


async def rehearse_clusters(
    clusters: Iterable[str], snapshot: str | None, reason: str | None
) -> None:
    """Rehearse a snapshot of each; one that fails stops no other, and is raised at the end."""
    outcomes: list[BaseException | None] = []
    for cluster in clusters:
        try:
            async with open_run(cluster, "rehearse_snapshot", reason=reason) as run:
                await _rehearse(run, snapshot)
        except RunbookError as error:
            outcomes.append(error)
        else:
            outcomes.append(None)
    settle(outcomes)


async def _rehearse(run: Run, name: str | None) -> None:
    store = snapshots.open_snapshots(run.inventory)
    programs = await asyncio.to_thread(find_programs, run.inventory)
    await health.open_login(run)
    try:
        every = await snapshots.read_manifests(store)
    except Unstorable as error:
        raise snapshots.unstorable(run.inventory, error) from error
    chosen = choose(run.inventory, every, name, store.url(""))
    compared = await rehearsals.rehearse(run, store, chosen, programs)
    await rehearsals.note_proven(run, store, chosen)
    table = rehearsal_table(chosen, compared)
    run.journal.append(Event.OBSERVED, columns=table.columns, rows=table.rows, problems=())
    await frame.publish(
        markdown=f"# Rehearsal of {run.inventory.name}\n\n{table.to_markdown()}",
        key=artifact_key("rehearse_snapshot", run.inventory.name),
        description=f"{chosen.file} is proven",
    )


def choose(
    inventory: Inventory, every: tuple[Manifest, ...], name: str | None, place: str
) -> Manifest:
    """Choose the snapshot of that name, or the newest; raises Refused, with what there is."""
    if not every:
        taken = pointer("take_snapshot", clusters=(inventory.name,))
        raise Refused(f"there is no snapshot of {inventory.name} in {place}; {taken} takes one")
    found = [one for one in every if name is None or name in {one.file, one.beside}]
    if not found:
        last = ", ".join(one.file for one in every[-3:])
        raise Refused(f"there is no snapshot {name} in {place}; the last ones are {last}")
    return found[-1]


def find_programs(inventory: Inventory) -> Mapping[str, bytes] | Path:
    """Find etcd and what restores for it on this machine; raises Refused with what to name."""
    named = inventory.snapshots.programs
    if named is None:
        contents = installation.load_programs(inventory).contents
        if {"etcd"} < set(contents):
            return contents
        named = Path(shutil.which("etcd") or "/usr/local/bin/etcd").parent
    tools = [named / tool for tool in ("etcdutl", "etcdctl")]
    if not (named / "etcd").is_file() or not any(tool.is_file() for tool in tools):
        raise Refused(
            f"there is no etcd with etcdutl or etcdctl in {named}; name with snapshots.programs a "
            f"directory of this machine that has those of {inventory.etcd.version}"
        )
    return named
