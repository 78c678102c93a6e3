"""The one SSH connection a host: the only place that knows asyncssh.

One multiplexed connection a host, opened when first needed and again when it broke. Host keys
are verified against the inventory's known_hosts; an unknown one is refused, never learnt.
Library errors are translated here, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import time
from contextlib import asynccontextmanager, suppress
from shlex import quote
from typing import TYPE_CHECKING

import asyncssh

from tasks.hosts import refusals
from tasks.hosts.batch import FENCED_OUT, BatchResult, Command, Result, batch_script, parse_batch
from tasks.hosts.dialling import ANSWER_SECONDS, Unanswered, dial
from tasks.hosts.files import CHANGED, UNCHANGED, upload_script
from tasks.model.errors import (
    AccessRefused,
    CommandFailed,
    CommandTimedOut,
    HostKeyRefused,
    HostSilent,
    HostUnreachable,
    InvalidInventory,
    LockLost,
    RunbookError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import PurePosixPath

    from tasks.hosts.sessions import Session
    from tasks.model.machines import Host, Ssh

KEEPALIVE_SECONDS = 5
REMEMBER_SECONDS = 15.0
SILENCES = {os.strerror(errno.EHOSTUNREACH), os.strerror(errno.ETIMEDOUT)}
"""What a jump host's sshd says of a host that does not answer it."""
WINDOW_BYTES, PACKET_BYTES = 8 << 20, 256 << 10
"""Larger than asyncssh's own: uploading etcd to three hosts takes 0.6 of the time."""


