"""What a host's disks, links and ports are seen as, on the local host and on a real one."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import AsyncIterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from tasks.hosts import files, rooms, system
from tasks.hosts.batch import Command
from tasks.hosts.retirement import drop_connections_command
from tasks.hosts.services import SystemdUnit
from tests.contract.local_host import LocalHost

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.model.observation import Room

MOUNTS = {
    "read-only": "mount -t tmpfs -o ro none read-only",
    "noexec": "mount -t tmpfs -o noexec none noexec; mkdir noexec/lost+found",
    "full": "mount -t tmpfs -o size=64k none full; head -c 1M /dev/zero > full/x 2>/dev/null || :",
}


@pytest.fixture
async def disks(tmp_path: Path) -> AsyncIterator[PurePosixPath]:
    """Mount odd file systems in a directory, and a link that leads to what is not there yet."""
    host = LocalHost()
    made = "; ".join(f"mkdir {name}; {mount}" for name, mount in MOUNTS.items())
    link = "ln -s noexec/deep/er link"
    await host.run(Command("make", f"cd {tmp_path}; {made}; {link}"))
    yield PurePosixPath(tmp_path)
    await host.run(Command("unmount", f"cd {tmp_path}; umount {' '.join(MOUNTS)}"))


async def test_what_a_file_system_takes_is_seen_by_trying(disks: PurePosixPath) -> None:
    """Nothing is left of the trial; of what is not there the directory counts that is."""
    host = LocalHost()
    asked = [disks / "read-only/a/b", disks / "noexec", disks / "full", disks / "link/file"]
    seen, left = await host.run(
        rooms.rooms_command(asked), Command("list", f"find {disks} -name '.etcd*'")
    )
    assert not left.stdout.strip()
    read_only, noexec, full, link = rooms.parse_rooms(seen)
    assert (read_only.trouble, read_only.directory) == (
        "Read-only file system",
        str(disks / "read-only"),
    )
    assert full.trouble == "No space left on device"
    assert (full.free, full.is_mount, full.is_empty) == (0, True, False)
    assert (noexec.trouble, noexec.runs, noexec.is_mount, noexec.is_empty) == (
        "",
        False,
        True,
        True,
    )
    expected = str(disks / "noexec/deep/er/file")
    assert (link.real, link.directory, link.runs) == (expected, str(disks / "noexec"), False)


async def test_free_space_is_that_of_the_file_system_behind_a_link(disks: PurePosixPath) -> None:
    """Also where the link leads to what is not there yet; a full one takes no write."""
    (link,) = await LocalHost().run(
        Command("link", f"ln -s full/etcd/data {disks}/data; echo {disks}/data")
    )
    (seen,) = await LocalHost().run(system.disk_command(PurePosixPath(link.stdout.strip())))
    assert system.parse_disk(seen) == (0, None)


async def test_an_ordinary_place_takes_files_and_programs(tmp_path: Path) -> None:
    """A file's place is its directory."""
    (tmp_path / "etcd.conf").touch()
    (seen,) = await LocalHost().run(rooms.rooms_command([PurePosixPath(tmp_path / "etcd.conf")]))
    room: Room
    (room,) = rooms.parse_rooms(seen)
    assert (room.trouble, room.runs, room.is_mount) == ("", True, False)
    assert room.directory == str(tmp_path)
    assert room.free > 1 << 20


async def test_a_program_behind_a_link_is_written_there(tmp_path: Path) -> None:
    """The link stays."""
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/etcd").write_text("old")
    (tmp_path / "etcd").symlink_to("opt/etcd")
    await LocalHost().upload(
        b"new",
        PurePosixPath(tmp_path / "etcd"),
        sha256=hashlib.sha256(b"new").hexdigest(),
        mode="0755",
        backup=PurePosixPath(tmp_path / "backup"),
    )
    assert (tmp_path / "etcd").is_symlink()
    assert (tmp_path / "opt/etcd").read_text() == "new"


async def test_a_directory_behind_a_link_is_judged_and_made_there(tmp_path: Path) -> None:
    """Also where the link leads nowhere yet."""
    link = PurePosixPath(tmp_path / "state")
    (tmp_path / "state").symlink_to("disk/etcd")
    make = files.make_directory_command(link, mode="0700", owner="root", group="root")
    first, again, mode = await LocalHost().run(make, make, files.directory_mode_command(link))
    assert (files.parse_change(first), files.parse_change(again)) == (True, False)
    assert files.parse_directory_mode(mode) == "0700 root root"
    assert (tmp_path / "state").is_symlink()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_connections_are_found_by_either_kind_of_address(address: str) -> None:
    """Those that a kernel cannot end are left, and nothing fails."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection((address, port)) as client:
            command = drop_connections_command(address, port)
            (ended,) = await LocalHost().run(command)
            assert not ended.stderr
            if files.parse_change(ended):
                client.settimeout(2)
                with pytest.raises(ConnectionError):
                    client.recv(1)


async def test_a_listener_is_not_the_members_because_of_its_name() -> None:
    """No unit runs here, so that none of the ports is its own."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        unit = SystemdUnit("no-such-etcd.service")
        (seen,) = await LocalHost().run(system.listeners_command(unit.group))
    (found,) = [each for each in system.parse_listeners(seen) if each.port == port]
    assert (found.address, found.is_own) == ("127.0.0.1", False)
    assert found.program.startswith(("python", "pytest"))


async def test_a_file_gets_the_context_of_its_place(tmp_path: Path) -> None:
    """SELinux's restorecon is called for the file itself, where a link leads, once it is there."""
    (tmp_path / "etcd.conf").symlink_to("real.conf")
    path = PurePosixPath(tmp_path / "etcd.conf")
    write = files.write_file_command(
        path, "a=b\n", mode="0644", owner="root", group="root", backup=path.parent / "backup"
    )
    fake = f'restorecon() {{ cat "$@"; echo "$@"; }} > {tmp_path}/said'
    (done,) = await LocalHost().run(Command("write", f"{fake}\n{write.script}", write.payload))
    assert files.parse_change(done)
    assert (tmp_path / "said").read_text() == f"a=b\n{tmp_path}/real.conf\n"
