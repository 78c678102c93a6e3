"""The steps that compare members' data, and take CORRUPT back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from tasks.engine.run import Run, step, together
from tasks.etcd.client import HASH_SECONDS, EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.hosts.hashes import hash_command, parse_hash
from tasks.model.cluster import ClusterHealth
from tasks.model.corruption import Comparison, HashRow
from tasks.model.errors import EtcdRefused, EtcdUnavailable, RunbookError, Unverified
from tasks.model.members import AlarmType, SeenMember
from tasks.model.snapshots import DataHash
from tasks.plans.corruption import tell_hashes

ROUNDS = 5
ROUND_SECONDS = 1.0
"""Hashes are comparable when all have compacted the same; a compaction that goes on takes moments.

A difference counts only when two rounds at two revisions show it between the same members.
"""


@step("compare the members' data", retry_delays_seconds=())
async def compare_data(run: Run, client: EtcdClient) -> tuple[Comparison, ClusterHealth]:
    """Hash every voter's data at the same revision; who cannot be asked is in the answer."""
    return await _compare_in_rounds(run, client)


async def _compare_in_rounds(run: Run, client: EtcdClient) -> tuple[Comparison, ClusterHealth]:
    before: frozenset[frozenset[str]] | None = None
    for number in range(ROUNDS):
        if number:
            await asyncio.sleep(ROUND_SECONDS)
        health = await client.observe_settled()
        found = await _compare(run, client, health)
        compacted = {row.data.compact_revision for row in found.rows if row.data}
        shape = frozenset(frozenset(row.host for row in group) for group in found.groups)
        if len(shape) <= 1 or (len(compacted) == 1 and shape == before):
            break
        before = shape if len(compacted) == 1 else None
    return found, health


async def _compare(run: Run, client: EtcdClient, health: ClusterHealth) -> Comparison:
    voters = [m for m in health.seen_members() if not m.member.is_learner]
    answers = {e.status.member_id: e for e in health.endpoints if e.status}
    known = [answers[m.member.id].status for m in voters if m.member.id in answers]
    revision = min((status.revision for status in known if status), default=0)

    async def ask(voter: SeenMember) -> HashRow:
        row = HashRow(voter.host, voter.label, voter.member.id)
        seen = answers.get(voter.member.id)
        if seen is None:
            return replace(row, why="it does not answer")
        endpoint = next(e for e in client.endpoints if e.name == seen.name)
        try:
            return replace(row, data=await _hash(run, client, endpoint, revision))
        except RunbookError as error:
            return replace(row, why=error.message)

    return Comparison(revision, await together(map(ask, voters)))


async def _hash(run: Run, client: EtcdClient, endpoint: Endpoint, revision: int) -> DataHash:
    """Ask over HTTPS; what its gateway does not know (before 3.5.30) is asked on the host."""
    try:
        return await client.hash_kv(replace(endpoint, patience_seconds=HASH_SECONDS), revision)
    except EtcdRefused:
        if endpoint.name not in run.hosts:
            raise
    layout = run.inventory.layout(endpoint.name)
    (result,) = await run.hosts[endpoint.name].run(hash_command(layout, endpoint.url, revision))
    try:
        return parse_hash(result)
    except (ValueError, KeyError, TypeError) as error:
        raise EtcdUnavailable(
            f"etcdctl endpoint hashkv answers {result.stdout[:200]!r}", host=endpoint.name
        ) from error


@step("take the alarm CORRUPT back", retry_delays_seconds=())
async def disarm_corrupt(run: Run, client: EtcdClient, expected: Iterable[str]) -> bool:
    """Take it back of every member, also of those that are none any more.

    Raises Unverified, with the alarm raised, where not all of these hosts are voters with the same
    data.
    """
    found, health = await _compare_in_rounds(run, client)
    missing = set(expected) - {row.host for row in found.rows}
    if missing or found.unknown or len(found.groups) != 1:
        lacking = tuple(f"{name}: is no voter" for name in sorted(missing))
        raise Unverified(
            "the alarm CORRUPT stays, for it is not seen that all voters have the same data:\n  - "
            + "\n  - ".join((*lacking, *tell_hashes(found)))
        )
    asked = next(e for e in client.endpoints if not e.unreachable)
    raised = [alarm for alarm in health.alarms if alarm.type is AlarmType.CORRUPT]
    for alarm in raised:
        await client.disarm(asked, alarm)
    return bool(raised)
