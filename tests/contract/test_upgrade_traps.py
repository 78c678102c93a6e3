"""What an upgrade by hand falls into, on real members; each with what heals it.

A test's name is the trap's. First what happens with the bare procedure, the program exchanged and
etcd started; then with what `upgrade_cluster` does before.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path, PurePosixPath

import httpx
import pytest

from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.hosts import upgrades as commands
from tasks.hosts.batch import Command, Result
from tasks.model.errors import EtcdRefused, MemberFailed, RunbookError
from tasks.model.upgrades import LogRemnants
from tests.contract.etcd_real import RealCluster, find_binaries

BINARIES = find_binaries()
SECONDS = 30.0
DOWN_SECONDS = 10.0
chaos = pytest.mark.chaos
"""All but the two that are quick."""


def binary(minor: str) -> Path:
    """Find a release of a minor version, the newest; skips where none is on this machine."""
    found = [version for version in BINARIES if version.startswith(f"{minor}.")]
    if not found:
        pytest.skip(f"no etcd {minor} is on this machine")
    return BINARIES[max(found, key=lambda version: int(version.rpartition(".")[2]))]


def release(version: str) -> Path:
    """Find one release; skips where it is not on this machine."""
    if version not in BINARIES:
        pytest.skip(f"no etcd {version} is on this machine")
    return BINARIES[version]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RealCluster]:
    """Make a cluster of three; the test says of which release, and starts it."""
    with closing(RealCluster(Path("/bin/false"), tmp_path)) as made:
        yield made


@asynccontextmanager
async def started(cluster: RealCluster, program: Path, *flags: str) -> AsyncIterator[EtcdClient]:
    """Start all members of a release, and wait until they are healthy."""
    cluster.binary, cluster.flags = program, flags
    cluster.start()
    async with cluster.client(5.0) as client:
        await client.wait_until_healthy(cluster.members, SECONDS)
        yield client


async def exchange(
    cluster: RealCluster, i: int, program: Path, *flags: str, client: EtcdClient
) -> None:
    """Start one member with another program, and wait until all are healthy."""
    cluster.processes[i].terminate()
    cluster.processes.pop(i).wait(timeout=20)
    cluster.binary, cluster.flags = program, flags
    cluster.start_member(i)
    await client.wait_until_healthy(cluster.members, SECONDS)


async def ends(cluster: RealCluster, i: int, program: Path, *flags: str) -> str:
    """Start one member with another program by the bare procedure; tell for what it ended."""
    cluster.processes[i].terminate()
    cluster.processes.pop(i).wait(timeout=20)
    log = cluster.directory / f"{cluster.members[i].name}.log"
    before = len(log.read_bytes())
    cluster.binary, cluster.flags = program, flags
    cluster.start_member(i)
    process = cluster.processes.pop(i)
    try:
        await asyncio.to_thread(process.wait, DOWN_SECONDS)
    finally:
        process.kill()
        process.wait()
    return log.read_bytes()[before:].decode()


async def version_rises(client: EtcdClient, minor: str) -> None:
    """Wait until the cluster's own version is a minor one."""
    async with asyncio.timeout(SECONDS):
        while True:
            told = [(await client.get_version(each)).cluster for each in client.endpoints]
            if all(version.startswith(f"{minor}.") for version in told):
                return
            await asyncio.sleep(0.2)


def on_host(command: Command) -> Result:
    """Run what is run on a host, on this machine."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.script],
        capture_output=True,
        text=True,
        check=True,
    )
    return Result(command.name, 0, done.stdout, done.stderr, 0.0)


def log_of(cluster: RealCluster, i: int) -> LogRemnants:
    """See what of the v2 store is in a member's log, as a run does."""
    data = PurePosixPath(cluster.directory / cluster.members[i].name)
    return commands.parse_log(on_host(commands.log_command(data, None)))


async def save_log(cluster: RealCluster, i: int, program: Path, client: EtcdClient) -> None:
    """Let a member save a snapshot of its log, as a run does."""
    await exchange(cluster, i, program, "--snapshot-count=1", client=client)
    own = client.endpoints[i]
    index = (await client.get_status(own)).raft_applied_index
    for _ in range(4):
        await client.write_lease(own)
    data = PurePosixPath(cluster.directory / cluster.members[i].name)
    on_host(commands.await_snapshot_command(data, index))


