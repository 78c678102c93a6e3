"""What is left of a cluster: a log and data, read and replayed as etcd itself reads them."""

from __future__ import annotations

import asyncio
import base64
import gzip
import lzma
import os
import subprocess
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath

import pytest

from tasks.etcd import scratch
from tasks.etcd.databases import (
    Wrong,
    add_digest,
    digest_file,
    find_fault,
    find_peer_urls,
    read_digest,
)
from tasks.etcd.logs import LogSegment, LogUnreadable, commit_record, read_log
from tasks.hosts.restores import extend_log_command, seal_command
from tasks.model.errors import EtcdUnavailable
from tasks.model.restores import LogEnd
from tests.contract.etcd_real import RealCluster
from tests.contract.local_host import LocalHost
from tests.contract.test_scratch import BINARIES, ask, save

KEYS = 30
pytestmark = pytest.mark.skipif(not BINARIES, reason="no etcd with its tools is on this machine")


def segments(data: Path) -> list[Path]:
    """List the files of a member's log."""
    return sorted((data / "member" / "wal").glob("*.wal"))


def whole(content: bytes) -> LogSegment:
    """Make a segment of which nothing is missing."""
    return LogSegment("x.wal", len(content), b"", content, 0)


def end_of(data: Path) -> LogEnd:
    """Read all of a member's log."""
    return read_log(tuple(whole(file.read_bytes()) for file in segments(data)))


async def replayed(cluster: RealCluster, i: int) -> tuple[int, int | None]:
    """Start a member alone on its data, and ask for its revision and keys."""
    cluster.flags = ("--force-new-cluster",)
    cluster.start_member(i)
    endpoint = cluster.endpoints[i]
    async with cluster.client(5.0, (endpoint,)) as client:
        for _ in range(100):
            with suppress(EtcdUnavailable):
                if (await client.get_status(endpoint)).leader:
                    await client.read_linearizable(endpoint)
                    break
            await asyncio.sleep(0.1)
        revision = (await client.get_status(endpoint)).revision
        keys, _ = await client.read_data(endpoint, revision)
    cluster.kill(i)
    return revision, keys


def commit_all(data: Path) -> None:
    """Let all of a log count, by the script that is sent to hosts."""
    *_, newest = segments(data)
    end = end_of(data)
    frame = base64.b64encode(commit_record(end)).decode()
    command = extend_log_command(
        PurePosixPath(data), newest.name, end.offset, newest.stat().st_size, frame
    )
    subprocess.run(["bash", "-euo", "pipefail", "-c", command.script], check=True)
    assert end_of(data).commit == end.index


@pytest.mark.parametrize("version", BINARIES)
async def test_a_survivor_has_all_that_it_wrote(tmp_path: Path, version: str) -> None:
    """Whoever is left of three: each acknowledged write was on two of them, the last one too."""
    with closing(RealCluster(BINARIES[version], tmp_path)) as cluster:
        cluster.start()
        async with cluster.client(5.0) as client:
            await client.wait_until_healthy(cluster.members, 20)
            await cluster.write(KEYS)
        cluster.kill(0, 1, 2)
        data = [tmp_path / member.name for member in cluster.members]
        ends = [end_of(each) for each in data]
        assert len({end.cluster_id for end in ends}) == 1
        assert all(end.commit <= end.index for end in ends)
        best = max(range(3), key=lambda i: ends[i].rank)
        commit_all(data[best])
        assert await replayed(cluster, best) == (1 + 2 * KEYS, KEYS)