class HostConnection:
    """One host, as root through `sudo -n`; `name` is the inventory's.

    `on_result` is called with every command's result, for the transcript. `fence` is shell that
    guards the batches that change something (see `hosts.sessions.lock_fence`).
    """

    def __init__(
        self, host: Host, ssh: Ssh, on_result: Callable[[str, Command, Result], None]
    ) -> None:
        self.name = host.name
        self.host = host
        self.fence: str | None = None
        self._ssh = ssh
        self._user = host.ssh.user or ssh.user
        self._on_result = on_result
        self._attempt: asyncio.Task[asyncssh.SSHClientConnection] | None = None
        self._failed: tuple[float, RunbookError] | None = None
        self._forwards: dict[tuple[str, int], int] = {}
        self._connection: asyncssh.SSHClientConnection | None = None
        self._jump: asyncssh.SSHClientConnection | None = None

    def __str__(self) -> str:
        return self.name

    async def greet(self) -> None:
        """Begin to connect; whoever needs the connection next hears what came of it."""
        with contextlib.suppress(RunbookError):
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
        token = f"mark-{secrets.token_hex(12)}"
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
            raise self._refusal(status, stderr)
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
        content: bytes,
        target: PurePosixPath,
        *,
        sha256: str,
        mode: str,
        backup: PurePosixPath,
        timeout_seconds: float = 300.0,
    ) -> bool:
        """Put `content` in a file of root's; returns whether that changed it.

        The host checks `sha256` before the rename. On failure the
        target is as it was. Raises as `run` does.
        """
        script = upload_script(target, sha256=sha256, mode=mode, backup=backup, fence=self.fence)
        command = self._privileged(f"bash -c {quote(script)}")
        began = time.monotonic()
        status, stdout, stderr = await self._execute(content, timeout_seconds, command)
        name, seconds = f"upload {target}", time.monotonic() - began
        result = Result(name, status, stdout, stderr, seconds)
        self._on_result(self.name, Command(name, script), result)
        if status == FENCED_OUT:
            raise LockLost("the cluster's lock is no longer this run's", host=self.name)
        if status or stdout.strip() not in {CHANGED, UNCHANGED}:
            raise CommandFailed(self.name, name, status, stderr)
        return stdout.strip() == CHANGED

    @asynccontextmanager
    async def hold(self, script: str) -> AsyncIterator[Session]:
        """Keep a script running as root for as long as the block; it ends with its input."""
        connection = await self._connect()
        quoted = f"export LC_ALL=C; umask 077; set -euo pipefail\n{script}"
        try:
            process = await connection.create_process(
                self._privileged(f"bash -c {quote(quoted)}"), encoding="utf-8"
            )
        except asyncssh.ChannelOpenError as error:
            raise await self._unopened(connection, error) from error
        except (OSError, asyncssh.Error) as error:
            raise self._translated(error) from error
        try:
            yield _Session(self.name, process, self._refusal)
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
            listener = await connection.forward_local_port("127.0.0.1", 0, address, port)
            self._forwards[address, port] = listener.get_port()
        return self._forwards[address, port]

    async def close(self) -> None:
        """Close the connection; a held session ends with it."""
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.gather(self._attempt, return_exceptions=True)
            self._attempt = None
        for connection in (self._connection, self._jump):
            if connection is not None:
                connection.close()
                await connection.wait_closed()
        self._connection = self._jump = None

    def _privileged(self, command: str) -> str:
        return command if self._user == "root" else f"sudo -n -- {command}"

    async def _execute(
        self, stdin: str | bytes, timeout_seconds: float, command: str = "bash -s"
    ) -> tuple[int, str, str]:
        connection = await self._connect()
        privileged = self._privileged(command) if command == "bash -s" else command
        data = stdin.encode() if isinstance(stdin, str) else stdin
        try:
            # Not wait_for: 3.11's takes a cancellation for nothing in the turn of the answer, and
            # who watches in a loop would go on for ever.
            async with asyncio.timeout(timeout_seconds):
                done = await connection.run(
                    privileged,
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
        if done.exit_status is None or done.exit_status < 0:
            raise HostUnreachable("the SSH connection broke in mid-command", host=self.name)
        return done.exit_status, _text(done.stdout), _text(done.stderr)

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
            self._connection = await self._open()
        except (OSError, asyncssh.Error, TimeoutError) as error:
            translated = self._translated(error)
            self._failed = (time.monotonic(), translated)
            raise translated from error
        self._failed = None
        return self._connection

    async def _open(self) -> asyncssh.SSHClientConnection:
        ssh = self._ssh
        if not ssh.known_hosts.is_file():
            raise HostKeyRefused(
                f"ssh.known_hosts names {ssh.known_hosts}, which does not exist; write the hosts' "
                f"keys into it (`ssh-keyscan {self.host.ssh_address}` shows them) after comparing "
                "their fingerprints on the console",
                host=self.name,
            )
        key = self.host.ssh.key or ssh.key
        if key is not None and not key.is_file():
            raise InvalidInventory("ssh.key", (f"{key} does not exist",))
        options = asyncssh.SSHClientConnectionOptions(
            config=None,
            known_hosts=str(ssh.known_hosts),
            client_keys=[str(key)] if key else (),
            agent_path=None if key else (),
            connect_timeout=ssh.connect_timeout_seconds,
            login_timeout=ssh.connect_timeout_seconds,
            keepalive_interval=KEEPALIVE_SECONDS,
            gss_host=None,
            preferred_auth="publickey",
            encryption_algs=["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr"],
        )
        jump, port = ssh.jump_host, self.host.ssh.port or ssh.port
        limit = min(ANSWER_SECONDS, ssh.connect_timeout_seconds)
        if jump is not None and (self._jump is None or self._jump.is_closed()):
            self._jump = await asyncssh.connect(
                jump.address, jump.port, username=jump.user or ssh.user, options=options
            )
        return await asyncssh.connect(
            self.host.ssh_address,
            port,
            username=self._user,
            options=options,
            tunnel=self._jump or (),
            sock=await dial(self.host.ssh_address, port, limit) if self._jump is None else None,
        )

    async def _unopened(
        self, connection: asyncssh.SSHClientConnection, error: asyncssh.ChannelOpenError
    ) -> RunbookError:
        # Asked of the connection that was used, since another may be open by now; and a turn
        # later, for asyncssh says that one is closed a turn after it has lost it.
        await asyncio.sleep(0)
        if connection.is_closed():
            return self._translated(error)
        takes_none = error.code == asyncssh.OPEN_REQUEST_SESSION_FAILED
        told = refusals.no_command(self._user) if takes_none else refusals.no_session(error.reason)
        return AccessRefused(told, host=self.name)

    def _refusal(self, status: int, stderr: str) -> RunbookError:
        return AccessRefused(refusals.no_root(self._user, status, stderr), host=self.name)

    def _translated(self, error: Exception) -> RunbookError:
        port = self.host.ssh.port or self._ssh.port
        where = f"{self._user}@{self.host.ssh_address} port {port}"
        if isinstance(error, RunbookError):
            return error
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return HostKeyRefused(
                f"the SSH host key of {self.host.ssh_address} is not in {self._ssh.known_hosts}, "
                "or is another there; compare its fingerprint on the console, and put its line "
                "in (if the machine was reinstalled, in place of the old one)",
                host=self.name,
            )
        if isinstance(error, asyncssh.PermissionDenied):
            return AccessRefused(
                f"SSH login as {where} is denied; is the public key in authorized_keys?",
                host=self.name,
            )
        if isinstance(error, asyncssh.KeyImportError | asyncssh.KeyEncryptionError):
            key = self.host.ssh.key or self._ssh.key
            return AccessRefused(f"ssh.key {key} cannot be read: {error}", host=self.name)
        reason = str(error)
        if isinstance(error, TimeoutError):
            reason = "no answer in time"
        elif isinstance(error, ConnectionRefusedError):
            reason = "nothing listens there; is sshd running, and ssh.port right?"
        if self._ssh.jump_host is None:
            is_unanswered = isinstance(error, Unanswered)
        else:
            said = error.reason if isinstance(error, asyncssh.ChannelOpenError) else None
            is_unanswered = isinstance(error, TimeoutError) or said in SILENCES
        kind = HostSilent if is_unanswered and self._connection is None else HostUnreachable
        return kind(f"no SSH connection to {where}: {reason}", host=self.name)


class _Session:
    def __init__(
        self,
        host: str,
        process: asyncssh.SSHClientProcess[str],
        refusal: Callable[[int, str], RunbookError],
    ) -> None:
        self._host = host
        self._process = process
        self._refusal = refusal

    async def read_line(self, timeout_seconds: float) -> str:
        try:
            async with asyncio.timeout(timeout_seconds):
                line = await self._process.stdout.readline()
        except TimeoutError as error:
            raise CommandTimedOut(
                f"a held session said nothing for {timeout_seconds:g} s", host=self._host
            ) from error
        except (OSError, asyncssh.Error):
            return ""
        return line.rstrip("\n")

    async def ask(self, line: str, timeout_seconds: float) -> str:
        if self._process.is_closing():
            return ""
        try:
            self._process.stdin.write(line + "\n")
        except (OSError, asyncssh.Error):
            return ""
        return await self.read_line(timeout_seconds)

    def exit_status(self) -> int | None:
        return self._process.exit_status

    async def why_refused(self) -> RunbookError | None:
        with suppress(OSError, asyncssh.Error, TimeoutError):
            async with asyncio.timeout(1):
                said = str(await self._process.stderr.read())
                if said.startswith("sudo"):
                    return self._refusal(self.exit_status() or 1, said)
        return None


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def now() -> float:
    """Read the runner's clock, in seconds since the epoch."""
    return time.time()
