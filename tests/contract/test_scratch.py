"""A snapshot of a real etcd, restored and started where no client is, on every version."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.etcd import scratch
from tasks.etcd.client import EtcdClient
from tasks.etcd.login import Login
from tasks.etcd.snapshots import SnapshotStream
from tasks.model.errors import EtcdRefused
from tasks.model.snapshots import DataHash, Manifest
from tasks.plans.rehearsal import Restored, compared, find_differences
from tasks.store.places import open_store
from tasks.store.streaming import store_stream
from tests.contract.etcd_real import RealCluster, find_binaries
from tests.contract.etcd_users import PASSWORDS, ROOT
from tests.unit.test_plans_retention import NOW, taken

KEYS = 25
ROOT_DIRECTORY = Path(__file__).parents[2]
BINARIES = {
    version: path
    for version, path in find_binaries().items()
    if (path.parent / "etcdctl").exists() or (path.parent / "etcdutl").exists()
}
pytestmark = pytest.mark.skipif(not BINARIES, reason="no etcd with its tools is on this machine")


async def ask(client: EtcdClient, revision: int | None = None) -> Restored:
    """Ask for what a manifest has, at a revision or at the present one."""
    (endpoint,) = client.endpoints
    status = await client.get_status(endpoint)
    at = revision or status.revision
    data_hash: DataHash | None = None
    with suppress(EtcdRefused):
        data_hash = await client.hash_kv(endpoint, at)
    return Restored(status.revision, await client.count_keys(endpoint, at), data_hash)


async def save(client: EtcdClient, folder: Path) -> Manifest:
    """Save a snapshot, and say what is in it."""
    seen = await ask(client)
    stream = SnapshotStream(client, client.endpoints[0])
    await store_stream(open_store(str(folder), "main"), "one.db", stream.parts())
    known = {"revision": seen.revision, "key_count": seen.keys, "hash_kv": seen.hash_kv}
    size = {"size": stream.size, "sha256": stream.sha256}
    return taken(NOW).model_copy(update=known | size)


@pytest.mark.parametrize("version", BINARIES)
@pytest.mark.parametrize("rbac", [False, True], ids=["open", "with RBAC"])
async def test_what_is_restored_is_what_was_saved(
    tmp_path: Path, version: str, *, rbac: bool
) -> None:
    """By revision, keys, and the hash where the version tells it; then nothing runs any more."""
    programs = BINARIES[version].parent
    login = Login(ROOT, PASSWORDS[ROOT]) if rbac else None
    with closing(RealCluster(BINARIES[version], tmp_path, size=1)) as cluster:
        cluster.start()
        async with cluster.client(5.0, login=login) as client:
            await client.wait_until_healthy(cluster.members, 20)
            await cluster.write(KEYS)
            if rbac:
                await cluster.enable_auth()
            manifest = await save(client, tmp_path)
    assert manifest.key_count == KEYS
    directory, data = tmp_path / "scratch", tmp_path / "scratch" / "data"
    directory.mkdir()
    await scratch.restore(programs, tmp_path / "main" / "one.db", data)
    apart = login.apart() if login else None
    async with scratch.running(programs, directory, data, apart) as client:
        restored = await ask(client, manifest.revision)
    assert find_differences(manifest, restored) == ()
    has_hash = not version.startswith("3.4")
    assert compared(manifest, restored) == "revision, keys" + (", hash" if has_hash else "")
    await asyncio.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_unix_connection(directory / "localhost:1")


@pytest.fixture
async def saved(tmp_path: Path) -> tuple[Path, Path]:
    """Save a snapshot of an empty etcd of some version; also gives the version's programs."""
    binary = next(iter(BINARIES.values()))
    with closing(RealCluster(binary, tmp_path, size=1)) as cluster:
        cluster.start()
        async with cluster.client(5.0) as client:
            await client.wait_until_healthy(cluster.members, 20)
            await save(client, tmp_path)
    return tmp_path / "main" / "one.db", binary.parent


async def test_what_etcds_tool_does_not_restore_is_told_in_its_words(
    saved: tuple[Path, Path], tmp_path: Path
) -> None:
    """A changed byte, a truncated file, a database without its checksum."""
    file, programs = saved
    content = file.read_bytes()
    for number, spoiled in enumerate((b"\1" + content[1:], content[:-512], content[:-32])):
        file.write_bytes(spoiled)
        with pytest.raises(scratch.Unrestorable, match=r"does not restore it: .+"):
            await scratch.restore(programs, file, tmp_path / f"data{number}")


async def test_an_etcd_that_does_not_start_is_told_with_its_last_words(
    saved: tuple[Path, Path], tmp_path: Path
) -> None:
    """At once, not after the limit."""
    file, programs = saved
    await scratch.restore(programs, file, tmp_path / "data")
    (tmp_path / "data" / "member" / "snap" / "db").write_bytes(b"no database at all")
    with pytest.raises(scratch.Unrestorable, match=r"etcd ends on what was restored: .+"):
        async with scratch.running(programs, tmp_path, tmp_path / "data"):
            pytest.fail("it serves")


def test_each_difference_is_named() -> None:
    """And what one side does not tell is not compared."""
    hashed = DataHash(hash=1, compact_revision=2)
    manifest = taken(NOW).model_copy(update={"revision": 9, "key_count": 4, "hash_kv": hashed})
    same = Restored(9, 4, hashed)
    assert find_differences(manifest, same) == ()
    for other, said in (
        (replace(same, revision=8), "its revision is 8"),
        (replace(same, keys=5), "it has 5 keys, and the cluster had 4"),
        (replace(same, hash_kv=DataHash(hash=3, compact_revision=2)), "another one"),
    ):
        (found,) = find_differences(manifest, other)
        assert said in found
    later = replace(same, keys=None, hash_kv=DataHash(hash=3, compact_revision=5))
    assert find_differences(manifest, later) == ()
    assert compared(manifest, later) == "revision"


HOLDS = """
import asyncio, sys
from pathlib import Path
from tasks.etcd import scratch

async def hold(programs, directory):
    async with scratch.running(programs, directory, directory / "data"):
        print("runs", flush=True)
        await asyncio.sleep(60)

asyncio.run(hold(*map(Path, sys.argv[1:])))
"""


def test_what_runs_ends_with_a_runner_that_is_killed(tmp_path: Path) -> None:
    """It has all of the cluster's data, and nobody else would end it."""
    programs = BINARIES[max(BINARIES)].parent
    command = [sys.executable, "-c", HOLDS, str(programs), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT_DIRECTORY, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "runs\n"
        runner.kill()
    deadline = time.monotonic() + 10
    while any(str(tmp_path).encode() in line for line in command_lines()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def command_lines() -> Iterator[bytes]:
    """Read those of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes()
