"""A wiped first member that has outgrown the others, on real etcds: its data tell, no counts."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import RunbookError
from tasks.model.histories import first_id
from tests.contract.etcd_real import RealCluster, find_binaries

SECONDS = 30.0
FOUND = find_binaries()
BINARIES = {v: FOUND[v] for v in (min(FOUND, default=""), max(FOUND, default="")) if v}
"""The oldest has no hash at a revision by its gateway; keys are compared there."""


@pytest.fixture(params=list(BINARIES))
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealCluster]:
    """Start a first member as kubeadm does, which a second one will join."""
    with closing(RealCluster(BINARIES[str(request.param)], tmp_path, size=1)) as cluster:
        cluster.start()
        yield cluster


async def until(client: EtcdClient, *, voters: int = 1, leads: bool = True) -> ClusterHealth:
    """Wait until the first member lists so many voters, and leads or has no leader."""
    deadline = time.monotonic() + SECONDS
    while True:
        seen = await client.observe_cluster()
        first = seen.endpoints[0]
        listed = sum(not m.is_learner for m in first.members)
        if first.status and bool(first.status.leader) == leads and listed == voters:
            return seen
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.1)


async def joined(pair: RealCluster) -> Endpoint:
    """Let the second member join and get its vote."""
    async with pair.client() as client:
        await until(client)
        await pair.write(6)
        await pair.add_learner()
        second = await pair.start_learner()
        members = await client.list_members(pair.endpoints[0])
        learner = next(m.id for m in members if m.is_learner)
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                await client.promote_member(pair.endpoints[0], learner)
                break
            except RunbookError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)
        await until(client, voters=2)
    return second


async def test_a_wiped_first_member_that_was_replaced_before_is_named(pair: RealCluster) -> None:
    """Its words give it the first id again, which the others do not list any more."""
    if pair.binary == FOUND[min(FOUND)]:
        pytest.skip("3.4 lets it follow whoever leads, whatever id is meant: it never serves")
    second = await joined(pair)
    async with pair.client(endpoints=(second,)) as client:
        (first,) = (m for m in await client.list_members(second) if m.name == "etcd1")
        await client.remove_member(second, first.id)
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                await client.add_learner(second, first.peer_urls[0])
                break
            except RunbookError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)
    pair.kill(0)
    shutil.rmtree(pair.directory / "etcd1")
    pair.start_member(0)
    async with pair.client() as client:
        alone = await until(client)
    assert [m.id for m in alone.endpoints[0].members] == [first.id] == [first_id(first.peer_urls)]
    async with pair.client(endpoints=(*pair.endpoints, second)) as client:
        seen = await client.observe_cluster()
    (said,) = (s for s in seen.find_faults(()) if "another history" in s)
    assert said.startswith("etcd1 has begun another history, alone, at term 2 and index ")
    assert first.id not in {m.member.id for m in seen.seen_members()}


async def test_a_wiped_first_member_that_has_outgrown_the_others_is_named(
    pair: RealCluster,
) -> None:
    """It has the old ids, a higher term and index, and none of what was written before."""
    second = await joined(pair)
    async with pair.client(endpoints=(second,)) as client:
        before = (await client.observe_cluster()).endpoints[0].status
    pair.kill(0)
    shutil.rmtree(pair.directory / "etcd1")
    for _ in range(4):  # each start is a term
        pair.start_member(0)
        async with pair.client() as client:
            await until(client)
        pair.kill(0)
    pair.start_member(0)
    async with pair.client() as client:
        await until(client)
    await pair.put(*(f"other{number}" for number in range(40)))
    async with pair.client(endpoints=(second,)) as client:
        await until(client, voters=2, leads=False)
    async with pair.client(endpoints=(*pair.endpoints, second)) as client:
        seen = await client.observe_cluster()
    first = seen.endpoints[0].status
    assert before
    assert first
    assert first.cluster_id == before.cluster_id
    assert first.raft_index > before.raft_index
    (said,) = (s for s in seen.find_faults(()) if "another history" in s)
    assert "etcd1 has begun another history: " in said
    assert "as etcd2 has it" in said
    assert [m.is_healthy for m in seen.seen_members()] == [False, False]
