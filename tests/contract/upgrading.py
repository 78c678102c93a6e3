"""What tests of upgrades' traps share: real members whose programs are exchanged by hand."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath

import pytest

from tasks.etcd.client import EtcdClient
from tasks.hosts import upgrades as commands
from tasks.hosts.batch import Command, Result
from tasks.model.upgrades import LogRemnants
from tests.contract.etcd_real import RealCluster, find_binaries

BINARIES = find_binaries()
SECONDS = 30.0
DOWN_SECONDS = 10.0


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


async def noted_as_removed(cluster: RealCluster, i: int, client: EtcdClient) -> tuple[str, ...]:
    """See which of the members that are listed a member's data note as removed, as a run does.

    Its log is saved before, and its data with it.
    """
    await save_log(cluster, i, cluster.binary, client)
    listed = await client.list_members(client.endpoints[0])
    data = PurePosixPath(cluster.directory / cluster.members[i].name)
    command = commands.removed_command(data, tuple(f"{m.id:x}" for m in listed))
    return commands.parse_removed(on_host(command))
