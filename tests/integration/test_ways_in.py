"""Every way into a host: login shells, what logins say of their own, sudo, SSH servers, keys.

A host that `ssh host sudo -n true` reaches works, by all three ways in which runbooks talk to it:
batches, uploads, and sessions that are held. What does not is refused in one sentence that is
true, and where that shows a line, the line mends it. All variants share one host,
and one to jump from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from tasks.engine.secret import read_secret
from tasks.hosts import keys, sessions, system
from tasks.hosts.batch import Command
from tasks.hosts.connection import HostConnection
from tasks.hosts.logins import Logins
from tasks.model.credentials import SecretSource
from tasks.model.errors import AccessRefused, RunbookError
from tasks.model.inventory_file import load_inventory
from tasks.model.observation import Reachability
from tests.integration.logins import RELOAD, SSHD, account, bashrc, below, shell, sshd
from tests.integration.runbooks import Prefect, run_runbook

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.host import Host
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd]

Content = dict[str, Any]

UPLOADED = bytes(range(256)) * 64
SAY = r"printf '*** Welcome to master01 ***'"
OLD_BASH = r"""
cat > /usr/local/sbin/bash <<'END'
#!/bin/dash
BASH_ENV=/etc/old-bash exec /bin/bash "$@"
END
echo 'unset EPOCHREALTIME EPOCHSECONDS BASH_ARGV0 SRANDOM; BASH_COMPAT=4.2' > /etc/old-bash
chmod 0755 /usr/local/sbin/bash; chmod 0644 /etc/old-bash
"""
OLD_SYSTEMD = r"""
mv /usr/bin/systemd-socket-activate /usr/bin/systemd-activate.aside
cat > /usr/lib/systemd/systemd-activate <<'END'
#!/bin/sh
case "$*" in *--help*) echo "--accept"; exit 0 ;; *--inetd*) exit 1 ;; esac
exec -a systemd-activate /usr/bin/systemd-activate.aside --inetd "$@"
END
sed -i '1s/sh/bash/' /usr/lib/systemd/systemd-activate; chmod 0755 /usr/lib/systemd/systemd-activate
"""
KEEP = (
    "etc/sudoers.d/operator etc/passwd etc/group etc/shadow etc/sudoers usr/bin/sudo "
    "usr/bin/systemd-socket-activate etc/ssh/sshd_config.d/lab.conf"
)
TIDY = f"""
cd /
for kept in {KEEP}; do cp -pf /var/tmp/kept/$kept $kept; done
rm -f etc/ssh/sshd_config.d/00-variant.conf etc/sudoers.d/zz-* etc/profile.d/noise.sh etc/old-bash
rm -f usr/local/sbin/* usr/lib/systemd/systemd-activate usr/bin/systemd-activate.aside
rm -rf home/operator/.bashrc home/operator/.zshenv home/operator/.config home/operator/.tcshrc
rm -rf run/etcd-runbooks
{RELOAD}
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """A host as there are: what makes it so, as root on its console."""

    name: str
    made_by: str
    in_ci: bool = False


def params(*variants: Variant) -> list[object]:
    """Make them a test's parameters; CI runs a sample."""
    return [
        pytest.param(each, id=each.name, marks=() if each.in_ci else pytest.mark.chaos)
        for each in variants
    ]


WORKING = params(
    Variant("as it is", ":"),
    Variant("dash", shell("/bin/dash")),
    Variant("zsh", shell("/usr/bin/zsh")),
    Variant("fish", shell("/usr/bin/fish"), in_ci=True),
    Variant("tcsh", shell("/bin/tcsh"), in_ci=True),
    Variant("noise on standard output", bashrc(f"{SAY}; echo"), in_ci=True),
    Variant("noise on standard error", bashrc(f"({SAY}; echo) >&2")),
    Variant("noise without a newline", bashrc(f"{SAY}; {SAY} >&2"), in_ci=True),
    Variant("noise that goes on", bashrc(f"(for n in 1 2 3; do {SAY}; sleep 0.1; done) &")),
    Variant("tput without a terminal", bashrc("tput sgr0; stty sane")),
    Variant("noise of zsh", shell("/usr/bin/zsh") + f'; echo "{SAY}" > /home/operator/.zshenv'),
    Variant("noise of tcsh", shell("/bin/tcsh") + "; echo 'echo hello' > /home/operator/.tcshrc"),
    Variant(
        "noise of a profile",
        f'echo "{SAY}" > /etc/profile.d/noise.sh; ' + bashrc(". /etc/profile"),
    ),
    Variant("a banner", f'printf "keep out" > /etc/banner; {sshd("Banner /etc/banner")}'),
    Variant(
        "a forced command",
        'printf \'#!/bin/sh\\necho recorded\\nexec "$SHELL" -c "$SSH_ORIGINAL_COMMAND"\\n\''
        " > /usr/local/sbin/wrap; chmod 0755 /usr/local/sbin/wrap; "
        + sshd("ForceCommand /usr/local/sbin/wrap"),
    ),
    Variant(
        "BASH_ENV of the server",
        f'echo "{SAY}" > /etc/profile.d/noise.sh; '
        + sshd("SetEnv BASH_ENV=/etc/profile.d/noise.sh"),
    ),
    Variant("a language of its own", sshd("SetEnv LANG=de_DE.UTF-8 LANGUAGE=de")),
    Variant("a bash without EPOCHREALTIME", OLD_BASH, in_ci=True),
    Variant("systemd-activate in place of systemd-socket-activate", OLD_SYSTEMD),
)


@pytest.fixture(scope="module")
def lab(start_module_lab: StartLab) -> Lab:
    """Start a host, and one to jump from."""
    lab = start_module_lab(hosts=2, etcd="installed")
    host = lab["master01"]
    host.run(f"cd /; cp -p --parents {KEEP} /var/tmp/ && mkdir /var/tmp/kept && "
             "mv /var/tmp/etc /var/tmp/usr /var/tmp/kept/").check()  # fmt: skip
    return lab


@pytest.fixture
def made(lab: Lab) -> Iterator[Callable[[str], Host]]:
    """Make the host another; it is as before afterwards."""
    host = lab["master01"]

    def make(script: str) -> Host:
        host.run(script).check()
        return host

    yield make
    host.run(TIDY).check()
    lab["master02"].run(f"rm -f {SSHD}; {RELOAD}").check()


def write_inventory(lab: Lab, changes: Content | None = None) -> Path:
    """Write an inventory of the host that has these changes under `ssh`."""
    content = YAML(typ="safe").load(lab.inventory)
    content["ssh"] |= changes or {}
    content["ssh"] = {key: value for key, value in content["ssh"].items() if value is not None}
    content["hosts"] = content["hosts"][:1]
    path = lab.inventory.with_name("ways-in.yaml")
    path.write_text(json.dumps(content))
    return path


def connect(
    lab: Lab, changes: Content | None = None, logins: Logins | None = None
) -> HostConnection:
    """Open a connection to the host as such an inventory says."""
    inventory = load_inventory(str(write_inventory(lab, changes)))
    return HostConnection(inventory.hosts[0], inventory.ssh, lambda *_: None, logins)


async def used(lab: Lab, changes: Content | None = None, logins: Logins | None = None) -> None:
    """Talk to the host by all ways that runbooks have."""
    host = connect(lab, changes, logins)
    lock = "ways-in"
    async with AsyncExitStack() as stack:
        stack.push_async_callback(host.close)
        batch = await host.run(
            Command("one", "echo out; echo err >&2"), Command("two", "cat", "a\n\\n 'é' $b !c\n"),
            system.system_command(),
        )  # fmt: skip
        assert (batch[0].stdout, batch[0].stderr.strip()) == ("out\n", "err")
        assert batch[1].stdout == "a\n\\n 'é' $b !c\n"
        assert system.parse_system(batch[2]).missing_tools == ()
        mine = await stack.enter_async_context(host.hold(sessions.lock_session(lock, "1", "one")))
        assert await mine.read_line(10) == "locked"
        theirs = await stack.enter_async_context(host.hold(sessions.lock_session(lock, "2", "two")))
        assert await theirs.read_line(10) == "one"
        host.fence = sessions.lock_fence(lock, "1")
        path, digest = PurePosixPath("/srv/uploaded"), hashlib.sha256(UPLOADED).hexdigest()
        aside = PurePosixPath("/srv/backup")
        for is_new in (True, False):
            put = await host.upload(UPLOADED, path, sha256=digest, mode="0600", backup=aside)
            assert put is is_new
        listener = await stack.enter_async_context(
            host.hold(sessions.listener_session("master01", (2379,)))
        )
        assert await listener.read_line(10) == "listening"
        dialled = await host.run(
            sessions.dial_command((("master01", host.host.ssh_address, 2379),)),
            Command("tidy", "rm /srv/uploaded"), changes=True,
        )  # fmt: skip
        assert sessions.parse_dials(dialled[0]) == {("master01", 2379): Reachability.OPEN}
        assert await mine.ask("held", 10) == "held"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("variant", WORKING)
async def test_a_host_that_is_reached_works(
    lab: Lab, made: Callable[[str], Host], variant: Variant
) -> None:
    """Whatever its shell is, and whatever its login says."""
    made(variant.made_by)
    await used(lab)


BY_SUDO = params(
    Variant("requiretty", "sed -i '1i Defaults requiretty' /etc/sudoers", in_ci=True),
    Variant("no sudo", "rm /usr/bin/sudo"),
    Variant(
        "a password",
        "echo 'operator ALL=(ALL) ALL' > /etc/sudoers.d/zz-a; chmod 0440 /etc/sudoers.d/zz-a",
        in_ci=True,
    ),
    Variant("a password, below the include", below("operator ALL=(ALL) ALL"), in_ci=True),
    Variant("a password alone", f"> /etc/sudoers.d/operator; {below('operator ALL=(ALL) ALL')}"),
    Variant(
        "a password of a file that sorts last",
        "echo 'operator ALL=(ALL) ALL' > /etc/sudoers.d/zz-z; chmod 0440 /etc/sudoers.d/zz-z",
    ),
    Variant(
        "bash forbidden", below("operator ALL=(ALL) NOPASSWD: ALL, !/bin/bash, !/usr/bin/bash")
    ),
    Variant("requiretty, below the include", below("Defaults requiretty")),
    Variant("no rule", "sed -i '/^operator/d' /etc/sudoers; > /etc/sudoers.d/operator"),
    Variant(
        "a list without bash",
        "echo 'operator ALL=(root) NOPASSWD: /usr/bin/id, /usr/bin/systemctl' "
        "> /etc/sudoers.d/operator",
        in_ci=True,
    ),
)
TOLD = {
    "requiretty": "sudo wants a terminal of operator",
    "no sudo": "there is no sudo for operator",
    "a password": "a later one says otherwise",
    "a password, below the include": "a later one says otherwise",
    "a password alone": "sudo wants a password of operator",
    "a password of a file that sorts last": "a later one says otherwise",
    "bash forbidden": "sudo -n is refused to operator",
    "requiretty, below the include": "sudo wants a terminal of operator",
    "no rule": "sudo wants a password of operator",
    "a list without bash": "bash is not among them ((root) NOPASSWD: /usr/bin/id, /usr/bin/sys",
}
LINE = re.compile(r"with the line '([^']+)' as the last one of (/etc/sudoers) \(visudo\)")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("variant", BY_SUDO)
async def test_sudo_that_refuses_says_why_and_its_line_mends_it(
    lab: Lab, made: Callable[[str], Host], variant: Variant
) -> None:
    """All were told to add NOPASSWD, which was there; each of the three ways in says it."""
    host = made(variant.made_by)
    with pytest.raises(AccessRefused) as refused:
        await used(lab)
    assert TOLD[variant.name] in refused.value.message
    assert "\n" not in refused.value.message
    found = LINE.search(refused.value.message)
    assert found is not None
    line, path = found.groups()
    missing = "cp -p /var/tmp/kept/usr/bin/sudo /usr/bin/" if variant.name == "no sudo" else ":"
    host.run(f"{missing}; printf '%s\\n' '{line}' >> {path}").check()
    host.run(["visudo", "-cq"]).check()
    await used(lab)


BY_SSH = [
    *((Variant(f"{cipher} alone", sshd(f"Ciphers {cipher}"), in_ci), {}) for cipher, in_ci in (
        ("chacha20-poly1305@openssh.com", True), ("aes128-ctr", False), ("aes192-ctr", False),
        ("aes256-gcm@openssh.com", False), ("aes128-ctr,aes192-ctr,aes256-ctr", False),
    )),
    *((Variant(f"the account {name}", account(name), in_ci), {"user": name}) for name, in_ci in (
        ("john.doe", False), ("Admin", False), ("svc@corp.example.org", True),
    )),
]  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("variant", "changes"),
    [pytest.param(v, c, id=v.name, marks=() if v.in_ci else pytest.mark.chaos) for v, c in BY_SSH],
)
async def test_servers_and_accounts_as_there_are(
    lab: Lab, made: Callable[[str], Host], variant: Variant, changes: Content
) -> None:
    """Ciphers one by one, as hardening guides have them; names that directories give."""
    made(variant.made_by)
    await used(lab, changes)


@pytest.fixture
def home(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the runner a home of its own, without an agent; returns its .ssh."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (ssh := tmp_path / ".ssh").mkdir(mode=0o700)
    (ssh / "known_hosts").write_text(lab.known_hosts.read_text())
    return ssh


@pytest.mark.timeout(120)
async def test_a_configuration_that_is_not_named_is_not_read(lab: Lab, home: Path) -> None:
    """A terminal for each session hung for two minutes; a jump in a circle was a RecursionError."""
    (home / "config").write_text("Host *\n  RequestTTY force\n  ProxyJump nowhere\n  Port 1\n")
    await used(lab)


@pytest.mark.timeout(120)
async def test_a_configuration_that_is_named_fills_in_the_rest(lab: Lab, home: Path) -> None:
    """Address, account, key, known hosts and a jump host, which is in the circle of `Host *`."""
    one, two = (lab[name].address for name in ("master01", "master02"))
    (home / "config").write_text(
        f"Host bastion\n  HostName {two}\nHost master01 {one}\n  HostName {one}\n"
        f"Host *\n  User operator\n  IdentityFile {lab.key}\n  RequestTTY force\n"
        f"  UserKnownHostsFile {lab.known_hosts}\n  ProxyJump bastion\n  RemoteCommand false\n"
        "  Ciphers aes128-ctr\n  SetEnv BASH_ENV=/etc/profile\n"
    )
    changes = {"config": "~/.ssh/config", "user": None, "key": None, "known_hosts": None}
    host = connect(lab, changes)
    assert host.is_behind_jump
    await used(lab, changes)
    with pytest.raises(AccessRefused, match=rf"SSH login as nobody@{one} port 22 is denied"):
        await used(lab, {**changes, "user": "nobody"})


@pytest.mark.timeout(120)
async def test_a_jump_host_has_one_connection_of_a_run(lab: Lab, home: Path) -> None:
    """Each member had its own."""
    del home
    changes = {"jump_host": {"address": lab["master02"].address}}
    logins = Logins()
    try:
        await used(lab, changes, logins)
        one = connect(lab, changes, logins)
        await one.run(Command("look", "true"))
        seen = lab["master02"].run("ss -tn state established 'sport = :22' | sed 1d").check()
        await one.close()
    finally:
        await logins.close()
    assert len(seen.stdout.splitlines()) == 1


FAULTS = {
    "its key is unknown": (
        "", "the jump host operator@{two} port 22: the SSH host key of {two} is not in",
    ),
    "it denies the login": (
        sshd("DenyUsers operator"), "the jump host operator@{two} port 22: SSH login as operator@",
    ),
    "it forwards nothing": (
        sshd("AllowTcpForwarding no"), "the jump host does not forward to operator@{one} port 22",
    ),
    "it forwards elsewhere": (
        sshd("PermitOpen 192.0.2.1:22"), "the jump host does not forward to operator@{one} port 22",
    ),
    "the member's sshd is off": ("", "operator@{one} port 1: the jump host says: Connection refus"),
}  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "fault",
    [pytest.param(f, marks=() if "nothing" in f else pytest.mark.chaos) for f in FAULTS],
)
async def test_the_leg_that_failed_is_named(
    lab: Lab, made: Callable[[str], Host], home: Path, fault: str
) -> None:
    """The member was blamed for its jump host's key, its login and its forwarding."""
    made(":")
    one, two = (lab[name].address for name in ("master01", "master02"))
    script, told = FAULTS[fault]
    lab["master02"].run(script or ":").check()
    changes: Content = {"jump_host": {"address": two}, "connect_timeout_seconds": 5}
    if "key" in fault:
        known = home / "one"
        lines = lab.known_hosts.read_text().splitlines()
        known.write_text("".join(f"{line}\n" for line in lines if not line.startswith(two)))
        changes["known_hosts"] = str(known)
    if "off" in fault:
        changes |= {"port": 1, "jump_host": {"address": two, "port": 22}}
    with pytest.raises(RunbookError) as met:
        await used(lab, changes)
    assert told.format(one=one, two=two) in met.value.message


@pytest.mark.timeout(120)
async def test_the_limit_that_bit_is_named(lab: Lab, made: Callable[[str], Host]) -> None:
    """MaxSessions, MaxStartups, and AllowTcpForwarding of a member behind a jump host."""
    # Of this setting the last line wins, not the first.
    last = "sed -i 's/^MaxStartups.*/MaxStartups 1:100:1/' /etc/ssh/sshd_config.d/lab.conf; "
    host = made(last + sshd("MaxSessions 1", "AllowTcpForwarding no"))
    with pytest.raises(AccessRefused, match="set MaxSessions in its sshd_config to at least 10"):
        await used(lab)
    with socket.create_connection((host.address, 22)) as waiting:
        assert waiting.recv(4) == b"SSH-"
        with pytest.raises(RunbookError, match="too many logins at once \\(MaxStartups\\)"):
            await used(lab)
    one = connect(lab, {"jump_host": {"address": lab["master02"].address}})
    with pytest.raises(AccessRefused, match="AllowTcpForwarding yes"):
        await one.forward(host.address, 2379)
    await one.close()


