"""What hosts answer, parsed: as the real tools print it, and as they do when something is odd."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath

import pytest

from tasks.hosts import services, sessions, system
from tasks.hosts.batch import Command, Result, batch_script, parse_batch
from tasks.model.observation import DataDirectory, Listener, Reachability, ServiceState

TOKEN = "mark-0123456789"


def said(stdout: str) -> Result:
    """Make a result with this output."""
    return Result("x", 0, stdout, "", 0.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "default via 10.0.0.1 dev eth0 proto dhcp \n"
            "1: lo    inet6 fe80::1/64 scope global \n"
            "2: eth0    inet 10.0.0.5/24 brd 10.0.0.255 scope global eth0\\ valid_lft forever\n"
            "3: eth1    inet 192.168.1.5/24 scope global eth1\n",
            ("10.0.0.5", ("fe80::1", "10.0.0.5", "192.168.1.5")),
        ),
        ("2: eth0    inet 10.0.0.5/24 scope global eth0\n", (None, ("10.0.0.5",))),
        (
            "default via fd00::1 dev eth0 metric 1024 pref medium\n"
            "2: eth0    inet6 fd00::5/64 scope global \n",
            ("fd00::5", ("fd00::5",)),
        ),
        ("", (None, ())),
    ],
)
def test_the_default_routes_address_is_detected(
    text: str, expected: tuple[str | None, tuple[str, ...]]
) -> None:
    """On its interface; none without a route; IPv6 where there is no IPv4."""
    assert system.parse_addresses(said(text)) == expected


def test_the_addresses_that_others_see_are_told() -> None:
    """By a gateway, on the link, on the host itself; of one that cannot be reached, none."""
    text = (
        "10.0.0.3 10.0.0.3 via 10.0.0.254 dev eth0 src 10.0.0.1 uid 0 \\    cache \n"
        "10.0.1.3 10.0.1.3 dev eth1 src 10.0.1.1 uid 0 \\    cache \n"
        "10.0.0.1 local 10.0.0.1 dev lo src 10.0.0.1 uid 0 \\    cache <local> \n"
        "fd00::3 fd00::3 from :: dev eth0 proto kernel src fd00::1 metric 256 pref medium\n"
        "192.0.2.9 \n"
    )
    assert system.parse_sources(said(text)) == {
        "10.0.0.3": "10.0.0.1",
        "10.0.1.3": "10.0.1.1",
        "10.0.0.1": "10.0.0.1",
        "fd00::3": "fd00::1",
    }
    assert system.parse_sources(said("")) == {}


def test_listeners_are_told_with_their_program_and_its_unit() -> None:
    """Which etcd is the member's own says the control group; ss may not know a program."""
    text = (
        "own\t/system.slice/etcd.service\n"
        "group\t1\t/system.slice/ssh.service\n"
        "group\t8\t/kubepods/burstable/pod1/0a1b\n"
        "group\t9\t/system.slice/etcd.service\n"
        "group\t10\t/system.slice/etcd.service-events.service\n"
        'LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=1,fd=3))\n'
        'LISTEN 0 4096 *:2379 *:* users:(("etcd",pid=9,fd=7),("etcd",pid=9,fd=8))\n'
        "LISTEN 0 128 [::1]:631 [::]:*\n"
        'LISTEN 0 128 10.0.0.1:2380 *:* users:(("etcd",pid=8,fd=3))\n'
        'LISTEN 0 128 10.0.0.2:2380 *:* users:(("etcd",pid=10,fd=3))\n'
    )
    assert system.parse_listeners(said(text)) == (
        Listener(22, "sshd", "0.0.0.0", "ssh.service"),
        Listener(2379, "etcd", "*", "etcd.service", is_own=True),
        Listener(631, "?", "::1"),
        Listener(2380, "etcd", "10.0.0.1", "a Kubernetes pod"),
        Listener(2380, "etcd", "10.0.0.2", "etcd.service-events.service"),
    )


def test_a_disk_that_takes_no_write_has_no_latency() -> None:
    """But its free bytes."""
    assert system.parse_disk(said("1024\n")) == (1024, None)
    free, mean = system.parse_disk(said("1024\n10.0 10.5\n"))
    assert free == 1024
    assert mean == pytest.approx(0.5 / system.FSYNC_WRITES)


def test_programs_have_a_version_only_if_they_run() -> None:
    """Another architecture's program answers with an error."""
    text = f"etcd {'a' * 64} etcd Version: 3.5.16\netcdctl {'b' * 64} cannot execute\n"
    etcd, etcdctl = system.parse_programs(said(text))
    assert (etcd.version, etcdctl.version) == ("3.5.16", None)


def test_a_system_without_systemd_has_no_version_of_it() -> None:
    """Systemd may be installed and not be PID 1."""
    text = "hostname=h\nos=Debian\narchitecture=x86_64\ninit=sysvinit\nsystemd=252\nmissing=ss\n"
    seen = system.parse_system(said(text))
    assert seen.systemd_version is None
    assert seen.missing_tools == ("ss",)


@pytest.mark.parametrize(
    ("text", "state", "enabled"),
    [
        (
            "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n"
            "NeedDaemonReload=no\n",
            ServiceState.ACTIVE,
            True,
        ),
        (
            "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\n"
            "UnitFileState=disabled\nNeedDaemonReload=yes\n",
            ServiceState.ACTIVATING,
            False,
        ),
    ],
)
def test_a_service_is_told(text: str, state: ServiceState, enabled: bool) -> None:
    """Its state, and whether it starts at boot."""
    status = services.parse_service_status(said(text))
    assert status is not None
    assert status.state is state
    assert status.is_enabled is enabled


