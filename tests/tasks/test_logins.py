"""Ways and keys, with real SSH servers on the loopback: ciphers, jump hosts, a client's file."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tasks.hosts import keys
from tasks.hosts.connection import HostConnection
from tasks.hosts.logins import Logins
from tasks.hosts.ways import find_way
from tasks.model.credentials import KeyPassphrase, SecretSource
from tasks.model.errors import AccessRefused, HostUnreachable, InvalidInventory, RunbookError
from tasks.model.inventory_file import load_inventory
from tasks.model.machines import Host, JumpHost, Ssh, SshOverride
from tasks.procedures.adoption import ssh_content

CONFIG = """
Host bastion
  HostName 192.0.2.9
  Port 2222
  User jumper
Host master02
  HostName 192.0.2.2
  ProxyCommand nc %h %p
  ProxyJump none
Host *
  User ops
  IdentityFile ~/.ssh/one
  ProxyJump bastion
  RequestTTY force
"""


class Server(asyncssh.SSHServer):
    """Lets everyone in, and counts; forwards where it may."""

    def __init__(self, seen: list[asyncssh.SSHServerConnection], *, forwards: bool) -> None:
        self._seen = seen
        self._forwards = forwards

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Count it."""
        self._seen.append(conn)

    def begin_auth(self, username: str) -> bool:
        """Deny one, and ask nothing of the others."""
        return username == "denied"

    def public_key_auth_supported(self) -> bool:
        """Take keys, but none that there is."""
        return True

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        """Forward, or say that it is prohibited."""
        del dest_host, dest_port, orig_host, orig_port
        if not self._forwards:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "no")
        return True


@asynccontextmanager
async def serving(
    known: Path,
    *,
    forwards: bool = True,
    **options: Any,  # noqa: ANN401 - asyncssh's
) -> AsyncIterator[tuple[int, list[asyncssh.SSHServerConnection]]]:
    """Serve SSH on a port of the loopback that `known` has the key of."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    seen: list[asyncssh.SSHServerConnection] = []
    server = await asyncssh.create_server(
        lambda: Server(seen, forwards=forwards), "127.0.0.1", 0, server_host_keys=[key], **options
    )
    port = server.get_port()
    with known.open("a") as file:
        file.write(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
    try:
        yield port, seen
    finally:
        server.close()
        await server.wait_closed()


def host_at(port: int, name: str = "master01") -> Host:
    """Make a host of the loopback."""
    return Host(name=name, address="127.0.0.1", ssh=SshOverride(port=port))


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """Name a file of known hosts."""
    return tmp_path / "known_hosts"


def test_without_a_file_the_inventory_says_it_all() -> None:
    """Root at port 22, with the agent's keys."""
    way = find_way(Host(name="master01"), Ssh())
    assert str(way.host) == "root@master01 port 22"
    assert (way.jumps, way.proxy, way.host.keys) == ((), None, ())


@pytest.mark.parametrize(
    ("ssh", "host", "told", "jumps"),
    [
        ({}, {"name": "master01"}, "ops@master01 port 22", ["jumper@192.0.2.9 port 2222"]),
        ({"user": "me", "port": 23}, {"name": "master02"}, "me@192.0.2.2 port 23", []),
        ({}, {"name": "master02", "address": "192.0.2.7"}, "ops@192.0.2.7 port 22",
         ["jumper@192.0.2.9 port 2222"]),
        ({"jump_host": {"address": "192.0.2.8"}}, {"name": "master01"}, "ops@master01 port 22",
         ["ops@192.0.2.8 port 22"]),
        ({"key_passphrase": {"env": "A"}}, {"name": "bastion"}, "jumper@192.0.2.9 port 2222", []),
        ({"jump_host": {"address": "bastion", "user": "own"}}, {"name": "m"}, "ops@m port 22",
         ["own@192.0.2.9 port 2222"]),
    ],
)  # fmt: skip
def test_a_file_says_what_the_inventory_does_not(
    tmp_path: Path, ssh: dict[str, Any], host: dict[str, Any], told: str, jumps: list[str]
) -> None:
    """The inventory's fields first; the jump host of all is not its own."""
    config = tmp_path / "config"
    config.write_text(CONFIG)
    way, same = (
        find_way(Host.model_validate(host), Ssh.model_validate({"config": config, **ssh}))
        for _ in range(2)
    )
    assert str(way.host) == told
    assert list(map(str, way.jumps)) == jumps
    assert {way.jumps: True}[same.jumps]
    assert way.host.keys == (Path("~/.ssh/one").expanduser(),)
    assert bool(way.proxy) == (told.startswith("me@"))


