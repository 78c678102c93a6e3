"""Compaction, defragmentation, alarms and the count of keys, on every real etcd that is here."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from tasks.engine.run import open_run
from tasks.etcd.keyspace import END
from tasks.etcd.prometheus import QUOTA
from tasks.etcd.recount import count_anew
from tasks.model.diagnosis import COMMIT, FSYNC
from tasks.model.errors import RunbookError
from tasks.model.members import Alarm, AlarmType
from tasks.model.space import prefix_end
from tasks.plans.health import DEFAULT_QUOTA
from tasks.steps.space import defragment
from tests.contract.etcd_real import RealCluster, find_binaries
from tests.unit.plan_cases import inventory

if TYPE_CHECKING:
    from tasks.etcd.gateway import Endpoint
    from tasks.hosts.connection import HostConnection
    from tasks.model.endpoints import EndpointStatus

FOUND = find_binaries()
SECONDS = 20.0
KEYS = 30
REMOVED = 0x1234
"""The id of a member that is none any more."""


@pytest.fixture(params=list(FOUND))
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealCluster]:
    """Start one member."""
    with closing(RealCluster(FOUND[str(request.param)], tmp_path, size=1)) as cluster:
        cluster.start()
        yield cluster


async def test_space_is_given_back(cluster: RealCluster) -> None:
    """History goes, once; the file shrinks; keys are counted and measured, values are not kept."""
    (endpoint,) = cluster.endpoints
    async with cluster.client(5.0) as client:
        await client.wait_until_healthy(cluster.members, SECONDS)
        for _ in range(40):
            await cluster.put("a/filler", *("b/x", "b/y"))
        status = await client.get_status(endpoint)
        assert await client.compact(endpoint, status.revision)
        assert not await client.compact(endpoint, status.revision)
        await client.defragment(endpoint)
        after = await client.get_status(endpoint)
        assert after.db_size <= status.db_size
        assert await client.first_key(endpoint, END) == b"a/filler"
        assert await client.first_key(endpoint, prefix_end(b"a/")) == b"b/x"
        assert await client.first_key(endpoint, prefix_end(b"b/")) is None
        assert await client.count_range(endpoint, END, END) == 3
        assert await client.count_range(endpoint, b"b/", prefix_end(b"b/")) == 2
        sampled = await client.sample(endpoint, b"b/", prefix_end(b"b/"), 1)
        assert [(one.size, one.version) for one in sampled] == [(6, 40)]


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_member_that_ends_while_it_is_written_anew_is_told(
    comes_back: bool, cluster: RealCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel ends etcd for want of memory: nothing goes on by itself, nothing was freed."""
    monkeypatch.setattr("tasks.steps.space.SETTLE_SECONDS", SECONDS if comes_back else 1.0)
    host = cast("HostConnection", SimpleNamespace(name=cluster.members[0].name))
    with temporary_settings({PREFECT_HOME: tmp_path}):
        async with open_run(inventory(), "reclaim_space") as run, cluster.client(5.0) as client:
            await client.wait_until_healthy(cluster.members, SECONDS)
            asked = asyncio.create_task(defragment.fn(run, client, host))
            get_status = client.get_status

            async def freeze(endpoint: Endpoint) -> EndpointStatus:
                """Answer the step's look before, and nothing of what it asks then."""
                status = await get_status(endpoint)
                monkeypatch.setattr(client, "get_status", get_status)
                cluster.processes[0].send_signal(signal.SIGSTOP)
                return status

            monkeypatch.setattr(client, "get_status", freeze)
            await asyncio.sleep(1)
            cluster.kill(0)
            if comes_back:
                cluster.start_member(0)
            told = "serves again with the database that it had" if comes_back else "has ended"
            with pytest.raises(RunbookError, match=told):
                await asked


@pytest.mark.parametrize("version", list(FOUND))
async def test_in_nospace_what_a_compaction_has_freed_is_counted(
    version: str, tmp_path: Path
) -> None:
    """Members whose compaction nobody waited for take it for in use until they write again."""
    quota = (f"--quota-backend-bytes={12 << 20}",)
    with closing(RealCluster(FOUND[version], tmp_path, flags=quota)) as cluster:
        cluster.start()
        first = cluster.endpoints[0]
        async with cluster.client(5.0) as client:
            await client.wait_until_healthy(cluster.members, SECONDS)
            await cluster.fill()
            raised = await client.list_alarms(first)
            await asyncio.sleep(1)
            before = await asyncio.gather(*map(client.get_status, cluster.endpoints))
            assert max(status.db_size_in_use for status in before) > 6 << 20
            await count_anew(client, first)
            after = await asyncio.gather(*map(client.get_status, cluster.endpoints))
            assert max(status.db_size_in_use for status in after) < 3 << 20
            assert set(await client.list_alarms(first)) >= set(raised)
            with pytest.raises(RunbookError, match="space exceeded"):
                await client.write_lease(first)


@pytest.mark.parametrize("kind", list(AlarmType))
async def test_alarms_are_taken_back(cluster: RealCluster, kind: AlarmType) -> None:
    """Also one whose member nobody knows, and twice does no harm."""
    (endpoint,) = cluster.endpoints
    async with cluster.client(5.0) as client:
        await client.wait_until_healthy(cluster.members, SECONDS)
        raise_it = cluster.raise_nospace if kind is AlarmType.NOSPACE else cluster.raise_corrupt
        await raise_it(0)
        (raised,) = await client.list_alarms(endpoint)
        assert raised.type is kind
        await client.disarm(endpoint, raised)
        await client.disarm(endpoint, raised)
        await client.disarm(endpoint, Alarm(REMOVED, kind))
        assert await client.list_alarms(endpoint) == ()


async def test_a_member_tells_its_metrics(cluster: RealCluster) -> None:
    """How fast it writes, since when it runs, and its quota, on every version: here the default."""
    (endpoint,) = cluster.endpoints
    async with cluster.client(5.0) as client:
        await client.wait_until_healthy(cluster.members, SECONDS)
        found = await client.get_metrics(endpoint)
    assert found.values[QUOTA] == DEFAULT_QUOTA
    assert found.quantile(FSYNC) is not None
    assert found.quantile(COMMIT) is not None
    assert {"etcd_server_leader_changes_seen_total", "process_start_time_seconds"} <= set(
        found.values
    )