def test_a_masked_unit_is_told_apart_from_one_that_does_not_exist() -> None:
    """Masked for good or until the next boot."""
    text = "LoadState=masked\nActiveState=active\nSubState=running\nUnitFileState=masked{}\n"
    for kind in ("", "-runtime"):
        status = services.parse_service_status(said(text.format(kind)))
        assert status is not None
        assert status.is_masked


def test_a_unit_that_does_not_exist_is_none() -> None:
    """Systemd answers for it all the same."""
    text = "LoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\n"
    assert services.parse_service_status(said(text)) is None


@pytest.mark.parametrize(
    ("line", "met"),
    [
        ("m2 10.0.0.2 2380 0 open m2", Reachability.OPEN),
        ("m2 10.0.0.2 2380 0 open", Reachability.OPEN),
        ("m2 10.0.0.2 2380 0 open m9", Reachability.WRONG_HOST),
        ("m2 10.0.0.2 2380 124 ", Reachability.TIMED_OUT),
        ("m2 10.0.0.2 2380 1 bash: line 1: Connection refused", Reachability.REFUSED),
    ],
)
def test_what_a_dial_met_is_told(line: str, met: Reachability) -> None:
    """Our listener answers with its host's name; etcd says nothing."""
    assert sessions.parse_dials(said(line + "\n")) == {("m2", 2380): met}


@pytest.mark.parametrize(
    ("made", "state"),
    [
        ([], DataDirectory.MISSING),
        (["default.etcd/"], DataDirectory.EMPTY),
        (["default.etcd/member/snap/db"], DataDirectory.LEFTOVERS),
        (["default.etcd/member/wal/0-0.wal"], DataDirectory.INITIALISED),
    ],
)
def test_only_a_log_makes_a_data_directory_a_members(
    tmp_path: Path, made: list[str], state: DataDirectory
) -> None:
    """The real script, on real directories."""
    for name in made:
        path = tmp_path / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True)
        if not name.endswith("/"):
            path.touch()
    state_directory = PurePosixPath(tmp_path)
    command = system.data_directory_command(state_directory, state_directory / "default.etcd")
    ended = subprocess.run(
        ["bash", "-s"], input=command.script, capture_output=True, text=True, check=True
    )
    mode, found = system.parse_data_directory(said(ended.stdout))
    assert found is state
    assert mode is not None


@pytest.mark.parametrize(
    ("made", "state"),
    [
        ([], DataDirectory.MISSING),
        (["default.etcd/member/snap/db"], DataDirectory.LEFTOVERS),
        (["default.etcd/member/wal/0-0.wal"], DataDirectory.LEFTOVERS),
        (["default.etcd/member/snap/db", "log/0-0.wal"], DataDirectory.INITIALISED),
        (["log/0-0.wal"], DataDirectory.INITIALISED),
    ],
)
def test_a_log_of_its_own_is_a_members_also_without_the_data(
    tmp_path: Path, made: list[str], state: DataDirectory
) -> None:
    """Where --wal-dir is set, etcd goes by what lies there."""
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    at = PurePosixPath(tmp_path)
    command = system.data_directory_command(at, at / "default.etcd", at / "log")
    ended = subprocess.run(
        ["bash", "-s"], input=command.script, capture_output=True, text=True, check=True
    )
    assert system.parse_data_directory(said(ended.stdout))[1] is state


def test_a_script_that_was_cut_off_runs_nothing(tmp_path: Path) -> None:
    """At whichever line the connection ended."""
    mark = tmp_path / "mark"
    commands = (Command("one", f"touch {mark}"), Command("two", "cat", "payload\n"))
    lines = batch_script(commands, TOKEN).splitlines(keepends=True)
    for end in range(len(lines) - 2):
        subprocess.run(
            ["bash", "-s"], input="".join(lines[:end]), capture_output=True, text=True, check=False
        )
        assert not mark.exists(), end


def test_output_that_looks_like_a_mark_is_output() -> None:
    """Only the batch's own token ends an answer."""
    command = Command("one", "printf '\\nmark-x 0 0 1 2\\n'")
    ended = subprocess.run(
        ["bash", "-s"], input=batch_script((command,), TOKEN), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    batch = parse_batch((command,), TOKEN, ended.stdout, ended.stderr)
    assert batch is not None
    assert batch[0].stdout == "\nmark-x 0 0 1 2\n"


def test_a_shell_that_never_began_has_no_batch() -> None:
    """What sudo said is on standard error."""
    assert parse_batch((Command("x", "true"),), TOKEN, "", "sudo: a password is required") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '{"level":"warn","msg":"failed to verify flags","error":"invalid value"}\n'
            '{"level":"info","msg":"closed"}\n',
            "failed to verify flags: invalid value",
        ),
        (
            '{"level":"fatal","msg":"discovery failed","error":"cannot start"}\n',
            "discovery failed: cannot start",
        ),
        (
            "2026-11-27 05:00:00.1 I | etcdmain: etcd Version: 3.4.23\n"
            "2026-11-27 05:00:00.1 C | etcdmain: member count is unequal\n\n",
            "2026-11-27 05:00:00.1 C | etcdmain: member count is unequal",
        ),
        ("flag provided but not defined: -debug\n", "flag provided but not defined: -debug"),
        ("", ""),
    ],
)
def test_etcds_last_words_are_what_it_ended_for(text: str, words: str) -> None:
    """The last fatal line, whichever logger; else the last line; nothing where it said nothing."""
    assert services.parse_last_words(said(text)) == words
