"""What an upgrade by hand falls into, on real members; each with what heals it.

A test's name is the trap's. First what happens with the bare procedure, the program exchanged and
etcd started; then with what `upgrade_cluster` does before.
"""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tasks.etcd.prometheus import V2_REQUESTS
from tasks.model.errors import EtcdRefused, MemberFailed, RunbookError
from tasks.plans.upgrade_routes import minor_of
from tests.contract.etcd_real import RealCluster
from tests.contract.upgrading import (
    SECONDS,
    binary,
    ends,
    exchange,
    log_of,
    save_log,
    started,
    version_rises,
)

pytest_plugins = ["tests.contract.upgrade_fixtures"]

chaos = pytest.mark.chaos


async def speak_v2(cluster: RealCluster, method: str, key: str, **data: str) -> int:
    """Ask something of the v2 API; tells the answer's status."""
    async with httpx.AsyncClient(verify=cluster.client_tls(), trust_env=False) as http:
        url = f"{cluster.endpoints[0].url}/v2/keys/{key}"
        return (await http.request(method, url, data=data or None)).status_code


@pytest.mark.parametrize(
    ("first", "middle", "later", "last_words"),
    [
        pytest.param("3.4", "3.5", "3.6", "detected disallowed v2 WAL", id="3.4's /health"),
        pytest.param(
            "3.5", "3.6", "3.7", "unmarshal should never fail", id="3.5 of itself", marks=chaos
        ),
    ],
)
async def test_what_a_version_left_in_the_log_ends_the_next_but_one(
    cluster: RealCluster, first: str, middle: str, later: str, last_words: str
) -> None:
    """Entries of the v2 store, which the one between reads; once it has saved its log, all is well.

    /health of 3.4 writes some, and 3.5 its own names and versions.
    """
    between, after = binary(middle), binary(later)
    async with started(cluster, binary(first)) as client:
        await client.write_key(client.endpoints[0], b"written")
        for i in range(3):
            await exchange(cluster, i, between, client=client)
        await version_rises(client, middle)
        assert last_words in await ends(cluster, 0, after)
        cluster.binary = between
        cluster.start_member(0)
        await client.wait_until_healthy(cluster.members, SECONDS)
        for i in range(3):
            seen = log_of(cluster, i)
            assert (seen.writes, seen.has_keys) == (0, False)
            # 3.6 has saved the one of the member that was started again after 3.7.
            assert seen.ends(minor_of(later)) or i == 0
            if seen.ends(minor_of(later)):
                await save_log(cluster, i, between, client)
            seen = log_of(cluster, i)
            assert (seen.is_saved, seen.ends(minor_of(later))) == (True, False)
            await exchange(cluster, i, after, client=client)
        await version_rises(client, later)


@chaos
async def test_keys_of_the_v2_store_keep_3_6_from_starting(cluster: RealCluster) -> None:
    """They are seen in the log as writes, and, once it is saved, as keys in its snapshot."""
    middle = binary("3.5")
    async with started(cluster, middle, "--enable-v2") as client:
        assert (log_of(cluster, 0).writes, log_of(cluster, 0).has_keys) == (0, False)
        assert await speak_v2(cluster, "PUT", "kept", value="x") == httpx.codes.CREATED
        seen = log_of(cluster, 0)
        assert (seen.writes > 0, seen.has_keys) == (True, False)
        await save_log(cluster, 0, middle, client)
        assert log_of(cluster, 0).has_keys
        assert log_of(cluster, 0).ends((3, 6))
        said = await ends(cluster, 0, binary("3.6"))
        assert "detected disallowed custom content in v2store" in said


@chaos
async def test_the_v2_api_of_others_ends_a_3_6_beside_them(cluster: RealCluster) -> None:
    """With it on, /health of 3.5 writes entries, as 3.4's does; 3.6 serves none of its clients."""
    middle, later = binary("3.5"), binary("3.6")
    async with started(cluster, middle, "--enable-v2") as client:
        own = client.endpoints[0]
        assert V2_REQUESTS not in (await client.get_metrics(own)).values
        assert await speak_v2(cluster, "GET", "") == httpx.codes.OK
        assert (await client.get_metrics(own)).values[V2_REQUESTS] == 1
        assert log_of(cluster, 0).ends((3, 6))
        await save_log(cluster, 0, middle, client)
        with pytest.raises(MemberFailed):
            await exchange(cluster, 0, later, client=client)
        said = (cluster.directory / f"{cluster.members[0].name}.log").read_text()
        assert "detected disallowed v2 WAL" in said
        cluster.processes.pop(0).wait()
        cluster.binary, cluster.flags = middle, ()
        cluster.start_member(0)
        await client.wait_until_healthy(cluster.members, SECONDS)
        assert [await client.serves_v2(each) for each in client.endpoints] == [False, True, True]
        for i in (1, 2):
            await exchange(cluster, i, middle, client=client)
        for i in range(3):
            await save_log(cluster, i, middle, client)
            await exchange(cluster, i, later, client=client)
        assert await speak_v2(cluster, "GET", "") == httpx.codes.NOT_FOUND
        assert not await client.serves_v2(own)


