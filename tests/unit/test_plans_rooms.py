"""What file systems forbid is told of the right place, and only where something is written."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from tasks.model.inventory import Inventory
from tasks.model.observation import DataDirectory, Program, Room
from tasks.plans.bootstrap import IssueCertificates, own_directories
from tasks.plans.member_changes import RefreshConfiguration, RetireHost
from tasks.plans.rooms import member_findings, room_findings, unwritable
from tests.unit.plan_cases import bare, inventory

BACKUPS = PurePosixPath("/var/backups/etcd-runbooks")
READ_ONLY = "Read-only file system"


def room(path: str, **changes: Any) -> Room:  # noqa: ANN401 - any field
    """Make an ordinary directory of root's."""
    facts = {"real": path, "directory": path, "file_system": "/", "free": 9 << 30}
    return Room(path, **{**facts, **changes})


def uploading(**paths: str) -> Inventory:
    """Make an inventory whose programs come from the runner."""
    binaries = {"source": "archive", "path": "etcd.tar.gz", "sha256": "a" * 64}
    return inventory(etcd={"version": "3.5.16", "binaries": binaries}, paths=paths)


def test_places_on_one_file_system_are_one_finding() -> None:
    """Links are told with where they lead; a full place is one with almost nothing free."""
    rooms = (
        room("/a", trouble=READ_ONLY),
        room("/b", real="/srv/b", trouble=READ_ONLY),
        room("/c", file_system="/c", free=1 << 10),
        room("/d"),
    )
    assert [str(each) for each in unwritable("m1", rooms)] == [
        f"m1: no file can be written for /a, /b (a link to /srv/b): {READ_ONLY} (file system /)",
        "m1: no file can be written for /c: only 1 KiB are free (file system /c)",
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"runs": False}, "no program can be started from /usr/local/bin: / is mounted noexec"),
        ({"free": 64 << 20}, "has only 64 MiB free for etcd's programs in /usr/local/bin"),
        ({"trouble": READ_ONLY}, "no file can be written for /usr/local/bin"),
    ],
)
def test_programs_need_a_place_to_be_started_from(
    changes: dict[str, Any], says: str | None
) -> None:
    """Only where the run brings them: a read-only /usr may have etcd."""
    here = (room("/usr/local/bin", **changes),)
    found = [str(f) for f in room_findings(bare(rooms=here, programs=()), uploading())]
    assert [bool(says and says in each) for each in found] == ([True] if says else [])
    assert not list(room_findings(bare(rooms=here), inventory()))
    has = (Program("etcd", "a" * 64, "3.5.16"),)
    assert not list(room_findings(bare(rooms=here, programs=has), uploading()))


LOG = {"wal_directory": "/wal/etcd"}


@pytest.mark.parametrize(
    ("rooms", "says", "own"),
    [
        ((room("/wal/etcd", is_mount=True), room("/wal")), "is a mount point", ()),
        ((room("/wal/etcd", real="/x"), room("/wal")), "is a link to /x", ()),
        ((room("/wal/etcd"), room("/wal")), "/wal belongs to root", ()),
        ((room("/wal/etcd"), room("/wal", owner="etcd", mode="0700")), None, ()),
        ((room("/wal/etcd"), room("/wal", directory="/")), None, ("/wal",)),
        ((room("/wal/etcd"), room("/wal", is_mount=True, is_empty=True)), None, ("/wal",)),
        ((room("/wal/etcd"), room("/wal", is_mount=True)), "/wal belongs to root", ()),
    ],
)
def test_the_logs_directory_must_be_etcds_to_replace(
    rooms: tuple[Room, ...], says: str | None, own: tuple[str, ...]
) -> None:
    """Etcd renames it at a member's first start; the root of a disk that is free is given to it."""
    host = bare(rooms=rooms, programs=())
    found = [str(f) for f in room_findings(host, inventory(paths=LOG))]
    assert found == [each for each in found if says and says in each]
    assert bool(found) is bool(says)
    assert own_directories(inventory(paths=LOG), host) == own


@pytest.mark.parametrize(
    ("changes", "own"),
    [
        ({"directory": "/"}, ("/data",)),
        ({"is_empty": True, "is_mount": True}, ("/data",)),
        ({"is_empty": True, "owner": "etcd", "mode": "0700"}, ()),
        ({}, ()),
    ],
)
def test_a_data_directory_elsewhere_is_made(changes: dict[str, Any], own: tuple[str, ...]) -> None:
    """Etcd's account could not; one that holds anything is left alone."""
    host = bare(rooms=(room("/data", **changes),), data=DataDirectory.MISSING)
    assert own_directories(inventory(paths={"data_directory": "/data"}), host) == own


@pytest.mark.parametrize(
    ("kinds", "places"),
    [
        (set(), ""),
        ({RefreshConfiguration}, f"/etc/etcd/etcd.conf, {BACKUPS}"),
        ({RetireHost}, f"/var/lib/etcd, /var/lib/etcd/default.etcd, {BACKUPS}"),
        ({IssueCertificates}, f"/etc/etcd/ssl/ca.pem, {BACKUPS}"),
    ],
)
def test_of_a_member_only_what_is_written_matters(kinds: set[Any], places: str) -> None:
    """Its programs may be on a read-only disk."""
    asked = [
        *("/usr/local/bin", "/etc/etcd/etcd.conf", "/var/lib/etcd", "/var/lib/etcd/default.etcd"),
        *("/etc/etcd/ssl/ca.pem", str(BACKUPS)),
    ]
    host = bare(rooms=tuple(room(path, trouble=READ_ONLY) for path in asked))
    found = [str(f) for f in member_findings(host, inventory().layout("m1"), BACKUPS, kinds)]
    said = f"m1: no file can be written for {places}: {READ_ONLY} (file system /)"
    assert found == ([said] if places else [])