async def write_v2(cluster: RealCluster, key: str) -> None:
    """Write a key by the v2 API."""
    async with httpx.AsyncClient(verify=cluster.client_tls(), trust_env=False) as http:
        url = f"{cluster.endpoints[0].url}/v2/keys/{key}"
        (await http.put(url, data={"value": "x"})).raise_for_status()


async def test_v2_entries_in_the_log_of_3_4_end_3_6(cluster: RealCluster) -> None:
    """/health of 3.4 writes them; a snapshot of the log, saved on 3.5, lets 3.6 start past them."""
    middle, later = binary("3.5"), binary("3.6")
    async with started(cluster, binary("3.4")) as client:
        await client.write_key(client.endpoints[0], b"written")
        assert log_of(cluster, 0).entries > 0
        for i in range(3):
            await exchange(cluster, i, middle, client=client)
        await version_rises(client, "3.5")
        said = await ends(cluster, 0, later)
        assert "detected disallowed v2 WAL" in said
        cluster.binary = middle
        cluster.start_member(0)
        await client.wait_until_healthy(cluster.members, SECONDS)
        for i in range(3):
            seen = log_of(cluster, i)
            assert (seen.entries > 0, seen.writes, seen.has_keys) == (True, 0, False)
            await save_log(cluster, i, middle, client)
            await exchange(cluster, i, later, client=client)
        await version_rises(client, "3.6")


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
        await save_log(cluster, 0, middle, client)
        listed = await client.list_members(client.endpoints[0])
        data = PurePosixPath(cluster.directory / cluster.members[0].name)
        command = commands.removed_command(data, tuple(f"{m.id:x}" for m in listed))
        assert bool(commands.parse_removed(on_host(command))) is not writes
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
async def test_what_3_5_wrote_of_itself_in_the_log_ends_3_7(cluster: RealCluster) -> None:
    """3.6 takes it for what it is; 3.7 ends where no snapshot of the log came in between."""
    middle, later = binary("3.6"), binary("3.7")
    async with started(cluster, binary("3.5")) as client:
        for i in range(3):
            await exchange(cluster, i, middle, client=client)
        await version_rises(client, "3.6")
        said = await ends(cluster, 0, later)
        assert "unmarshal should never fail" in said
        cluster.binary = middle
        cluster.start_member(0)
        await client.wait_until_healthy(cluster.members, SECONDS)
        for i in range(3):
            seen = log_of(cluster, i)
            assert (seen.ends((3, 6)), seen.ends((3, 7))) == (False, True)
            await save_log(cluster, i, middle, client)
            await exchange(cluster, i, later, client=client)
        await version_rises(client, "3.7")


@chaos
async def test_keys_of_the_v2_store_keep_3_6_from_starting(cluster: RealCluster) -> None:
    """They are seen in the log as writes, and, once it is saved, as keys in its snapshot."""
    middle = binary("3.5")
    async with started(cluster, middle, "--enable-v2") as client:
        assert (log_of(cluster, 0).writes, log_of(cluster, 0).has_keys) == (0, False)
        await write_v2(cluster, "kept")
        metrics = await client.get_metrics(client.endpoints[0])
        assert "etcd_http_received_total" in metrics.values
        seen = log_of(cluster, 0)
        assert (seen.writes > 0, seen.has_keys) == (True, False)
        await save_log(cluster, 0, middle, client)
        assert log_of(cluster, 0).has_keys
        said = await ends(cluster, 0, binary("3.6"))
        assert "detected disallowed custom content in v2store" in said


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
        status = await client.get_status(client.endpoints[0])
        assert (status.downgrades_to, status.storage_version) == ("3.5.0", "3.5.0")
        with pytest.raises(EtcdRefused, match="invalid downgrade target"):
            await client.enable_downgrade(client.endpoints[0], "3.5.0")
        await client.cancel_downgrade(client.endpoints[0])
        await version_rises(client, "3.6")
        await client.enable_downgrade(client.endpoints[0], "3.5.0")
        await version_rises(client, "3.5")
        for i in range(3):
            await exchange(cluster, i, middle, client=client)


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
