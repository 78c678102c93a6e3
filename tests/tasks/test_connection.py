"""What a broken SSH connection is called; with a real SSH server on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from tasks.hosts.batch import Command
from tasks.hosts.connection import HostConnection
from tasks.model.errors import AccessRefused, HostSilent, HostUnreachable, RunbookError
from tasks.model.machines import Host, Ssh, SshOverride

ROUNDS = 5
TURNS = 60
CANCELLED_TURNS = 300


class Silent(asyncssh.SSHServerSession[str]):
    """A command that says nothing, for ever."""

    def exec_requested(self, command: str) -> bool:  # noqa: ARG002 - asyncssh's signature
        """Take it."""
        return True


class Server(asyncssh.SSHServer):
    """Lets everyone in; `is_full` takes no further session."""

    is_full = False

    def __init__(self, connections: list[asyncssh.SSHServerConnection]) -> None:
        self._connections = connections

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Keep it, to break it."""
        self._connections.append(conn)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002 - asyncssh's signature
        """Ask for no authentication."""
        return False

    def session_requested(self) -> bool | asyncssh.SSHServerSession[str]:
        """Take a session, or say that there are enough."""
        return False if self.is_full else Silent()


class Denied(Silent):
    """A sudo that wants a password."""

    def connection_made(self, chan: asyncssh.SSHServerChannel[str]) -> None:
        """Keep the channel."""
        self._channel = chan

    def session_started(self) -> None:
        """Say what sudo -n says."""
        self._channel.write_stderr("sudo: a password is required\n")
        self._channel.exit(1)


class DenyingServer(Server):
    """Whose user may not become root."""

    def session_requested(self) -> bool | asyncssh.SSHServerSession[str]:
        """Take each session, and end it."""
        return Denied()


class Quick(Silent):
    """A command that has ended before it was asked what it does."""

    def connection_made(self, chan: asyncssh.SSHServerChannel[str]) -> None:
        """Keep the channel."""
        self._channel = chan

    def session_started(self) -> None:
        """End."""
        self._channel.exit(0)


class QuickServer(Server):
    """Which answers at once."""

    def session_requested(self) -> bool | asyncssh.SSHServerSession[str]:
        """Take each session, and end it."""
        return Quick()


class NoExec(Silent):
    """A server for files alone, such as some appliances have."""

    def exec_requested(self, command: str) -> bool:  # noqa: ARG002 - asyncssh's signature
        """Refuse it."""
        return False


class NoExecServer(Server):
    """Which opens sessions, and runs nothing in them."""

    def session_requested(self) -> bool | asyncssh.SSHServerSession[str]:
        """Take each session."""
        return NoExec()


class FullServer(Server):
    """As with MaxSessions reached."""

    is_full = True


@asynccontextmanager
async def connected(
    files: Path, kind: type[Server]
) -> AsyncIterator[tuple[HostConnection, list[asyncssh.SSHServerConnection]]]:
    """Start a server, and a host's connection to it."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    connections: list[asyncssh.SSHServerConnection] = []
    server = await asyncssh.create_server(
        lambda: kind(connections), "127.0.0.1", 0, server_host_keys=[key]
    )
    port = server.get_port()
    known = files / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
    ssh = Ssh(user="root", known_hosts=known)
    one = Host(name="master01", address="127.0.0.1", ssh=SshOverride(port=port))
    host = HostConnection(one, ssh, lambda *_: None)
    try:
        yield host, connections
    finally:
        await host.close()
        server.close()
        await server.wait_closed()


@pytest.mark.timeout(60)
def test_a_connection_that_breaks_under_many_is_not_maxsessions(tmp_path: Path) -> None:
    """In each turn of the loop somebody asks, and whoever meets the break is told that it broke."""

    async def ask(host: HostConnection) -> None:
        with contextlib.suppress(HostUnreachable):
            async with host.hold("cat") as session:
                assert await session.read_line(30) == ""

    async def check() -> None:
        async with connected(tmp_path, Server) as (host, connections):
            for _ in range(ROUNDS):
                asked = [asyncio.ensure_future(ask(host))]
                while not connections:
                    await asyncio.sleep(0)
                broken = connections.pop()
                await asyncio.sleep(0.05)
                for turn in range(TURNS):
                    asked.append(asyncio.ensure_future(ask(host)))
                    if turn == TURNS // 3:
                        broken.abort()
                    await asyncio.sleep(0)
                await asyncio.sleep(0.1)
                while connections:
                    connections.pop().abort()
                await asyncio.gather(*asked)

    asyncio.run(check())


@pytest.mark.timeout(60)
def test_a_held_session_that_sudo_refused_says_so(tmp_path: Path) -> None:
    """The lock's is the first that a runbook opens: it was told as a lock that is lost."""

    async def check() -> None:
        async with (
            connected(tmp_path, DenyingServer) as (host, _),
            host.hold("cat") as session,
        ):
            assert await session.read_line(30) == ""
            refused = await session.why_refused()
            assert isinstance(refused, AccessRefused)
            assert "sudo wants a password of root" in refused.message

    asyncio.run(check())


@pytest.mark.timeout(60)
def test_a_host_that_never_answered_is_given_its_time_once(tmp_path: Path) -> None:
    """A port whose queue of connections is full is as silent as a host without power."""

    async def check() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            port = full.getsockname()[1]
            (known := tmp_path / "known").touch()
            ssh = Ssh(user="root", known_hosts=known, connect_timeout_seconds=0.5)
            one = Host(name="master01", address="127.0.0.1", ssh=SshOverride(port=port))
            with contextlib.ExitStack() as waiting:
                for _ in range(2):
                    dialled = waiting.enter_context(socket.socket())
                    dialled.setblocking(False)
                    dialled.connect_ex(("127.0.0.1", port))
                host = HostConnection(one, ssh, lambda *_: None)
                began = time.monotonic()
                for _ in range(4):
                    with pytest.raises(HostSilent, match="no answer in time") as met:
                        await host.run(Command("look", "true"))
                    met.value.message = "joined with others by whoever reports it"
                assert time.monotonic() - began < 1
                await host.close()

    asyncio.run(check())


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("kind", "told"),
    [(FullServer, "MaxSessions"), (NoExecServer, "lets root run no command")],
)
def test_a_server_that_opens_no_session_or_runs_no_command(
    tmp_path: Path, kind: type[Server], told: str
) -> None:
    """It stays connected, so that it is its setting; which of the two is told."""

    async def check() -> None:
        async with connected(tmp_path, kind) as (host, _):
            with pytest.raises(AccessRefused, match=told):
                await host.run(Command("look", "true"))
            with pytest.raises(AccessRefused, match=told):
                async with host.hold("cat"):
                    pass

    asyncio.run(check())


@pytest.mark.timeout(60)
def test_a_cancellation_in_the_turn_of_the_answer_is_not_lost(tmp_path: Path) -> None:
    """Who watches a member's start or the lock, and goes on watching, holds its run for ever.

    Python 3.11's asyncio.wait_for takes a cancellation for nothing when the answer is there.
    """

    async def check() -> None:
        async with connected(tmp_path, QuickServer) as (host, _):
            await host.greet()
            for turns in range(CANCELLED_TURNS):
                asked = asyncio.ensure_future(host.run(Command("look", "true")))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if asked.cancel():
                    (met,) = await asyncio.gather(asked, return_exceptions=True)
                    assert isinstance(met, asyncio.CancelledError), (turns, met)
                else:
                    assert isinstance(asked.exception(), RunbookError)

    asyncio.run(check())
