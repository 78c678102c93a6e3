"""The one SSH connection a host: the only place that knows asyncssh.

One multiplexed connection a host, opened when first needed and again when it broke. Host keys
are verified against the inventory's known_hosts; an unknown one is refused, never learnt.
Library errors are translated here, once.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import asyncssh

from tasks.hosts import refusals
from tasks.hosts.batch import (
    FENCED_OUT,
    SHELL,
    BatchResult,
    Command,
    Result,
    batch_script,
    hear,
    make_token,
    parse_batch,
    talking_script,
)
from tasks.hosts.files import CHANGED, UNCHANGED, upload_script
from tasks.hosts.held import ASK_SECONDS, HeldSession, find_forbidden
from tasks.hosts.logins import Logins
from tasks.hosts.transfers import receive, send
from tasks.hosts.ways import Way, find_way
from tasks.model.errors import (
    AccessRefused,
    CommandFailed,
    CommandTimedOut,
    HostSilent,
    HostUnreachable,
    LockLost,
    RunbookError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import PurePosixPath

    from tasks.hosts.sessions import Session
    from tasks.hosts.transfers import Process
    from tasks.model.machines import Host, Ssh

REMEMBER_SECONDS = 15.0
WINDOW_BYTES, PACKET_BYTES = 8 << 20, 256 << 10
"""Larger than asyncssh's own: uploading etcd to three hosts takes 0.6 of the time."""


