"""Whose data are wrong, and the others' view of it. Composes steps; owns none."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tasks.engine.run import Run, together
from tasks.model.cluster import ClusterHealth
from tasks.model.corruption import Comparison, HashRow
from tasks.model.errors import Refused, RunbookError
from tasks.model.members import DesiredMember
from tasks.model.observation import DataDirectory
from tasks.model.pointers import pointer
from tasks.plans.corruption import (
    Verdict,
    find_ended,
    find_guilty,
    is_corrupt,
    is_ended,
    tell_why,
)
from tasks.plans.health import refuse_unseen
from tasks.plans.voters import refuse_without_members
from tasks.procedures import location
from tasks.steps import corruption, health, nodes, preflight, services

WORDS_TRIES = 3
WORDS_SECONDS = 2.0
"""Who ends at its start is started again and again, and has not compared yet for moments."""


async def examine(run: Run) -> Verdict:
    """Compare all voters' data, and find what an earlier run has begun; raises Refused.

    Changes nothing. A voter that is down is refused unless it has no data any more, as an earlier
    run leaves it, or its last start ended by etcd's own comparison with the others.
    """
    members = await location.locate_members(run)
    async with health.etcd_client(run, members) as client:
        comparison, found = await corruption.compare_data(run, client)
    refuse_unseen(found)
    refuse_without_members(found.seen_members())
    unfinished = await _find_unfinished(run, members, found)
    comparison = await _hear_down(run, comparison, found, unfinished)
    guilty = (*find_guilty(comparison, len(comparison.rows)), *find_ended(comparison))
    left = tuple(
        row for row in comparison.unknown if row.host not in unfinished and row not in guilty
    )
    if left:
        way = pointer(
            "replace_member", cluster=run.inventory.name, member=[row.host for row in left]
        )
        raise Refused(
            "not all voters could be compared:\n  - "
            + "\n  - ".join(f"{row.label}: {tell_why(row)}" for row in left)
            + "\nbring them back first, and run this again. One that etcd ends at its start, since "
            "its data differ from a peer's (kubeadm's members look then), does not come back "
            f"with them: {way} takes it in anew. Nothing was changed"
        )
    return Verdict(comparison, guilty, unfinished, is_corrupt(found))


async def _hear_down(
    run: Run, comparison: Comparison, found: ClusterHealth, unfinished: tuple[str, ...]
) -> Comparison:
    up = {m.member.id for m in found.seen_members() if m.is_up}

    async def hear(row: HashRow) -> HashRow:
        if row.data or row.member_id in up or row.host in unfinished or row.host not in run.hosts:
            return row
        for number in range(WORDS_TRIES):
            if number:
                await asyncio.sleep(WORDS_SECONDS)
            try:
                row = replace(
                    row, last_words=await services.hear_last_words(run, run.hosts[row.host])
                )
            except RunbookError:
                break
            if is_ended(row):
                break
        return row

    return replace(comparison, rows=await together(map(hear, comparison.rows)))


async def _find_unfinished(
    run: Run, members: tuple[DesiredMember, ...], found: ClusterHealth
) -> tuple[str, ...]:
    """Name the hosts of the inventory whose member was taken out, or has not joined to the end.

    A node's joins to the end when none of its manifests is out any more.
    """
    listed = {url: m for m in found.seen_members() for url in m.member.peer_urls}
    seen, _ = await nodes.observe_nodes(run)
    out = {node.host for node in seen if node.taken_out}

    async def is_unfinished(member: DesiredMember) -> bool:
        if member.name in out:
            return True
        entry = listed.get(member.peer_url)
        if entry is None or entry.member.is_learner or not entry.member.is_started:
            return True
        return not entry.is_up and await _has_no_data(run, member.name)

    return tuple([member.name for member in members if await is_unfinished(member)])


async def _has_no_data(run: Run, name: str) -> bool:
    try:
        seen = await preflight.observe_host(run, run.hosts[name])
    except RunbookError:
        return False
    return seen.data is not DataDirectory.INITIALISED