@pytest.mark.parametrize("text", ["Port many\n", "Host *\n  ProxyJump a:b:c\n", None])
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str | None) -> None:
    """With its name."""
    config = tmp_path / "config"
    if text is not None:
        config.write_text(text)
    with pytest.raises(InvalidInventory, match=str(config)):
        find_way(Host(name="master01"), Ssh(config=config))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("cipher", ["chacha20-poly1305@openssh.com", "aes192-ctr", "aes128-ctr"])
def test_each_cipher_alone_is_spoken(known: Path, cipher: str) -> None:
    """Two of three could not be reached."""

    async def check() -> None:
        async with serving(known, encryption_algs=[cipher]) as (port, seen):
            host = HostConnection(host_at(port), Ssh(known_hosts=known), lambda *_: None)
            await host.greet()
            assert len(seen) == 1
            await host.close()

    asyncio.run(check())


@pytest.mark.timeout(60)
def test_no_file_of_the_runners_is_read(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ~/.ssh/config that nobody named was half used: its ProxyJump was a RecursionError."""
    (directory := known.with_name(".ssh")).mkdir()
    (directory / "config").write_text("Host *\n  ProxyJump 127.0.0.1\n  User other\n")
    monkeypatch.setenv("HOME", str(known.parent))

    async def check() -> None:
        async with serving(known) as (port, seen):
            host = HostConnection(host_at(port), Ssh(known_hosts=known), lambda *_: None)
            await host.greet()
            assert [each.get_extra_info("username") for each in seen] == ["root"]
            await host.close()

    asyncio.run(check())


@pytest.mark.timeout(60)
def test_all_hosts_share_one_connection_to_the_jump_host(known: Path) -> None:
    """It was one for each, and MaxStartups dropped some."""

    async def check() -> None:
        async with serving(known) as (jump, jumped), serving(known) as (port, seen):
            ssh = Ssh(known_hosts=known, jump_host=JumpHost(address="127.0.0.1", port=jump))
            logins = Logins()
            hosts = [
                HostConnection(host_at(port, f"m{n}"), ssh, lambda *_: None, logins)
                for n in range(5)
            ]
            await asyncio.gather(*(host.greet() for host in hosts))
            assert (len(jumped), len(seen)) == (1, 5)
            await asyncio.gather(*(host.close() for host in hosts))
            await logins.close()

    asyncio.run(check())


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("user", "forwards", "error", "told"),
    [
        ("denied", True, AccessRefused, "the jump host denied@127.0.0.1 port {jump}: SSH login as"),
        ("me", False, AccessRefused, "the jump host does not forward to root@127.0.0.1 port 1 "),
        ("me", True, HostUnreachable, "no SSH connection to root@127.0.0.1 port 1: the jump host"),
    ],
)
def test_the_leg_that_fails_is_named(
    known: Path, user: str, forwards: bool, error: type[RunbookError], told: str
) -> None:
    """The member was blamed for all of them."""

    async def check() -> None:
        async with serving(known, forwards=forwards) as (jump, _):
            through = JumpHost(address="127.0.0.1", port=jump, user=user)
            ssh = Ssh(known_hosts=known, jump_host=through)
            host = HostConnection(host_at(1), ssh, lambda *_: None)
            with pytest.raises(error) as met:
                await host.run()
            assert told.format(jump=jump) in met.value.message
            assert met.value.host == "master01"
            await host.close()

    asyncio.run(check())


@pytest.mark.timeout(60)
def test_a_server_that_ends_connections_at_once_is_asked_again(known: Path) -> None:
    """MaxStartups drops by chance; what it is like is said when it goes on."""

    async def check() -> None:
        await asyncio.to_thread(known.touch)
        met: list[asyncio.StreamWriter] = []

        async def drop(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            met.append(writer)
            writer.write(b"Exceeded MaxStartups\r\n")
            writer.close()

        async with await asyncio.start_server(drop, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            host = HostConnection(host_at(port), Ssh(known_hosts=known), lambda *_: None)
            with pytest.raises(HostUnreachable, match="too many logins at once"):
                await host.run()
            assert len(met) == 4
            await host.close()

    asyncio.run(check())


@pytest.mark.timeout(60)
def test_a_key_with_a_passphrase_is_opened_once(known: Path, tmp_path: Path) -> None:
    """Deriving it takes long on purpose, and a fleet has hundreds of hosts."""
    key, asked = tmp_path / "id", []
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", str(key)]
    subprocess.run(keygen, check=True, timeout=30)

    async def read(source: SecretSource, field: str) -> bytes:
        asked.append((source.env, field))
        return b"open sesame"

    async def check() -> None:
        async with serving(known) as (port, seen):
            ssh = Ssh(known_hosts=known, key=key, key_passphrase=KeyPassphrase(env="A"))
            logins = Logins(read)
            hosts = [
                HostConnection(host_at(port, f"m{n}"), ssh, lambda *_: None, logins)
                for n in range(5)
            ]
            await asyncio.gather(*(host.greet() for host in hosts))
            assert len(seen) == 5
            await asyncio.gather(*(host.close() for host in hosts))

    asyncio.run(check())
    assert asked == [("A", "ssh.key_passphrase")]


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_key_with_a_passphrase_is_known_as_one(tmp_path: Path, kind: str) -> None:
    """And opened by what is typed alone."""
    path, plain = tmp_path / kind, tmp_path / "plain"
    for made, phrase in ((path, "open sesame"), (plain, "")):
        keygen = ["ssh-keygen", "-q", "-t", kind, "-N", phrase, "-f", str(made)]
        subprocess.run(keygen, check=True, timeout=30)
    Path(f"{path}.pub").unlink()
    assert asyncio.run(keys.find_locked((path, plain, tmp_path / "none"))) == (path,)
    assert keys._public_half(path) is not None
    assert not keys.try_passphrase(path, b"open")
    assert keys.try_passphrase(path, b"open sesame")
    assert keys.typed.pop(path) == b"open sesame"


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("john.doe", True), ("Admin", True), ("svc@corp.example.org", True), ("CORP\\svc", True),
     ("root", True), ("host$", True), ("-oProxy", False), ("a b", False), ("a;b", False)],
)  # fmt: skip
def test_account_names_as_unix_and_directories_have_them(name: str, is_one: bool) -> None:
    """And none that a shell or ssh takes for something else."""
    with contextlib.nullcontext() if is_one else pytest.raises(ValueError, match="logs in"):
        assert Ssh.model_validate({"user": name}).user == name


def test_what_an_inventory_leaves_out_stays_out(tmp_path: Path) -> None:
    """Known hosts that it does not name may be the file's; paths are relative to the inventory."""
    text = Path("deployments/clusters/example.yaml").read_text()
    lines = [line for line in text.splitlines() if "known_hosts:" not in line]
    at = lines.index("ssh:") + 1
    lines[at:at] = ["  config: ssh-config", "  key_passphrase: {file: phrase}"]
    path = tmp_path / "one.yaml"
    path.write_text("\n".join(lines))
    ssh = load_inventory(str(path)).ssh
    assert "known_hosts" not in ssh.model_fields_set
    assert ssh.config == tmp_path / "ssh-config"
    assert ssh.key_passphrase is not None
    assert ssh.key_passphrase.file == tmp_path / "phrase"


def said(**given: object) -> dict[str, object]:
    """Say what an adoption is told, with its parameters' defaults."""
    plain = {"user": "root", "port": 22, "known_hosts": "~/.ssh/known_hosts", "key": None}
    return {**plain, "config": None, **given}


def test_an_adoption_leaves_to_a_clients_file_what_it_is_not_told(tmp_path: Path) -> None:
    """With its defaults the parameters would beat the file's account and port."""
    home = str(Path("~/.ssh/known_hosts").expanduser())
    assert ssh_content(said()) == {"user": "root", "port": 22, "known_hosts": home}
    config = str(tmp_path / "config")
    assert ssh_content(said(config=config, port=2222)) == {"port": 2222, "config": config}


@pytest.mark.parametrize(
    ("words", "found"),
    [("env=A", {"env": "A"}), ("file=/k", {"file": "/k"}), ("block=b", {"block": "b"})],
)
def test_an_adoption_is_told_where_a_passphrase_is(words: str, found: dict[str, str]) -> None:
    """As the inventory says it then."""
    assert ssh_content(said(), words)["key_passphrase"] == found


@pytest.mark.parametrize("words", ["hunter2", "pass=hunter2", "env="])
def test_a_passphrase_that_is_typed_itself_is_refused_and_not_repeated(words: str) -> None:
    """Parameters are shown to everyone who sees the run."""
    with pytest.raises(InvalidInventory) as refused:
        ssh_content(said(), words)
    assert "hunter2" not in str(refused.value)
