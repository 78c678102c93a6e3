"""Handing leadership over, and seeing that it was taken."""

from __future__ import annotations

import asyncio

from tasks.etcd.client import POLL_SECONDS, EtcdClient
from tasks.model.errors import EtcdUnavailable

HANDOVER_SECONDS = 20.0


async def hand_over(
    client: EtcdClient, away_from: str | int, *, preferred: int | str | None = None
) -> bool:
    """Hand leadership away from a member, called by its endpoint's name or its id, if it leads.

    The `preferred` voter, by its id or its host, takes it if it is healthy, else the healthy one
    that is furthest. Returns whether there was anything to do. Raises EtcdUnavailable when nobody
    leads, nobody can take it, or nobody has in time.
    """
    health = await client.observe_cluster()
    seen = health.seen_members()
    leader = next((m for m in seen if m.is_leader), None)
    if leader is None:
        raise EtcdUnavailable("no member leads now")
    leading = next(
        (e for e in health.endpoints if e.status and e.status.member_id == leader.member.id), None
    )
    if away_from not in (leader.member.id, leading.name if leading else leader.host):
        return False
    endpoint = next((e for e in client.endpoints if leading and e.url == leading.endpoint), None)
    if endpoint is None:
        raise EtcdUnavailable(f"{leader.label} leads, and cannot be asked to hand it over")
    able = [m for m in seen if m.is_healthy and not m.member.is_learner and not m.is_leader]
    if not able:
        raise EtcdUnavailable(f"no healthy voter could take over from {leader.label}")
    wanted = [m for m in able if preferred in (m.member.id, m.host)] or able
    await client.move_leader(endpoint, max(wanted, key=lambda m: m.applied).member.id)
    clock = asyncio.get_running_loop().time
    deadline = clock() + HANDOVER_SECONDS
    while True:
        seen = (await client.observe_cluster()).seen_members()
        leads = next((m.member.id for m in seen if m.is_leader), None)
        if leads not in (None, leader.member.id):
            return True
        if clock() > deadline:
            raise EtcdUnavailable(f"{leader.label} still leads after {HANDOVER_SECONDS:g} s")
        await asyncio.sleep(POLL_SECONDS)
