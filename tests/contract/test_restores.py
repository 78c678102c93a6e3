"""A restore's scripts in a real bash, with etcd's own tool, and what is seen of it."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from tasks.etcd import scratch
from tasks.etcd.databases import digest_file
from tasks.hosts import files, restores
from tasks.hosts.batch import Command
from tasks.model.layout import Layout
from tasks.model.member_settings import TextFile
from tasks.model.restores import MARK, Mark, RestoreHost, RestoreTools
from tasks.plans.restore_marks import raise_above
from tests.contract.etcd_real import RealCluster
from tests.contract.local_host import LocalHost
from tests.contract.test_scratch import BINARIES, save
from tests.unit.plan_cases import inventory

pytestmark = pytest.mark.skipif(not BINARIES, reason="no etcd with its tools is on this machine")
NEWEST = list(BINARIES)[-1] if BINARIES else ""
THIS = Mark(
    runbook="restore_cluster", token="t", sha256="s", hosts=("m1",), revision=1000, raised=900
)


@pytest.fixture
async def snapshot(tmp_path: Path) -> Path:
    """Save a snapshot of a real etcd."""
    with closing(RealCluster(BINARIES[NEWEST], tmp_path, size=1)) as cluster:
        cluster.start()
        async with cluster.client(5.0) as client:
            await client.wait_until_healthy(cluster.members, 20)
            await cluster.write(5)
            await save(client, tmp_path)
    return tmp_path / "main" / "one.db"


def layout(directory: Path, *, wal: bool = False, link: bool = False) -> Layout:
    """Lay a stacked member's data out below a directory: its supervisor is not asked here."""
    data = directory / "data"
    if link:
        (directory / "disk").mkdir()
        data.symlink_to(directory / "disk")
    own = inventory(topology="stacked", authority={}).layout("m1")
    log = PurePosixPath(directory / "log" / "wal") if wal else None
    if log:
        (directory / "log").mkdir()
    return replace(own, data=PurePosixPath(data), wal=log, binaries=PurePosixPath(directory))


def fill(own: Layout) -> None:
    """Let a member have data, of which nothing may be lost."""
    for directory in (Path(own.data) / "member" / "snap", *(map(Path, filter(None, (own.wal,))))):
        directory.mkdir(parents=True)
        (directory / "db").write_text("old")


def check_placed(own: Layout) -> None:
    """See restored data in place, and what was there beside them."""
    real = Path(own.data).resolve()
    aside = real.with_name(f"{real.name}.replaced-1")
    within = real / "etcd-runbooks-replaced-1"
    beside = within if real.is_mount() else aside
    assert (beside / "member" / "snap" / "db").read_text() == "old"
    log = Path(own.wal) if own.wal else real / "member" / "wal"
    assert list(log.glob("*.wal"))
    if own.wal:
        assert (log.with_name("wal.replaced-1") / "db").read_text() == "old"
    left = sorted(path.name for path in real.iterdir() if path != within)
    assert left == ["member"]


async def see(own: Layout) -> RestoreHost:
    """See a host as a run does."""
    (result,) = await LocalHost().run(restores.see_command(own))
    return restores.parse_seen("m1", result, None)


@pytest.mark.parametrize(
    "kind", [{}, {"wal": True}, {"link": True}], ids=["plain", "own log", "link"]
)
async def test_what_is_ready_takes_the_place_of_what_is_there(
    tmp_path: Path, snapshot: Path, kind: dict[str, bool]
) -> None:
    """Whole, once; what was there lies beside it, and a second run changes nothing."""
    await restore(layout(tmp_path, **kind), tmp_path, snapshot)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
async def test_a_disk_of_its_own_keeps_what_was_there_within(
    tmp_path: Path, snapshot: Path
) -> None:
    """A mount point cannot be renamed."""
    own = layout(tmp_path)
    (tmp_path / "data").mkdir()
    host = LocalHost()
    await host.run(Command("mount", f"mount -t tmpfs none {own.data}"))
    try:
        await restore(own, tmp_path, snapshot)
    finally:
        await host.run(Command("unmount", f"umount {own.data}"))


