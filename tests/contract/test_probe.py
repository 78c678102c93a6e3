"""The probe of the gap in service, against real etcd that loses members and changes its clients."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.etcd.probe import STOP_SECONDS, Probe
from tasks.etcd.snapshots import CHECKSUM_BYTES, SnapshotStream
from tasks.model.errors import EtcdUnavailable
from tasks.store.places import open_store
from tasks.store.streaming import store_stream
from tests.contract.etcd_real import RealCluster, find_binaries

BINARY = find_binaries().get("3.5.16")
pytestmark = pytest.mark.skipif(BINARY is None, reason="no etcd 3.5.16 is on this machine")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RealCluster]:
    """Start a cluster of three."""
    assert BINARY is not None
    with closing(RealCluster(BINARY, tmp_path, size=3)) as cluster:
        cluster.start()
        yield cluster


async def wait_until_healthy(cluster: RealCluster) -> str:
    """Wait until all members are healthy; returns the leader's name."""
    async with cluster.client() as client:
        health = await client.wait_until_healthy(cluster.members, 20)
    assert health.leader_name is not None
    return health.leader_name


async def test_a_killed_leader_is_a_gap_and_failures_at_its_endpoint_alone(
    cluster: RealCluster,
) -> None:
    """The careful client goes on after the election; the one at the dead endpoint never does."""
    leader = await wait_until_healthy(cluster)
    probe = Probe(cluster.endpoints, cluster.client_tls())
    probe.start()
    try:
        probe.mark("quiet")
        await asyncio.sleep(1.5)
        probe.mark("killed")
        cluster.kill([member.name for member in cluster.members].index(leader))
        await asyncio.sleep(5)
        probe.mark("after")
        await asyncio.sleep(1)
    finally:
        probe.stop()
    gaps = {gap.stage: gap for gap in probe.results()}
    assert gaps["quiet"].failures == 0
    assert gaps["quiet"].reads >= 10
    assert gaps["killed"].longest > 0.1  # no election is shorter
    assert gaps["after"].reads >= 5
    ends = {one.name: one for one in gaps["after"].endpoints}
    assert ends[leader].reads == 0
    assert ends[leader].failures > 0
    assert ends[leader].last_error
    assert all(one.failures == 0 for name, one in ends.items() if name != leader)


async def test_another_client_certificate_costs_no_failure(cluster: RealCluster) -> None:
    """As when an authority has changed: new connections, nothing lost."""
    await wait_until_healthy(cluster)
    probe = Probe(cluster.endpoints, cluster.client_tls())
    probe.start()
    try:
        await asyncio.sleep(0.7)
        probe.mark("another")
        probe.use(cluster.client_tls())
        await asyncio.sleep(1)
    finally:
        probe.stop()
    (gap,) = [gap for gap in probe.results() if gap.stage == "another"]
    assert gap.failures == 0
    assert gap.reads >= 5
    assert all(one.failures == 0 for one in gap.endpoints)


async def test_it_ends_in_time_when_nobody_answers(cluster: RealCluster) -> None:
    """And what it tells is a gap as long as the stage."""
    await wait_until_healthy(cluster)
    cluster.kill(0, 1, 2)
    probe = Probe(cluster.endpoints, cluster.client_tls())
    probe.start()
    await asyncio.sleep(1.2)
    began = time.monotonic()
    probe.stop()
    probe.stop()
    assert time.monotonic() - began < STOP_SECONDS
    (gap,) = probe.results()
    assert gap.reads == 0
    assert gap.longest >= 1.0


async def test_a_snapshot_is_whole_or_not_there(cluster: RealCluster, tmp_path: Path) -> None:
    """A checksum that does not match what came leaves no file."""
    await wait_until_healthy(cluster)
    store = open_store(str(tmp_path), "snapshots")
    async with cluster.client() as client:
        stream = SnapshotStream(client, client.endpoints[0])
        await store_stream(store, "one.db", stream.parts())
        path = tmp_path / "snapshots" / "one.db"
        assert path.stat().st_size == stream.size + CHECKSUM_BYTES
        assert path.stat().st_mode & 0o777 == 0o600
        content = path.read_bytes()
        assert content[-CHECKSUM_BYTES:].hex() == stream.sha256
        assert hashlib.sha256(content[:-CHECKSUM_BYTES]).hexdigest() == stream.sha256
        spoiled = SnapshotStream(_Spoiling(client), client.endpoints[0])
        with pytest.raises(EtcdUnavailable, match="does not match its checksum"):
            await store_stream(store, "two.db", spoiled.parts())
    assert [each.name for each in path.parent.iterdir()] == ["one.db"]


class _Spoiling(EtcdClient):
    """A client whose snapshots have one byte changed on their way."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client

    async def stream_snapshot(self, endpoint: Endpoint) -> AsyncIterator[bytes]:
        spoiled = False
        async for part in self._client.stream_snapshot(endpoint):
            yield part if spoiled else bytes([part[0] ^ 1]) + part[1:]
            spoiled = True