@pytest.mark.skipif(os.geteuid() != 0, reason="the file is to be root's")
@pytest.mark.parametrize("version", BINARIES)
async def test_the_database_of_an_etcd_that_ended_is_its_snapshot(
    tmp_path: Path, version: str
) -> None:
    """Whole, with a checksum, restored by etcd's own tool: to the last write, by the same hash."""
    with closing(RealCluster(BINARIES[version], tmp_path, size=1)) as cluster:
        cluster.start()
        async with cluster.client(5.0) as client:
            await client.wait_until_healthy(cluster.members, 20)
            await cluster.write(KEYS)
            before = await ask(client)
        cluster.processes[0].terminate()
        cluster.processes[0].wait(timeout=20)
        snapshot, data = tmp_path / "made.db", tmp_path / cluster.members[0].name
        command = seal_command(PurePosixPath(data), PurePosixPath(snapshot))
        (result,) = await LocalHost().run(command)
    digest, told = read_digest(snapshot)
    assert digest == told
    assert result.stdout.split() == [str(snapshot.stat().st_size), digest, digest_file(snapshot)]
    assert find_fault(snapshot, None) is None
    programs, directory = BINARIES[version].parent, tmp_path / "scratch"
    directory.mkdir()
    await scratch.restore(programs, snapshot, directory / "data")
    async with scratch.running(programs, directory, directory / "data") as client:
        assert await ask(client) == before


async def test_a_record_that_was_torn_is_no_part_of_the_log(tmp_path: Path) -> None:
    """A power cut leaves a length without its content: what is before it counts."""
    with closing(RealCluster(next(iter(BINARIES.values())), tmp_path, size=1)) as cluster:
        cluster.start()
        async with cluster.client(5.0) as client:
            await client.wait_until_healthy(cluster.members, 20)
            await cluster.write(KEYS)
        cluster.kill(0)
        data = tmp_path / cluster.members[0].name
        (file,) = segments(data)
        content = file.read_bytes()
        end = read_log((whole(content),))
        for start in (end.offset * tenths // 80 * 8 for tenths in (2, 5, 8)):
            cut = LogSegment("x.wal", len(content), content[:4096], content[start:], start)
            assert read_log((cut,)) == end
        torn = content[: end.offset - 16] + bytes(len(content) - end.offset + 16)
        file.write_bytes(torn)
        before = read_log((whole(torn),))
        assert before.offset < end.offset
        assert before.rank <= end.rank
        commit_all(data)
        revision, _ = await replayed(cluster, 0)
        assert revision >= 2 * KEYS
    for nothing in (b"", bytes(4096), b"\xff" * 4096):
        for segment in (whole(nothing), LogSegment("x.wal", 1, b"", nothing, 8)):
            with pytest.raises(LogUnreadable):
                read_log((segment,))


async def test_a_file_that_is_no_sound_snapshot_is_told_as_what_it_is(tmp_path: Path) -> None:
    """Before etcd sees it; each fault by its name, with its manifest and without."""
    with closing(RealCluster(next(iter(BINARIES.values())), tmp_path, size=1)) as cluster:
        cluster.start()
        async with cluster.client(5.0) as client:
            await client.wait_until_healthy(cluster.members, 20)
            await cluster.write(KEYS)
            manifest = await save(client, tmp_path)
        url = cluster.members[0].peer_url
    file = tmp_path / "main" / "one.db"
    content = file.read_bytes()
    assert find_fault(file, manifest) is None
    assert find_fault(file, None) is None
    assert find_peer_urls(file) == {url}
    middle = len(content) // 2
    faults = [
        (b"", Wrong.NONE),
        (b"no database of any kind\n" * 50, Wrong.NONE),
        (gzip.compress(content), Wrong.PACKED),
        (lzma.compress(content), Wrong.PACKED),
        (content[:-4096], Wrong.TRUNCATED),
        (content[:middle], Wrong.TRUNCATED),
        (content[:-1], Wrong.TRUNCATED),
        (content + b"\n", Wrong.TRUNCATED),
        (content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :], Wrong.CHANGED),
        (content[:-32], Wrong.UNHASHED),
    ]
    spoiled = tmp_path / "spoiled.db"
    for number, (bad, kind) in enumerate(faults):
        spoiled.write_bytes(bad)
        fault = find_fault(spoiled, None)
        assert fault is not None, number
        assert fault.kind is kind, (number, fault)
    add_digest(spoiled)
    assert spoiled.read_bytes() == content
    swapped = find_fault(file, manifest.model_copy(update={"sha256": "0" * 64}))
    assert swapped is not None
    assert swapped.kind is Wrong.SWAPPED
