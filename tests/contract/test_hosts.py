"""One suite for the local host and a real one over SSH: what a step may rely on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from tasks.hosts import files, sessions, system
from tasks.hosts.batch import Command
from tasks.hosts.connection import HostConnection
from tasks.hosts.dependents import encryption_command, parse_encryption
from tasks.hosts.retirement import set_aside_command
from tasks.model.errors import (
    AccessRefused,
    CommandFailed,
    CommandTimedOut,
    HostKeyRefused,
    HostUnreachable,
    LockLost,
)
from tasks.model.inventory_file import load_inventory
from tasks.model.observation import DataDirectory
from tests.contract.local_host import LocalHost

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures"]


@dataclass(frozen=True, slots=True)
class Place:
    """A host and a directory on it that a test may write to."""

    host: HostConnection
    directory: PurePosixPath


@pytest.fixture(scope="module")
def lab(start_module_lab: StartLab) -> Lab:
    """Start one host."""
    return start_module_lab(hosts=1, etcd="installed")


def connect(lab: Lab, **changes: object) -> HostConnection:
    """Open a connection to the lab's host as its inventory says, but for the changes."""
    inventory = load_inventory(str(lab.inventory))
    return HostConnection(
        inventory.hosts[0], inventory.ssh.model_copy(update=changes), lambda *_: None
    )