@chaos
@pytest.mark.parametrize("minor", ["3.4", "3.5", "3.6"])
async def test_a_cluster_without_space_cannot_be_prepared(cluster: RealCluster, minor: str) -> None:
    """Neither the key before 3.5 nor what makes a member save its log is taken."""
    async with started(cluster, binary(minor)) as client:
        await cluster.raise_nospace(1)
        own = client.endpoints[0]
        for write in (client.write_key(own, b"etcd-runbooks/upgrade"), client.write_lease(own)):
            with pytest.raises(EtcdRefused, match="space exceeded"):
                await write


@chaos
async def test_a_minor_version_that_is_skipped(cluster: RealCluster) -> None:
    """3.6 on a cluster of 3.4 ends; no route has such a hop."""
    async with started(cluster, binary("3.4")):
        said = await ends(cluster, 0, binary("3.6"))
        assert "panic" in said or "fatal" in said


@chaos
async def test_a_setting_that_went_away_is_fatal_as_a_flag_alone(cluster: RealCluster) -> None:
    """3.7 ends for the flag, starts without a word for the key; the gate checks as the flag did."""
    middle, later = binary("3.6"), binary("3.7")
    flag = "--experimental-initial-corrupt-check"
    async with started(cluster, middle, flag) as client:
        assert "flag provided but not defined" in await ends(cluster, 0, later, flag)
        gate = "--feature-gates=InitialCorruptCheck=true"
        for program in (middle, later):
            cluster.binary, cluster.flags = program, (gate,)
            if program == middle:
                cluster.start_member(0)
                await client.wait_until_healthy(cluster.members, SECONDS)
            else:
                await exchange(cluster, 0, later, gate, client=client)
            log = cluster.directory / f"{cluster.members[0].name}.log"
            assert (
                "initial corruption checking passed"
                in log.read_text().rpartition("etcd-version")[2]
            )


@chaos
async def test_a_cluster_that_has_risen_is_brought_back_by_a_downgrade(
    cluster: RealCluster,
) -> None:
    """The older program ends at once; with the downgrade enabled, and the data so, it runs."""
    middle, later = binary("3.5"), binary("3.6")
    async with started(cluster, later) as client:
        await version_rises(client, "3.6")
        said = await ends(cluster, 0, middle)
        assert "downgrade" in said
        cluster.binary = later
        cluster.start_member(0)
        await client.wait_until_healthy(cluster.members, SECONDS)
        await client.enable_downgrade(client.endpoints[0], "3.5.0")
        await version_rises(client, "3.5")
        # Each member writes its data for it by itself, some seconds after the cluster's version.
        async with asyncio.timeout(SECONDS):
            while (await client.get_status(client.endpoints[0])).storage_version != "3.5.0":
                await asyncio.sleep(0.2)
        assert (await client.get_status(client.endpoints[0])).downgrades_to == "3.5.0"
        with pytest.raises(EtcdRefused, match="invalid downgrade target"):
            await client.enable_downgrade(client.endpoints[0], "3.5.0")
        await client.cancel_downgrade(client.endpoints[0])
        await version_rises(client, "3.6")
        await client.enable_downgrade(client.endpoints[0], "3.5.0")
        await version_rises(client, "3.5")
        for i in range(3):
            await exchange(cluster, i, middle, client=client)


@chaos
async def test_a_downgrade_right_after_another_is_refused_until_that_is_at_its_end(
    cluster: RealCluster,
) -> None:
    """Etcd sees some seconds late that all members are there; members tell when it has."""
    middle, newest = binary("3.6"), binary("3.7")
    async with started(cluster, newest) as client:
        await version_rises(client, "3.7")
        own = client.endpoints[0]
        await client.enable_downgrade(own, "3.6.0")
        await version_rises(client, "3.6")
        for i in range(3):
            await exchange(cluster, i, middle, client=client)
        with pytest.raises(EtcdRefused, match="downgrade job"):
            await client.enable_downgrade(own, "3.5.0")
        async with asyncio.timeout(SECONDS):
            while (await client.get_status(own)).downgrades_to:
                await asyncio.sleep(0.2)
        await client.enable_downgrade(own, "3.5.0")
        await version_rises(client, "3.5")


async def test_a_lease_is_a_write_that_nobody_sees(cluster: RealCluster) -> None:
    """It is acknowledged by a quorum each time, and no revision comes of it."""
    async with started(cluster, binary("3.5")) as client:
        own = client.endpoints[0]
        before = await client.get_status(own)
        for _ in range(5):
            await client.write_lease(own)
        after = await client.get_status(own)
        assert after.revision == before.revision
        assert after.raft_applied_index >= before.raft_applied_index + 5
        cluster.kill(1, 2)
        with pytest.raises(RunbookError):
            await client.write_lease(own)