class HostConnection:
    """One host, as root through `sudo -n`; `name` is the inventory's.

    `on_result` is called with every command's result, for the transcript. `fence` is shell that
    guards the batches that change something (see `hosts.sessions.lock_fence`).
    """

    def __init__(
        self,
        host: Host,
        ssh: Ssh,
        on_result: Callable[[str, Command, Result], None],
        logins: Logins | None = None,
    ) -> None:
        self.name = host.name
        self.host = host
        self.fence: str | None = None
        self._ssh = ssh
        self._logins = logins or Logins()
        self._is_alone = logins is None
        self._on_result = on_result
        self._way: Way | None = None
        self._attempt: asyncio.Task[asyncssh.SSHClientConnection] | None = None
        self._has_answered = False
        self._failed: tuple[float, RunbookError] | None = None
        self._forwards: dict[tuple[str, int], int] = {}
        self._connection: asyncssh.SSHClientConnection | None = None

    def __str__(self) -> str:
        return self.name

    async def greet(self) -> None:
        """Begin to connect; whoever needs the connection next hears what came of it."""
        with suppress(RunbookError):
            await self._connect()

    async def run(
        self,
        *commands: Command,
        timeout_seconds: float = 60.0,
        keep_going: bool = False,
        changes: bool = False,
    ) -> BatchResult:
        """Run commands in one round trip; all results come back, in order.

        Without `keep_going` the first that fails raises CommandFailed; what those before it did
        stays done. `changes` puts the cluster's lock before the batch: LockLost when it is not
        ours. Also raises HostUnreachable, CommandTimedOut (it may still run), AccessRefused.
        """
        token = make_token()
        fence = self.fence if changes else None
        script = batch_script(commands, token, fence=fence, keep_going=keep_going)
        status, stdout, stderr = await self._execute(script, timeout_seconds)
        if status == FENCED_OUT:
            raise LockLost(
                "the cluster's lock is no longer this run's; nothing more was changed. Run the "
                "runbook again: it starts from what is there",
                host=self.name,
            )
        batch = parse_batch(commands, token, stdout, stderr)
        if batch is None:
            raise await self._refused(status, stderr)
        for command, result in zip(commands, batch, strict=False):
            self._on_result(self.name, command, result)
            if result.status and not keep_going:
                raise CommandFailed(self.name, command.name, result.status, result.stderr)
        if len(batch.results) < len(commands):
            raise HostUnreachable(
                f"the connection ended in the middle of '{commands[len(batch.results)].name}'",
                host=self.name,
            )
        return batch

    async def upload(
        self,
        content: bytes | Path,
        target: PurePosixPath,
        *,
        sha256: str,
        mode: str,
        backup: PurePosixPath,
        timeout_seconds: float = 300.0,
    ) -> bool:
        """Put `content` in a file of root's; returns whether that changed it.

        That of a file is read part by part, as fast as the host takes it. The host checks `sha256`
        before the rename. On failure the target is as it was. Raises as `run` does.
        """
        script = upload_script(target, sha256=sha256, mode=mode, backup=backup, fence=self.fence)
        name, token = f"upload {target}", make_token()
        began = time.monotonic()
        spoken = talking_script(script, token).encode()
        if isinstance(content, Path):
            status, stdout, stderr = await self._send(spoken, content, timeout_seconds)
        else:
            status, stdout, stderr = await self._execute(spoken + content, timeout_seconds)
        said = [words for line in stdout.splitlines() if (words := hear(line, token)) is not None]
        if not said:
            raise await self._refused(status, stderr)
        stderr = stderr.rpartition(f"\n{token} begin\n")[2]
        result = Result(name, status, " ".join(said), stderr, time.monotonic() - began)
        self._on_result(self.name, Command(name, script), result)
        if status == FENCED_OUT:
            raise LockLost("the cluster's lock is no longer this run's", host=self.name)
        if status or said[-1] not in {CHANGED, UNCHANGED}:
            raise CommandFailed(self.name, name, status, stderr)
        return said[-1] == CHANGED

    async def download(
        self, source: PurePosixPath, target: Path, *, size: int, timeout_seconds: float = 300.0
    ) -> None:
        """Copy so many bytes of a file of root's into one of the runner's; raises as `run` does.

        Who needs to know that they are the file's compares a checksum.
        """
        name, token = f"download {source}", make_token()
        script = f"cat -- {quote(str(source))}"
        began = time.monotonic()
        spoken = talking_script(script, token).encode()
        status, stderr = await self._receive(spoken, token, size, target, timeout_seconds)
        result = Result(name, status, "", stderr, time.monotonic() - began)
        self._on_result(self.name, Command(name, script), result)
        if status:
            raise CommandFailed(self.name, name, status, stderr)

    @asynccontextmanager
    async def hold(self, script: str) -> AsyncIterator[Session]:
        """Keep a script running as root for as long as the block; it ends with its input."""
        connection = await self._connect()
        token = make_token()
        try:
            process = await connection.create_process(
                self._privileged(SHELL), encoding="utf-8", errors="replace"
            )
            with suppress(OSError):  # one that has ended says why on its own
                process.stdin.write(talking_script(script, token))
        except asyncssh.ChannelOpenError as error:
            raise await self._unopened(connection, error) from error
        except (OSError, asyncssh.Error) as error:
            raise self._translated(error) from error
        try:
            yield HeldSession(self.name, process, token, self._refused)
        finally:
            process.stdin.write_eof()
            process.close()

    async def forward(self, address: str, port: int) -> int:
        """Open a port on the runner's loopback that leads through the host; returns it.

        One a target, for as long as the connection. A host that could not be reached a moment ago
        is not asked again: raises what was met then.
        """
        self._raise_remembered(RunbookError)
        connection = await self._connect()
        if (address, port) not in self._forwards:
            if told := await find_forbidden(connection, address, port):
                raise AccessRefused(told, host=self.name)
            listener = await connection.forward_local_port("127.0.0.1", 0, address, port)
            self._forwards[address, port] = listener.get_port()
        return self._forwards[address, port]

    async def close(self) -> None:
        """Close the connection; a held session ends with it."""
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.gather(self._attempt, return_exceptions=True)
            self._attempt = None
        if self._connection is not None:
            self._connection.close()
            await self._connection.wait_closed()
        self._connection = None
        if self._is_alone:
            await self._logins.close()

    @property
    def way(self) -> Way:
        """How it is logged in to; raises InvalidInventory."""
        if self._way is None:
            self._way = find_way(self.host, self._ssh)
        return self._way

    @property
    def is_behind_jump(self) -> bool:
        """Whether it is reached through another host, so that its ports are not reached either."""
        return bool(self.way.jumps or self.way.proxy)

    def _privileged(self, command: str) -> str:
        """Write what the login shell is told: plain words, that any shell takes."""
        return command if self.way.host.user == "root" else f"env LC_ALL=C sudo -n -- {command}"

    async def _execute(
        self, stdin: str | bytes, timeout_seconds: float, command: str | None = None
    ) -> tuple[int, str, str]:
        """Run what the login shell is told; without a `command`, a root's bash for the script."""
        connection = await self._connect()
        data = stdin.encode() if isinstance(stdin, str) else stdin
        try:
            # Not wait_for: 3.11's takes a cancellation for nothing in the turn of the answer, and
            # who watches in a loop would go on for ever.
            async with asyncio.timeout(timeout_seconds):
                done = await connection.run(
                    command or self._privileged(SHELL),
                    input=data,
                    encoding=None,
                    window=WINDOW_BYTES,
                    max_pktsize=PACKET_BYTES,
                )
        except asyncssh.ChannelOpenError as error:
            raise await self._unopened(connection, error) from error
        except TimeoutError as error:
            raise CommandTimedOut(
                f"no answer in {timeout_seconds:g} s; the host may be overloaded or frozen",
                host=self.name,
            ) from error
        except (OSError, asyncssh.Error) as error:
            raise self._translated(error) from error
        return self._ended(done)

    def _ended(self, done: asyncssh.SSHCompletedProcess) -> tuple[int, str, str]:
        if done.exit_status is None or done.exit_status < 0:
            raise HostUnreachable("the SSH connection broke in mid-command", host=self.name)
        return done.exit_status, _text(done.stdout), _text(done.stderr)

    async def _send(
        self, spoken: bytes, file: Path, timeout_seconds: float
    ) -> tuple[int, str, str]:
        """Run a script as root that reads a file of the runner's behind itself."""
        return await self._stream(lambda p: send(p, spoken, file), file.name, timeout_seconds)

    async def _receive(
        self, spoken: bytes, token: str, size: int, target: Path, timeout_seconds: float
    ) -> tuple[int, str]:
        """Run a script as root whose output is written into a file of the runner's."""
        status, _, stderr = await self._stream(
            lambda p: receive(p, spoken, token, size, target), target.name, timeout_seconds
        )
        return status, stderr

    async def _stream(
        self, work: Callable[[Process], Awaitable[None]], what: str, timeout_seconds: float
    ) -> tuple[int, str, str]:
        connection = await self._connect()
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                connection.create_process(
                    self._privileged(SHELL),
                    encoding=None,
                    window=WINDOW_BYTES,
                    max_pktsize=PACKET_BYTES,
                ) as process,
            ):
                with suppress(BrokenPipeError):
                    await work(process)
                done = await process.wait()
        except asyncssh.ChannelOpenError as error:
            raise await self._unopened(connection, error) from error
        except TimeoutError as error:
            raise CommandTimedOut(
                f"{what} did not arrive in {timeout_seconds:g} s", host=self.name
            ) from error
        except (OSError, asyncssh.Error) as error:
            raise self._translated(error) from error
        return self._ended(done)

    async def _connect(self) -> asyncssh.SSHClientConnection:
        """Get the connection; those who ask while it is being opened share the attempt."""
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        if self._attempt is None or self._attempt.done():
            self._raise_remembered(HostSilent)
            self._attempt = asyncio.ensure_future(self._opened())
        try:
            return await asyncio.shield(self._attempt)
        except HostUnreachable as error:
            # Each gets one of its own: who reports several puts all their texts into one.
            raise type(error)(error.message, host=error.host) from error

    def _raise_remembered(self, kind: type[RunbookError]) -> None:
        """Raise what the last attempt met, if that was of this kind and a moment ago."""
        if self._failed is None or time.monotonic() - self._failed[0] > REMEMBER_SECONDS:
            return
        met = self._failed[1]
        if isinstance(met, HostUnreachable):
            met = type(met)(met.message, host=met.host)
        if isinstance(met, kind):
            raise met

    async def _opened(self) -> asyncssh.SSHClientConnection:
        self._forwards.clear()
        try:
            opened = await self._logins.open(self.name, self.way, self._ssh)
        except RunbookError as error:
            if isinstance(error, HostSilent) and self._has_answered:
                error = HostUnreachable(error.message, host=error.host)
            self._failed = (time.monotonic(), error)
            raise error from error.__cause__
        self._failed = None
        self._connection = opened
        self._has_answered = True
        return opened

    async def _unopened(
        self, connection: asyncssh.SSHClientConnection, error: asyncssh.ChannelOpenError
    ) -> RunbookError:
        # Asked of the connection that was used, since another may be open by now; and a turn
        # later, for asyncssh says that one is closed a turn after it has lost it.
        await asyncio.sleep(0)
        if connection.is_closed():
            return self._translated(error)
        takes_none = error.code == asyncssh.OPEN_REQUEST_SESSION_FAILED
        told = (
            refusals.no_command(self.way.host.user)
            if takes_none
            else refusals.no_session(error.reason)
        )
        return AccessRefused(told, host=self.name)

    async def _refused(self, status: int, stderr: str) -> RunbookError:
        listed = ""
        if refusals.wants_password(stderr):
            with suppress(RunbookError):
                _, listed, _ = await self._execute("", ASK_SECONDS, "env LC_ALL=C sudo -n -l")
        return AccessRefused(
            refusals.no_root(self.way.host.user, status, stderr, listed), host=self.name
        )

    def _translated(self, error: Exception) -> RunbookError:
        reason = "no answer in time" if isinstance(error, TimeoutError) else str(error)
        told = f"the SSH connection to {self.way.host} broke: {reason}"
        return HostUnreachable(told, host=self.name)


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def now() -> float:
    """Read the runner's clock, in seconds since the epoch."""
    return time.time()
