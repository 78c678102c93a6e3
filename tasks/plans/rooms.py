"""Whether the places where a run writes can take what it writes there: read-only, noexec, full."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import PurePosixPath

from tasks.model.inventory import Inventory
from tasks.model.layout import Layout
from tasks.model.observation import HostObservation, Room
from tasks.model.plan import Finding, Severity, Step
from tasks.model.settings import InstalledBinaries
from tasks.plans.bootstrap import IssueCertificates
from tasks.plans.leaves import StageLeaves
from tasks.plans.member_changes import RefreshConfiguration, RetireHost
from tasks.plans.reconfiguration import ReaddressMember

PROGRAMS_BYTES = 96 << 20
"""etcd, etcdctl and etcdutl of 3.7 are 75 MB; where older ones are replaced, both are there."""
FILES_BYTES = 1 << 20
"""Certificates, keys, settings and what they replace."""


PACKAGED = ("/usr/lib/systemd/", "/lib/systemd/")
"""Where packages have units, which no run writes."""


def unwritable(host: str, rooms: Iterable[Room]) -> Iterator[Finding]:
    """Refuse places that take no file, one sentence for each reason."""
    found: dict[tuple[str, str], list[Room]] = {}
    for room in rooms:
        trouble = room.trouble
        if not trouble and room.free < FILES_BYTES:
            trouble = f"only {room.free >> 10} KiB are free"
        if trouble:
            found.setdefault((room.file_system, trouble), []).append(room)
    for (system, trouble), where in found.items():
        places = ", ".join(dict.fromkeys(_called(room) for room in where))
        yield Finding(
            Severity.REFUSAL,
            host,
            f"no file can be written for {places}: {trouble} (file system {system})",
        )


def member_findings(
    host: HostObservation, layout: Layout, backups: PurePosixPath, kinds: Collection[type[Step]]
) -> Iterator[Finding]:
    """Refuse what a member's host does not take of the steps of these kinds that it has."""
    written = {backups}
    if RetireHost in kinds:
        written |= {layout.state, *layout.data_directories}
    if RefreshConfiguration in kinds or ReaddressMember in kinds:
        written.add(layout.manifest or layout.configuration)
    if IssueCertificates in kinds or StageLeaves in kinds:
        written |= set(layout.credentials)
    if written - {backups}:
        paths = set(map(str, written))
        yield from unwritable(host.host, (room for room in host.rooms if room.path in paths))


def room_findings(host: HostObservation, inventory: Inventory) -> Iterator[Finding]:
    """Refuse what a joining host's file systems do not take: any file, programs, a log's place."""
    rooms = {room.path: room for room in host.rooms}
    layout = inventory.layout(host.host)
    brings = _brings_programs(host, inventory)
    # That the data's disk takes no write, or little, is told by itself; a package's unit stays.
    passed = {str(layout.data), str(layout.state), *(() if brings else (str(layout.binaries),))}
    if str(layout.unit).startswith(PACKAGED):
        passed.add(str(layout.unit))
    yield from unwritable(host.host, (r for r in host.rooms if r.path not in passed))
    binaries = rooms.get(str(layout.binaries))
    if binaries is not None and not binaries.trouble and brings:
        yield from _programs(host.host, binaries)
    if layout.wal is not None and str(layout.wal) in rooms:
        yield from _log(host, rooms[str(layout.wal)], rooms.get(str(layout.wal.parent)), inventory)


def _called(room: Room) -> str:
    return room.path if room.path == room.real else f"{room.path} (a link to {room.real})"


def _brings_programs(host: HostObservation, inventory: Inventory) -> bool:
    has = {program.name: program.version for program in host.programs}
    installed = isinstance(inventory.etcd.binaries, InstalledBinaries)
    return not installed and has.get("etcd") != inventory.etcd.version


def _programs(host: str, room: Room) -> Iterator[Finding]:
    if not room.runs:
        yield Finding(
            Severity.REFUSAL,
            host,
            f"no program can be started from {_called(room)}: {room.file_system} is mounted "
            "noexec, or something like it; name another place in paths.binaries",
        )
    if room.free < PROGRAMS_BYTES:
        yield Finding(
            Severity.REFUSAL,
            host,
            f"has only {room.free >> 20} MiB free for etcd's programs in {_called(room)} (file "
            f"system {room.file_system}); {PROGRAMS_BYTES >> 20} MiB are needed",
        )


def _log(
    host: HostObservation, log: Room, parent: Room | None, inventory: Inventory
) -> Iterator[Finding]:
    """Refuse a log's directory that etcd cannot make at a member's first start.

    It makes one beside it, removes what is there, and renames: see renameWAL in its wal package.
    """
    if log.is_mount or log.path != log.real:
        what = "is a mount point" if log.is_mount else f"is a link to {log.real}"
        yield Finding(
            Severity.REFUSAL,
            host.host,
            f"{log.path} {what}, and etcd replaces the directory of its log at a member's first "
            f"start, which would fail there or end elsewhere; name a directory below it in "
            "paths.wal_directory",
        )
        return
    account = inventory.etcd.run_as
    if account == "root" or parent is None or parent.directory != parent.real:
        return
    if parent.path == str(inventory.layout(host.host).state):
        return
    if parent.is_mount and parent.is_empty:  # it is given to the account
        return
    if parent.owner != account:
        yield Finding(
            Severity.REFUSAL,
            host.host,
            f"{parent.path} belongs to {parent.owner}, and etcd, as {account}, makes the directory "
            f"of its log there ({log.path}); name one in a directory of its own in "
            "paths.wal_directory",
        )