PASSPHRASE = "the passphrase of a key of this test"


@pytest.fixture
def locked(lab: Lab, home: Path) -> Path:
    """Make a copy of the operator's key with a passphrase."""
    key = home / "id_locked"
    key.write_bytes(lab.key.read_bytes())
    key.chmod(0o600)
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", PASSPHRASE, "-f", str(key)], check=True
    )
    return key


@pytest.fixture
def agent(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    """Start an agent that has the operator's key; returns its socket."""
    listens = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(listens)]) as running:
        while not listens.exists():
            time.sleep(0.01)
        added = {"SSH_AUTH_SOCK": str(listens), "PATH": os.defpath}
        subprocess.run(["ssh-add", "-q", str(lab.key)], check=True, env=added)
        yield listens
        running.terminate()


@pytest.mark.timeout(120)
async def test_a_key_with_a_passphrase(
    lab: Lab, locked: Path, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused with the ways out; opened by a secret, by what was typed, and by an agent."""

    async def read(source: SecretSource, field: str) -> bytes:
        return await read_secret(source, field)

    changes: Content = {"key": str(locked)}
    with pytest.raises(AccessRefused, match=f"ssh-add {locked}") as refused:
        await used(lab, changes)
    assert "\n" not in refused.value.message
    monkeypatch.setenv("KEY_PASSPHRASE", PASSPHRASE)
    by_secret = {**changes, "key_passphrase": {"env": "KEY_PASSPHRASE"}}
    await used(lab, by_secret, Logins(read))
    monkeypatch.setenv("KEY_PASSPHRASE", "another one")
    with pytest.raises(AccessRefused, match=r"the passphrase of ssh\.key .* is wrong"):
        await used(lab, by_secret, Logins(read))
    assert await keys.find_locked((locked, lab.key)) == (locked,)
    assert not keys.try_passphrase(locked, b"another one")
    assert keys.try_passphrase(locked, PASSPHRASE.encode())
    await used(lab, changes)
    keys.typed.clear()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    assert await keys.find_locked((locked,)) == ()
    await used(lab, changes)


def run_at_terminal(arguments: list[str], environment: dict[str, str], typed: str) -> str:
    """Run the command line at a terminal, type when it asks, and return what it said."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-m", "flows", *arguments], environment)  # noqa: S606
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error
        while part := os.read(terminal, 4096):
            if b"Passphrase of" in part:
                os.write(terminal, f"{typed}\n".encode())
            said += part
    os.close(terminal)
    os.waitpid(pid, 0)
    return said.decode()


