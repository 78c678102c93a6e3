"""A host without SSH: the same scripts in a local bash, as the current user, without sudo.

It has `HostConnection`'s interface and everything above its transport, so that a step behaves on
it as on a real host; `tests/contract/test_hosts.py` proves it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.hosts.batch import BEGIN, SHELL, hear, make_token, talking_script
from tasks.hosts.connection import HostConnection
from tasks.hosts.transfers import receive
from tasks.model.errors import CommandTimedOut, RunbookError
from tasks.model.machines import Host, Ssh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tasks.hosts.sessions import Session


class LocalHost(HostConnection):
    """This machine in the place of a host."""

    def __init__(self, name: str = "local") -> None:
        self.transcript: list[tuple[str, int]] = []
        super().__init__(
            Host(name=name),
            Ssh(user="root"),
            lambda _host, command, result: self.transcript.append((command.name, result.status)),
        )

    async def _execute(
        self, stdin: str | bytes, timeout_seconds: float, command: str | None = None
    ) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_shell(
            command or SHELL,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        data = stdin.encode() if isinstance(stdin, str) else stdin
        try:
            async with asyncio.timeout(timeout_seconds):
                out, err = await process.communicate(data)
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise CommandTimedOut("no answer in time", host=self.name) from error
        return process.returncode or 0, out.decode(), err.decode()

    async def _send(
        self, spoken: bytes, file: Path, timeout_seconds: float
    ) -> tuple[int, str, str]:
        content = await asyncio.to_thread(file.read_bytes)
        return await self._execute(spoken + content, timeout_seconds)

    async def _receive(
        self, spoken: bytes, token: str, size: int, target: Path, timeout_seconds: float
    ) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *SHELL.split(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(timeout_seconds):
            await receive(process, spoken, token, size, target)
            _, stderr = await process.communicate()
        return process.returncode or 0, stderr.decode()

    @asynccontextmanager
    async def hold(self, script: str) -> AsyncIterator[Session]:
        """Keep a script running for as long as the block."""
        process = await asyncio.create_subprocess_exec(
            *SHELL.split(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        token = make_token()
        if process.stdin is not None:
            process.stdin.write(talking_script(script, token).encode())
        try:
            yield LocalSession(process, token)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            async with asyncio.timeout(20):
                await process.wait()


class LocalSession:
    """A held script of a LocalHost."""

    def __init__(self, process: asyncio.subprocess.Process, token: str) -> None:
        self._process = process
        self._token = token

    async def read_line(self, timeout_seconds: float) -> str:
        """Read one line; empty when the session has ended."""
        assert self._process.stdout is not None
        async with asyncio.timeout(timeout_seconds):
            while line := (await self._process.stdout.readline()).decode():
                words = hear(line, self._token)
                if words is not None and words != BEGIN:
                    return words
        return ""

    async def ask(self, line: str, timeout_seconds: float) -> str:
        """Send a line and read one."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        return await self.read_line(timeout_seconds)

    def exit_status(self) -> int | None:
        """How the session ended; None while it runs."""
        return self._process.returncode

    async def why_refused(self) -> RunbookError | None:
        """There is no sudo that could refuse."""
        return None
