"""The space of a cluster's databases: how it is seen, judged by the record, and given back.

Composes steps; owns none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from tasks.engine.run import Run, together
from tasks.etcd.client import EtcdClient
from tasks.hosts.connection import HostConnection
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import RunbookError
from tasks.model.observation import PairsObservation
from tasks.model.space import DiskRoom, Freed, Growth, Survey, find_growth
from tasks.plans.fullness import judge_space
from tasks.plans.space import (
    Rules,
    SpaceSight,
    find_space_obstacles,
    tell_no_room,
)
from tasks.procedures import rotation
from tasks.procedures.roster import Roster
from tasks.steps import health, space

NOTHING = Survey(0, (), is_whole=True)


async def see_space(run: Run, roster: Roster) -> SpaceSight:
    """See members, quotas, disks, the record, and what fills the database.

    Members that are still busy with an earlier run's defragmentation get some seconds.
    """
    members = roster.members
    found = await _settled(run, roster)
    async with roster.open(run) as client:
        quotas, free = await asyncio.gather(
            read_quotas(run, found, client), together(_room(run, m.name) for m in members)
        )
    rooms = {m.name: room for m, room in zip(members, free, strict=True) if room}
    rows = space.read_space(run)
    space.note_space(run, found, quotas)
    survey, has_apiservers = NOTHING, False
    able = [e for e in found.endpoints if e.is_healthy and e.status]
    if able:
        chosen = min(able, key=lambda e: e.name == found.leader_name)
        async with roster.open(run) as client:
            endpoint = next(e for e in client.endpoints if e.name == chosen.name)
            survey, has_apiservers = await space.survey_keys(run, client, endpoint)
    return SpaceSight(
        members, found, quotas, rooms, rows, survey, has_apiservers, datetime.now(UTC)
    )


async def _settled(run: Run, roster: Roster) -> ClusterHealth:
    members = roster.members
    async with roster.open(run) as client:
        found = await health.read_health(run, client)

        async def look() -> tuple[str, ...]:
            nonlocal found
            found = await client.observe_cluster()
            return find_space_obstacles(members, found)

        if any(e.is_up for e in found.endpoints) and find_space_obstacles(members, found):
            try:
                await health.stand_at_gate(look, "not in full health")
            except RunbookError:
                return found  # the findings tell it
        return found


async def _room(run: Run, name: str) -> DiskRoom | None:
    try:
        return await space.see_disk_room(run, run.hosts[name])
    except RunbookError:
        return None


async def read_quotas(
    run: Run,
    found: ClusterHealth,
    client: EtcdClient | None = None,
    sights: Mapping[str, PairsObservation] | None = None,
) -> dict[str, int]:
    """Tell each member's quota, by host: what it runs with, else what its settings say.

    From 3.6 on etcd tells it with its status, before in its metrics, for which a client is needed.
    With `sights` no host is asked: they have what was seen of each.
    """

    async def read(name: str) -> int | None:
        if sights is not None:
            files = sights[name].settings if name in sights else None
            return space.quota_of(files) if files else None
        try:
            return await space.read_quota(run, run.hosts[name])
        except RunbookError:
            return None

    told = {e.name: e.status.db_quota for e in found.endpoints if e.status and e.status.db_quota}
    lacking = [e.name for e in found.endpoints if e.status and e.name not in told]
    if client is not None and lacking:
        told |= await space.read_running_quotas(run, client, lacking)
    asked = [name for name in lacking if name not in told and name in run.hosts]
    said = dict(zip(asked, await asyncio.gather(*map(read, asked)), strict=True))
    return told | {name: quota for name, quota in said.items() if quota}


async def check_space(
    run: Run, found: ClusterHealth, sights: Mapping[str, PairsObservation] | None = None
) -> tuple[ClusterHealth, tuple[str, ...], tuple[str, ...], Growth | None]:
    """Judge the databases by their quotas and by earlier looks, and note this one.

    Returns the health with every quota that is known, what must be seen to, what is only to be
    known, and the growth.
    """
    quotas = await read_quotas(run, found, sights=sights)
    endpoints = tuple(
        replace(e, status=replace(e.status, db_quota=quotas.get(e.name))) if e.status else e
        for e in found.endpoints
    )
    space.note_space(run, found, quotas)
    found = replace(found, endpoints=endpoints)
    growth = find_growth(space.read_space(run))
    return found, *judge_space(run.inventory, found, growth), growth


async def pass_space_gate(run: Run, roster: Roster, title: str) -> None:
    """Wait until every member is there and up to date; raises MemberFailed after some seconds."""
    async with roster.open(run) as client:

        async def look() -> tuple[str, ...]:
            return find_space_obstacles(roster.members, await client.observe_cluster())

        await health.stand_at_gate(look, f"not done: {title}")


async def defragment_member(
    run: Run, host: HostConnection, roster: Roster, seen: SpaceSight, rules: Rules
) -> Freed | str | None:
    """Defragment a member that is still due, without its leadership; a sentence: it cannot be."""
    async with roster.open(run) as client:
        endpoint = next(e for e in client.endpoints if e.name == host.name)
        status = await client.get_status(endpoint)
        if not rules.is_due(status, seen.limits.get(host.name), alarmed=seen.is_alarmed):
            return None
        try:
            room = await space.see_disk_room(run, host)
        except RunbookError as error:
            return f"{host.name}: it is not known whether its disk has room: {error.message}"
        if seen.is_alarmed and tell_no_room(status, room):
            await space.count_free(run, client)
            status = await client.get_status(endpoint)
        if text := tell_no_room(status, room):
            return f"{host.name}: {text}"
        await health.move_leader_away(run, host, seen.members)
        if not rules.stops:
            return await space.defragment(run, client, host)
    seconds = await space.defragment_stopped(run, host)
    await rotation.wait_for_start(run, host, seen.members)
    async with roster.open(run) as client:
        after = await client.get_status(endpoint)
    return Freed(host.name, seconds, status.db_size, after.db_size)
