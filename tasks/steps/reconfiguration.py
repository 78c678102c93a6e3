"""The steps that change who is a member, and what a host that leaves or joins needs for it.

Each looks before it acts, so that one whose answer was lost is not done twice. Whether a step is
safe is for plans/obstacles, which the gate asks before each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from tasks.engine.authority import write_private
from tasks.engine.run import Run, step
from tasks.etcd.client import POLL_SECONDS, EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.etcd.leadership import hand_over
from tasks.hosts import files, pods
from tasks.hosts.connection import HostConnection
from tasks.hosts.retirement import drop_connections_command, set_aside_command
from tasks.hosts.supervisors import supervisor
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import EtcdRefused, EtcdUnavailable, InventoryEdited, MemberFailed
from tasks.model.members import Member, SeenMember
from tasks.model.record import Event
from tasks.plans.member_changes import (
    AwaitHost,
    DiscardData,
    DropConnections,
    RetireHost,
    WriteInventory,
)
from tasks.plans.reconfiguration import (
    AddLearner,
    AwaitMember,
    MoveLeader,
    PromoteMember,
    RemoveMember,
    UpdateMember,
)
from tasks.report.inventories import inventory_diff

STALL_SECONDS = 180.0
"""A learner whose raft index stands still for so long is not catching up. A snapshot of 8 GB at
100 MB/s takes 80 s, in which the index does not move."""
STEP_DELAYS_SECONDS = (1.0, 2.0, 3.0, 5.0, 5.0)
"""Etcd answers "unhealthy cluster" for some 5 s after a member (re)connects."""


@step("retire {host}")
async def retire_host(run: Run, host: HostConnection, _step: RetireHost | AwaitHost) -> bool:
    """Stop and disable etcd, and set its data aside; whether anything changed.

    After a failure etcd may be stopped and its data still be in place.
    """
    return await _stop_and_set_aside(run, host, "retired")


@step("end the dead host's connections on {host}")
async def drop_connections(_run: Run, host: HostConnection, planned: DropConnections) -> bool:
    """End what is left of the peers' connections with a host that is dead; whether any was."""
    commands = [drop_connections_command(*end) for end in planned.ends]
    return any(map(files.parse_change, await host.run(*commands, changes=True)))


@step("set half-made data aside on {host}")
async def discard_data(run: Run, host: HostConnection, _step: DiscardData) -> bool:
    """Stop etcd and set aside what a join that failed has left; whether there was anything."""
    return await _stop_and_set_aside(run, host, "discarded")


@step("remove a member", retry_delays_seconds=STEP_DELAYS_SECONDS)
async def remove_member(_run: Run, client: EtcdClient, planned: RemoveMember) -> bool:
    """Remove a member, unless it is gone already."""
    health = await client.observe_cluster()
    if not any(m.member.id == planned.member_id for m in health.seen_members()):
        return False
    asked = _endpoint(client, health, without=planned.member_id)
    try:
        await client.remove_member(asked, planned.member_id)
    except EtcdRefused:
        if await _is_member(client, asked, lambda m: m.id == planned.member_id):
            raise
    return True


@step("add a learner", retry_delays_seconds=STEP_DELAYS_SECONDS)
async def add_learner(_run: Run, client: EtcdClient, planned: AddLearner) -> bool:
    """Add a member without a vote, unless its peer URL is in the list already."""
    url = planned.member.peer_url
    health = await client.observe_cluster()
    if any(url in m.member.peer_urls for m in health.seen_members()):
        return False
    asked = _endpoint(client, health)
    try:
        await client.add_learner(asked, url)
    except EtcdRefused:
        if not await _is_member(client, asked, lambda m: url in m.peer_urls):
            raise
    return True


@step("wait for the log and promote", retry_delays_seconds=())
async def promote_member(run: Run, client: EtcdClient, planned: PromoteMember) -> bool:
    """Wait until a learner has caught up, telling how far it is, and give it its vote.

    Raises MemberFailed when its raft index stands still for three minutes; it is a learner then,
    which costs no quorum, and the next run goes on with it.
    """
    url = planned.member.peer_url
    told, since = "", monotonic()
    while True:
        health = await client.observe_cluster()
        entry = _find(health, url)
        if entry is not None and not entry.member.is_learner:
            return True
        leader = max((m.applied for m in health.seen_members()), default=0)
        said = f"{planned.member.name}: " + (
            f"raft index {entry.applied} of the leader's {leader}"
            if entry and entry.applied
            else "has not joined yet"
        )
        if said.partition(" of ")[0] != told:
            told, since = said.partition(" of ")[0], monotonic()
            run.journal.append(Event.PROGRESS, text=said)
        if entry is not None and entry.is_healthy:
            try:
                await client.promote_member(_endpoint(client, health), entry.member.id)
            except EtcdUnavailable as error:
                reason = error.message
            except EtcdRefused as error:
                if "only promote a learner" not in error.message:
                    raise
                reason = error.message
        else:
            reason = said
        if monotonic() - since > STALL_SECONDS:
            raise MemberFailed(
                f"{planned.member.name} has made no progress for {STALL_SECONDS:g} s ({reason}); "
                "it stays a learner, without a vote: see its journal, and run this again"
            )
        await asyncio.sleep(POLL_SECONDS)