@pytest.mark.timeout(120)
def test_the_command_line_asks_for_a_passphrase(lab: Lab, locked: Path, prefect: Prefect) -> None:
    """Once, before the run begins, and it is shown nowhere."""
    inventory = write_inventory(lab, {"key": str(locked)})
    arguments = ["bootstrap_cluster", "--cluster", str(inventory), "--dry-run"]
    environment = prefect.environment | {"HOME": str(locked.parents[1]), "COLUMNS": "200"}
    said = run_at_terminal(arguments, environment, PASSPHRASE)
    assert said.count("Passphrase of") == 1
    assert "done: no changes" in said, said
    assert PASSPHRASE not in said


@pytest.mark.timeout(120)
def test_an_adoption_takes_a_passphrase_and_a_jump_host(
    lab: Lab, locked: Path, prefect: Prefect
) -> None:
    """Where no inventory can say so yet, a parameter does; a host without etcd was reached then."""
    one, two = (lab[name].address for name in ("master01", "master02"))
    config = locked.with_name("jump")
    config.write_text(
        f"Host *\n  ProxyJump operator@{two}\n  User operator\n"
        f"  UserKnownHostsFile {lab.known_hosts}\n"
    )
    words = ("--hosts", f"m1={one}", "--key", str(locked), "--ssh-config", str(config))
    refused = run_runbook(prefect, "adopt_cluster", Path("new"), *words, "--dry-run")
    assert refused.status == 2
    assert f"ssh-add {locked}" in refused.stderr
    secret = locked.with_name("secret")
    secret.touch(mode=0o600)
    secret.write_text(PASSPHRASE)
    more = ("--key-passphrase", f"file={secret}", "--dry-run")
    reached = run_runbook(prefect, "adopt_cluster", Path("new"), *words, *more)
    assert reached.status == 2
    assert "m1: there is no etcd under etcd.service" in reached.stderr