@pytest.fixture(params=["local", pytest.param("real", marks=pytest.mark.lab)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Give each test both hosts in turn."""
    if request.param == "local":
        yield Place(LocalHost(), PurePosixPath(tmp_path))
        return
    host = connect(request.getfixturevalue("lab"))
    directory = f"/srv/{tmp_path.name}"
    await host.run(Command("make room", f"mkdir -p {directory}"))
    yield Place(host, PurePosixPath(directory))
    await host.close()


async def test_commands_run_in_turn_and_their_results_are_apart(place: Place) -> None:
    """Output, errors and status are each command's own; one does not read the other's input."""
    batch = await place.host.run(
        Command("one", "echo out; echo err >&2"),
        Command("two", "cat", "payload with $dollar `tick` 'quote'\n"),
        Command("three", "cat; exit 3"),
        Command("four", "printf 'no newline'"),
        keep_going=True,
    )
    one, two, three, four = batch
    assert (one.status, one.stdout, one.stderr.strip()) == (0, "out\n", "err")
    assert two.stdout == "payload with $dollar `tick` 'quote'\n"
    assert (three.status, three.stdout) == (3, "")
    assert four.stdout == "no newline"
    assert batch.began <= batch.ended


async def test_the_first_failure_ends_a_batch(place: Place) -> None:
    """What follows is not run, and the error has the status and what was said."""
    mark = place.directory / "mark"
    with pytest.raises(CommandFailed, match="no such luck") as failed:
        await place.host.run(
            Command("fail", "echo no such luck >&2; false; echo not reached"),
            Command("later", f"touch {mark}"),
        )
    assert failed.value.status == 1
    assert failed.value.host == place.host.name
    (seen,) = await place.host.run(files.read_file_command(mark))
    assert files.parse_file(seen) is None


async def test_a_private_key_in_a_certificates_file_stays_on_its_host(place: Place) -> None:
    """One file for both halves: its digest is told, and its certificate alone."""
    path = place.directory / "both.pem"
    words = ("-----BEGIN EC PRIVATE KEY-----", "secret", "-----END EC PRIVATE KEY-----", "CERT")
    lines = " ".join(f"'{word}'" for word in words)
    await place.host.run(Command("write", f"printf '%s\\n' {lines} > {path}"))
    (seen,) = await place.host.run(files.read_file_command(path))
    found = files.parse_file(seen)
    assert found is not None
    assert found.text == "CERT\n"
    assert "secret" not in seen.stdout


async def test_a_command_that_does_not_end_is_told(place: Place) -> None:
    """It may still run; a retry may help."""
    with pytest.raises(CommandTimedOut):
        await place.host.run(Command("sleep", "sleep 5"), timeout_seconds=0.3)


async def test_a_file_is_written_once_and_its_predecessor_kept(place: Place) -> None:
    """Changed, unchanged, and the old one under the backup directory."""
    path, backup = place.directory / "etcd.conf", place.directory / "backup"

    async def write(text: str, mode: str = "0640") -> bool:
        command = files.write_file_command(
            path, text, mode=mode, owner="root", group="root", backup=backup
        )
        (result,) = await place.host.run(command, changes=True)
        return files.parse_change(result)

    assert await write("a='$1'\n\\n é\n")
    assert not await write("a='$1'\n\\n é\n")
    assert await write("b\n")
    assert await write("b\n", "0600")
    seen, kept = await place.host.run(
        files.read_file_command(path),
        files.read_file_command(backup / str(path).removeprefix("/")),
    )
    state, old = files.parse_file(seen), files.parse_file(kept)
    assert state is not None
    assert old is not None
    assert (state.text, state.mode, state.owner) == ("b\n", "0600", "root")
    assert old.text == "b\n"
    (numbered,) = await place.host.run(Command("list", f"cat {backup}{path}.~1~"))
    assert numbered.stdout == "a='$1'\n\\n é\n"


async def test_a_file_may_keep_its_own_mode_and_owner(place: Place) -> None:
    """A trusted file that others read by their group; one that is not there gets what is said."""
    path, new = place.directory / "trusted.pem", place.directory / "absent.pem"
    make = f"echo old > {path}; chown daemon:sys {path}; chmod 0640 {path}"
    await place.host.run(Command("make a file", make))
    writes = [
        files.write_file_command(
            each, "new\n", mode="0644", owner="root", group="root",
            backup=place.directory / "kept-trusted", keeps_access=True,
        )
        for each in (path, new, path)
    ]  # fmt: skip
    results = await place.host.run(*writes, changes=True)
    assert [files.parse_change(result) for result in results] == [True, True, False]
    shown = Command("show", f"stat -c '%a %U:%G' {path} {new}; cat {path} {new}")
    (seen,) = await place.host.run(shown)
    assert seen.stdout.splitlines() == ["640 daemon:sys", "644 root:root", "new", "new"]


async def test_a_file_that_its_check_refuses_changes_nothing(place: Place) -> None:
    """The target stays, and no temporary file is left."""
    path = place.directory / "checked"
    await place.host.run(Command("old", f"echo old > {path}"))
    command = files.write_file_command(
        path, "new\n", mode="0644", owner="root", group="root",
        backup=place.directory / "backup", validate='grep -q old "$new"',
    )  # fmt: skip
    with pytest.raises(CommandFailed):
        await place.host.run(command)
    read, listed = await place.host.run(
        Command("read", f"cat {path}"), Command("list", f"ls {place.directory}/checked*")
    )
    assert read.stdout == "old\n"
    assert listed.stdout.split() == [str(path)]


async def test_what_was_replaced_is_put_back_and_the_new_one_again(place: Place) -> None:
    """Only what differs from the copy kept; nothing is lost, and there and back is as it was.

    Each time the file is newer: systemd takes an older unit for one that it has read.
    """
    paths = [place.directory / name for name in ("ca.pem", "etcd.conf", "new.pem")]
    kept, aside = place.directory / "kept", place.directory / "kept-refused"
    make = "umask 077; for f in ca.pem etcd.conf; do echo old > $f; done; chmod 0644 ca.pem"
    await place.host.run(Command("make files", f"cd {place.directory}; {make}"))
    for path in (paths[0], paths[2]):
        command = files.write_file_command(
            path, "new\n", mode="0640", owner="root", group="root", backup=kept
        )
        await place.host.run(command)
    shown = Command(
        "show", f"cd {place.directory}; stat -c %a ca.pem; cat ca.pem etcd.conf new.pem"
    )
    time = Command("time", f"stat -c %.Y {paths[0]}")
    first, back, second, between, forward, third, after = await place.host.run(
        time, files.exchange_command(paths, kept, aside), time, shown,
        files.exchange_command(paths, aside, None), time, shown,
    )  # fmt: skip
    assert float(first.stdout) < float(second.stdout) < float(third.stdout)
    assert back.stdout.split() == forward.stdout.split() == [str(paths[0])]
    assert between.stdout.split() == ["644", "old", "old", "new"]
    assert after.stdout.split() == ["640", "new", "old", "new"]


async def test_a_file_behind_a_link_is_written_and_put_back_and_the_link_stays(
    place: Place,
) -> None:
    """Puppet's and Vault's way: its mode is judged by the file, not by the link."""
    real, link = place.directory / "store" / "etcd.env", place.directory / "linked.env"
    kept, aside = place.directory / "kept-link", place.directory / "aside-link"
    make = f"mkdir {real.parent}; echo old > {real}; chmod 0640 {real}; ln -s store/etcd.env {link}"
    await place.host.run(Command("make a link", make))
    command = files.write_file_command(
        link, "new\n", mode="0600", owner="root", group="root", backup=kept
    )
    shown = Command("show", f"readlink {link}; stat -c %a {real}; cat {real}")
    before, _, written, back, returned = await place.host.run(
        files.read_file_command(link), command, shown,
        files.exchange_command([link], kept, aside), shown,
    )  # fmt: skip
    state = files.parse_file(before)
    assert state is not None
    assert (state.mode, state.text) == ("0640", "old\n")
    assert written.stdout.split() == ["store/etcd.env", "600", "new"]
    assert back.stdout.split() == [str(link)]
    assert returned.stdout.split() == ["store/etcd.env", "640", "old"]


@pytest.fixture(params=["directory", "mount", "link", "link-to-mount"])
async def full(place: Place, request: pytest.FixtureRequest) -> AsyncIterator[PurePosixPath]:
    """Make a directory, mount a file system, or link to one, with what an ext4 of its own has."""
    data = place.directory / request.param
    real = place.directory / "real" if "link" in request.param else data
    mount = f"mount -t tmpfs none {real}" if "mount" in request.param else ":"
    link = ":" if real == data else f"ln -s {real} {data}"
    await place.host.run(Command("make", f"mkdir {real}; {link}; {mount}; mkdir {real}/lost+found"))
    yield data
    if "mount" in request.param:
        await place.host.run(Command("unmount", f"umount {real}"))


async def test_mount_lost_found_is_empty_and_data_are_set_aside_within(
    place: Place, full: PurePosixPath
) -> None:
    """A mount point cannot be renamed: all goes into a directory within; lost+found is no data.

    A link stays, and leads to an empty directory.
    """
    look = system.data_directory_command(full, full)
    aside = set_aside_command(full, "retired-1", leaves_empty=True)
    member = f"{full}/member/snap"
    empty, nothing, _, filled, _, left, found = await place.host.run(
        look, aside, Command("write", f"mkdir -p {member}; touch {member}/db"),
        look, aside, look, Command("list", f"find {full.parent}; [ -d {full} ]"),
    )  # fmt: skip
    states = [system.parse_data_directory(each)[1] for each in (empty, filled, left)]
    assert states == [DataDirectory.EMPTY, DataDirectory.LEFTOVERS, DataDirectory.EMPTY]
    assert not files.parse_change(nothing)
    within = "/etcd-runbooks-retired-1" if "mount" in full.name else ".retired-1"
    real = full.parent / "real" if "link" in full.name else full
    assert f"{real}{within}/member/snap/db" in found.stdout.split()
    assert {str(full), str(real)} <= set(found.stdout.split())


@pytest.mark.parametrize("is_file", [False, True], ids=["bytes", "file"])
async def test_an_upload_is_whole_or_not_there(
    place: Place, tmp_path: Path, *, is_file: bool
) -> None:
    """Changed, unchanged, and refused when what arrives has another SHA-256."""
    content = bytes(range(256)) * 4096
    digest = hashlib.sha256(content).hexdigest()
    path, backup = place.directory / "program", place.directory / "backup"

    async def upload(sent: bytes) -> bool:
        (tmp_path / "sent").write_bytes(sent)
        given = tmp_path / "sent" if is_file else sent
        return await place.host.upload(given, path, sha256=digest, mode="0755", backup=backup)

    with pytest.raises(CommandFailed, match="another SHA-256"):
        await upload(content[:-1])
    assert await upload(content)
    assert not await upload(content)
    (seen,) = await place.host.run(files.read_file_command(path, with_text=False))
    state = files.parse_file(seen, with_text=False)
    assert state is not None
    assert (state.sha256, state.mode) == (digest, "0755")


async def test_a_download_is_the_file_byte_for_byte(place: Place, tmp_path: Path) -> None:
    """Whatever it holds; one that is not there is an error, and what is beyond the size is left."""
    content = os.urandom(3 << 20) + b"\r\n\x00\x04" * 100
    digest = hashlib.sha256(content).hexdigest()
    path, target = place.directory / "many", tmp_path / "came"
    backup = place.directory / "backup"
    await place.host.upload(content, path, sha256=digest, mode="0600", backup=backup)
    await place.host.download(path, target, size=len(content))
    assert target.read_bytes() == content
    await place.host.download(path, target, size=1000)
    assert target.read_bytes() == content[:1000]
    with pytest.raises(CommandFailed, match="No such file"):
        await place.host.download(place.directory / "none", target, size=1000)


async def test_a_lock_is_held_by_one_and_freed_with_its_session(place: Place) -> None:
    """The other is told who holds it."""
    cluster = f"contract-{place.directory.name}"[:40]
    async with place.host.hold(sessions.lock_session(cluster, "run1", "run 1 of me")) as mine:
        assert await mine.read_line(10) == "locked"
        assert await mine.ask("still there?", 10) == "still there?"
        async with place.host.hold(sessions.lock_session(cluster, "run2", "run 2")) as theirs:
            assert await theirs.read_line(10) == "run 1 of me"
    async with place.host.hold(sessions.lock_session(cluster, "run3", "run 3")) as third:
        assert await third.read_line(10) == "locked"


async def test_nothing_is_changed_without_the_lock(place: Place) -> None:
    """The fence holds for this run alone, and only while the session is open."""
    cluster = f"fence-{place.directory.name}"[:40]
    mark = place.directory / "fenced"
    touch = Command("touch", f"touch {mark}")
    place.host.fence = sessions.lock_fence(cluster, "run1")
    with pytest.raises(LockLost):
        await place.host.run(touch, changes=True)
    async with place.host.hold(sessions.lock_session(cluster, "run1", "run 1")) as session:
        assert await session.read_line(10) == "locked"
        await place.host.run(touch, changes=True)
        place.host.fence = sessions.lock_fence(cluster, "run2")
        with pytest.raises(LockLost):
            await place.host.run(touch, changes=True)
    place.host.fence = sessions.lock_fence(cluster, "run1")
    with pytest.raises(LockLost):
        await place.host.run(touch, changes=True)
    await place.host.run(touch)


@pytest.mark.lab
async def test_an_unknown_host_key_is_refused(lab: Lab, tmp_path: Path) -> None:
    """An empty known_hosts knows nobody."""
    empty = tmp_path / "known_hosts"
    empty.touch()
    with pytest.raises(HostKeyRefused, match="known_hosts"):
        await connect(lab, known_hosts=empty).run(Command("x", "true"))


@pytest.mark.parametrize(
    "word", ["--encryption-provider-config={}", "--encryption-provider-config {}"]
)
async def test_what_an_api_server_encrypts_with_is_told_by_its_fingerprint(
    place: Place, word: str
) -> None:
    """By its process, not by a manifest; nothing of the file itself is told."""
    program, secret = place.directory / "kube-apiserver", place.directory / "encryption.yaml"
    starts = f"cp /bin/bash {program}; printf marker > {secret}"
    runs = f"{program} -c 'sleep 20; :' x {word.format(secret)} > /dev/null 2>&1 & echo $!"
    runs += "\nuntil grep -qx kube-apiserver /proc/$!/comm; do sleep 0.05; done"
    (started,) = await place.host.run(Command("start", f"{starts}\n{runs}"))
    pid = int(started.stdout)
    try:
        (result,) = await place.host.run(encryption_command())
    finally:
        await place.host.run(Command("end", f"pkill -P {pid} || :; kill {pid} || :"))
    assert "marker" not in result.stdout
    # A node of another test's may run on this machine, too.
    (file,) = [one for one in parse_encryption("m1", result) if one.path == str(secret)]
    assert file.sha256 == hashlib.sha256(b"marker").hexdigest()


@pytest.mark.lab
async def test_a_login_that_is_denied_is_refused(lab: Lab) -> None:
    """There is no such account."""
    with pytest.raises(AccessRefused, match="authorized_keys"):
        await connect(lab, user="nobody").run(Command("x", "true"))


@pytest.mark.lab
async def test_a_login_without_sudo_is_refused(lab: Lab) -> None:
    """The message shows the line that would allow it."""
    (victim,) = lab.hosts.values()
    victim.revoke_sudo()
    host = connect(lab)
    try:
        with pytest.raises(AccessRefused, match="NOPASSWD"):
            await host.run(Command("x", "true"))
    finally:
        victim.restore_sudo()
        await host.close()


@pytest.mark.lab
async def test_a_connection_that_broke_is_opened_again(lab: Lab) -> None:
    """A power cut is HostUnreachable; after the start the same object works."""
    (victim,) = lab.hosts.values()
    host = connect(lab, connect_timeout_seconds=2.0)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(host.close)
        await host.run(Command("x", "true"))
        victim.power_cut()
        with pytest.raises((HostUnreachable, CommandTimedOut)):
            await host.run(Command("x", "true"), timeout_seconds=3)
        victim.start()
        for _ in range(20):
            try:
                await host.run(Command("x", "true"), timeout_seconds=3)
            except (HostUnreachable, CommandTimedOut):
                continue
            break
        else:
            pytest.fail("the host was not reached again")