@step("wait for an added member", retry_delays_seconds=())
async def await_member(_run: Run, client: EtcdClient, planned: AwaitMember) -> bool:
    """Wait until a voter that was added unstarted is healthy; raises MemberFailed."""
    deadline = monotonic() + STALL_SECONDS
    while True:
        entry = _find(await client.observe_cluster(), planned.member.peer_url)
        if entry is not None and entry.is_healthy and not entry.member.is_learner:
            return True
        if monotonic() > deadline:
            raise MemberFailed(f"{planned.member.name} is not healthy after {STALL_SECONDS:g} s")
        await asyncio.sleep(POLL_SECONDS)


@step("hand over leadership", retry_delays_seconds=STEP_DELAYS_SECONDS)
async def move_leader(_run: Run, client: EtcdClient, planned: MoveLeader) -> bool:
    """Hand leadership away from a member; raises EtcdUnavailable when nobody takes it in time."""
    return await hand_over(client, planned.member_id, preferred=planned.target_id)


@step("update a member", retry_delays_seconds=STEP_DELAYS_SECONDS)
async def update_member(_run: Run, client: EtcdClient, planned: UpdateMember) -> bool:
    """Give a member its new peer URL, unless it has it; its peers dial that one from now on."""
    health = await client.observe_cluster()
    url = planned.member.peer_url
    if any(url in m.member.peer_urls for m in health.seen_members()):
        return False
    await client.update_member(
        _endpoint(client, health, without=planned.member_id), planned.member_id, url
    )
    return True


@step("write the inventory")
async def write_inventory(_run: Run, planned: WriteInventory, path: Path) -> bool:
    """Write the inventory file whole or not at all, its mode as it was.

    Raises InventoryEdited, with both diffs, when it is not the file any more that was planned for.
    """

    def write() -> bool:
        found = path.read_text()
        if found == planned.text:
            return False
        if found != planned.before:
            raise InventoryEdited(
                f"{path} was edited while this run worked, and was not overwritten. What was "
                f"edited:\n{inventory_diff(planned.before, found, path.name)}\n"
                "what this run would have written:\n"
                f"{inventory_diff(planned.before, planned.text, path.name)}\n"
                "The members are changed already: run the same command again with write_inventory, "
                "or edit the file by hand"
            )
        write_private(path, planned.text.encode(), path.stat().st_mode & 0o777)
        return True

    return await asyncio.to_thread(write)


async def _stop_and_set_aside(run: Run, host: HostConnection, word: str) -> bool:
    layout = run.inventory.layout(host.name)
    # Etcd's account may write in our state directory, and in others' data directory alone.
    kept = {layout.data} - {layout.state / "default.etcd"}
    if layout.is_pod:
        run.absences.leave(host.name, monotonic())
    results = await host.run(
        supervisor(layout).stop_command(),
        *(
            set_aside_command(each, f"{word}-{run.backup}", leaves_empty=each in kept)
            for each in layout.data_directories
        ),
        changes=True,
        timeout_seconds=pods.LIMIT_SECONDS,
    )
    return any(map(files.parse_change, results))


def _find(health: ClusterHealth, peer_url: str) -> SeenMember | None:
    return next((m for m in health.seen_members() if peer_url in m.member.peer_urls), None)


def _endpoint(client: EtcdClient, health: ClusterHealth, without: int | None = None) -> Endpoint:
    """Choose a healthy voter to ask, the leader if it can be."""
    seen = health.seen_members()
    able = {m.member.id: m for m in seen if m.is_healthy and not m.member.is_learner}
    choices = [
        (able[e.status.member_id].is_leader, e.endpoint)
        for e in health.endpoints
        if e.status and e.status.member_id in able and e.status.member_id != without
    ]
    if not choices:
        raise EtcdUnavailable("no healthy voter can be asked")
    url = max(choices)[1]
    return next(e for e in client.endpoints if e.url == url)


async def _is_member(
    client: EtcdClient, endpoint: Endpoint, is_meant: Callable[[Member], bool]
) -> bool:
    return any(map(is_meant, await client.list_members(endpoint)))
