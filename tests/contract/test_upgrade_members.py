"""What becomes of a cluster's members in upgrades by hand, on real ones; each with what heals it.

First what happens with the bare procedure, the program exchanged and etcd started; then with what
`upgrade_cluster` does before.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.model.errors import MemberFailed, RunbookError
from tasks.plans.upgrade_routes import find_route
from tests.contract.etcd_real import RealCluster
from tests.contract.upgrading import (
    SECONDS,
    binary,
    ends,
    exchange,
    noted_as_removed,
    release,
    save_log,
    started,
    version_rises,
)

pytest_plugins = ["tests.contract.upgrade_fixtures"]

chaos = pytest.mark.chaos


@chaos
@pytest.mark.parametrize("writes", [False, True])
async def test_members_that_3_5_30_takes_for_zombies_while_it_reads_a_log_of_3_4(
    cluster: RealCluster, writes: bool
) -> None:
    """3.6 then turns them away as removed, and they end for good; a write beforehand heals.

    3.4 saves how far its data are with a write of a key alone. Without one 3.5 applies all of its
    log anew, and notes as removed whoever is not yet in the list when the first one is added.
    """
    middle, later = binary("3.5"), binary("3.6")
    async with started(cluster, binary("3.4")) as client:
        if writes:
            await client.write_key(client.endpoints[0], b"etcd-runbooks/upgrade")
            await asyncio.sleep(1.0)
        for i in range(3):
            await exchange(cluster, i, middle, client=client)
        await version_rises(client, "3.5")
        assert bool(await noted_as_removed(cluster, 0, client)) is not writes
        if writes:
            await exchange(cluster, 0, later, client=client)
            return
        with pytest.raises(MemberFailed):
            await exchange(cluster, 0, later, client=client)
        gone = [i for i in (1, 2) if cluster.processes[i].poll() is not None]
        log = (cluster.directory / f"{cluster.members[gone[0]].name}.log").read_text()
        assert "the member has been permanently removed from the cluster" in log
        for i in gone:
            cluster.processes.pop(i)


@chaos
@pytest.mark.parametrize("over", ["", "3.5.30"])
async def test_a_learner_that_3_5_16_promoted_and_forgot(cluster: RealCluster, over: str) -> None:
    """Two of them, and 3.6 does not start; 3.5.24 and later write down what they are at a start."""
    old, later = release("3.5.16"), binary("3.6")
    members = cluster.members
    cluster.members, cluster.size, cluster.endpoints = members[:1], 1, cluster.endpoints[:1]
    async with started(cluster, old):
        pass
    for count in (2, 3):
        cluster.learner = members[count - 1]
        async with cluster.client(5.0) as client:
            await client.add_learner(client.endpoints[0], cluster.learner.peer_url)
            cluster.size = count - 1
            cluster.start_member(count - 1)
            await _promote(client, cluster.learner.peer_url)
        cluster.members, cluster.size = members[:count], count
        cluster.endpoints = tuple(Endpoint(m.name, m.client_url) for m in cluster.members)
    async with cluster.client(5.0) as client:
        await client.wait_until_healthy(cluster.members, SECONDS)
        if not over:
            assert "too many learner members in cluster" in await ends(cluster, 1, later)
            return
        for program in (release(over), later):
            for i in range(3):
                await exchange(cluster, i, program, client=client)
        await version_rises(client, "3.6")


async def _promote(client: EtcdClient, peer_url: str) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            listed = await client.list_members(client.endpoints[0])
            number = next(m.id for m in listed if peer_url in m.peer_urls)
            try:
                await client.promote_member(client.endpoints[0], number)
            except RunbookError:
                await asyncio.sleep(0.3)
            else:
                return


@chaos
@pytest.mark.parametrize("goes_over_it", [False, True])
async def test_members_of_a_cluster_that_3_4_restored_come_back_in_3_6(
    cluster: RealCluster, goes_over_it: bool
) -> None:
    """Zombies: 3.4's restore leaves the old members in the data, which 3.6 is the first to believe.

    3.5.26 and later take them out when they start, and no route leaves 3.5 from a release before.
    """
    old, between, later = binary("3.4"), release("3.5.16"), binary("3.6")
    async with started(cluster, old) as client:
        await client.write_key(client.endpoints[0], b"written")
        gone = {m.id for m in await client.list_members(client.endpoints[0])}
        restore_by_hand(cluster, old)
    async with started(cluster, old) as client:
        listed = {m.id for m in await client.list_members(client.endpoints[0])}
        assert not gone & listed
        await client.write_key(client.endpoints[0], b"etcd-runbooks/upgrade")
        route = find_route(dict.fromkeys("abc", "3.5.16"), (3, 5), "3.6.16", ("3.5.30", "3.6.16"))
        assert route.versions == ("3.5.30", "3.6.16")
        for program in (between, *([release("3.5.30")] if goes_over_it else [])):
            for i in range(3):
                await exchange(cluster, i, program, client=client)
        await version_rises(client, "3.5")
        program = cluster.binary
        for i in range(3):
            await save_log(cluster, i, program, client)
            await exchange(cluster, i, later, client=client)
        now = {m.id for m in await client.list_members(client.endpoints[0])}
        assert now == (listed if goes_over_it else listed | gone)


def restore_by_hand(cluster: RealCluster, program: Path) -> None:
    """Restore all members from a snapshot, as etcd's documentation says, under another token."""
    etcdctl, files = str(program.with_name("etcdctl")), cluster.directory
    snapshot, environment = str(files / "saved.db"), {"ETCDCTL_API": "3"}
    tls = [f"--cacert={files}/ca.pem", f"--cert={files}/peer.pem", f"--key={files}/peer-key.pem"]
    save = [etcdctl, "--endpoints", cluster.endpoints[0].url, *tls, "snapshot", "save", snapshot]
    subprocess.run(save, env=environment, check=True, capture_output=True)
    cluster.kill(*cluster.processes)
    initial = ",".join(f"{m.name}={m.peer_url}" for m in cluster.members)
    for member in cluster.members:
        data = files / member.name
        shutil.rmtree(data)
        words = [f"--name={member.name}", f"--data-dir={data}", f"--initial-cluster={initial}"]
        words += [f"--initial-advertise-peer-urls={member.peer_url}"]
        words += ["--initial-cluster-token=restored"]
        command = [etcdctl, "snapshot", "restore", snapshot, *words]
        subprocess.run(command, env=environment, check=True, capture_output=True)