async def restore(own: Layout, tmp_path: Path, snapshot: Path) -> None:
    """Restore over data that are in place, and see each state on the way."""
    host = LocalHost()
    fill(own)
    seen = await see(own)
    assert (seen.has_data, seen.marked, seen.staged) == (True, None, None)
    assert seen.owner == f"{os.getuid()}:{os.getgid()}"
    assert (seen.free > 1 << 20, seen.data_bytes) == (True, 3)
    sha256 = digest_file(snapshot)
    given, backup = restores.snapshot_path(seen.stage), PurePosixPath(tmp_path / "backup")
    await host.upload(snapshot, given, sha256=sha256, mode="0600", backup=backup)
    words = (
        *("--name=m1", "--initial-cluster=m1=https://10.0.0.1:2380", "--initial-cluster-token=t"),
        *("--initial-advertise-peer-urls=https://10.0.0.1:2380", "--bump-revision=900"),
        "--mark-compacted",
    )
    programs = PurePosixPath(BINARIES[NEWEST].parent)
    tools = RestoreTools(programs, NEWEST, "etcdutl", bumps=True)
    mark = TextFile(MARK, THIS.model_dump_json())
    await host.run(restores.ready_command(tools, seen.stage, own.wal, seen.owner, words, mark))
    ready = await see(own)
    assert (ready.staged, ready.marked) == (THIS, None)
    for changes in (True, False):
        (put,) = await host.run(restores.place_command(own, seen.stage, "replaced-1"))
        assert files.parse_change(put) is changes
    placed = await see(own)
    assert (placed.marked, placed.staged) == (THIS, None)
    check_placed(own)
    opened = THIS.model_copy(update={"opened": True})
    await host.run(restores.mark_command(own, TextFile(MARK, opened.model_dump_json())))
    assert (await see(own)).marked == opened


@pytest.mark.parametrize("writes", [0, 1, 5])
@pytest.mark.parametrize("version", [v for v in BINARIES if not v.startswith("3.4.")])
async def test_a_revision_is_raised_as_far_as_the_mark_says(
    tmp_path: Path, version: str, writes: int
) -> None:
    """Data without a write have revision 1, and etcd's tool raises these from 0."""
    programs = BINARIES[version].parent
    with closing(RealCluster(BINARIES[version], tmp_path, size=1)) as cluster:
        cluster.start()
        async with cluster.client(5.0) as client:
            await client.wait_until_healthy(cluster.members, 20)
            if writes:
                await cluster.write(writes)
            saved = await save(client, tmp_path)
    mark = raise_above(THIS.model_copy(update={"sha256": ""}), "x", saved.revision)
    directory, host = tmp_path / "scratch", LocalHost()
    directory.mkdir()
    command = (
        f"{programs}/etcdutl snapshot restore {tmp_path}/main/one.db --data-dir={directory}/data "
        f"--bump-revision={mark.raised} --mark-compacted"
    )
    await host.run(Command("restore", f"{command} 2>&1"), timeout_seconds=60)
    async with scratch.running(programs, directory, directory / "data") as client:
        (endpoint,) = client.endpoints
        assert (await client.get_status(endpoint)).revision == mark.revision


async def test_the_tools_that_restore_are_found(tmp_path: Path) -> None:
    """With etcd's version beside them, and whether they can raise revisions."""
    for version, binary in BINARIES.items():
        own = replace(layout(tmp_path / version), binaries=PurePosixPath(binary.parent))
        (tmp_path / version).mkdir()
        found = (await see(own)).best_tools(version)
        assert found is not None, version
        assert found.tool == ("etcdctl" if version.startswith("3.4.") else "etcdutl")
        assert found.bumps == (not version.startswith("3.4."))
