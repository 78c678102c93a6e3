"""A script that is held open on a host, over SSH, and whether ports are forwarded there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncssh

from tasks.hosts import refusals
from tasks.hosts.batch import BEGIN, hear
from tasks.model.errors import CommandTimedOut, RunbookError

ASK_SECONDS = 5.0
"""How long who was refused is asked why."""


async def find_forbidden(connection: asyncssh.SSHClientConnection, address: str, port: int) -> str:
    """Say that the server forwards nothing to there; empty where it does.

    It says so before it connects: no connection comes of port 0. A server that lets some
    ports be reached is asked for the one that is meant, too.
    """
    for to, asked in (("127.0.0.1", 0), (address, port)):
        try:
            _, writer = await connection.open_connection(to, asked)
        except asyncssh.ChannelOpenError as error:
            if error.code != asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
                return ""
            if asked:
                return refusals.no_tunnel(address, port)
        else:
            writer.close()
            return ""
    return ""


class HeldSession:
    """A talking script (see `batch`), spoken to line by line; `sessions.Session` over SSH."""

    def __init__(
        self,
        host: str,
        process: asyncssh.SSHClientProcess[str],
        token: str,
        refused: Callable[[int, str], Awaitable[RunbookError]],
    ) -> None:
        self._host = host
        self._process = process
        self._token = token
        self._refused = refused

    async def read_line(self, timeout_seconds: float) -> str:
        """Read one line of the script's; empty when the session has ended."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while line := await self._process.stdout.readline():
                    words = hear(line, self._token)
                    if words is not None and words != BEGIN:
                        return words
        except TimeoutError as error:
            raise CommandTimedOut(
                f"a held session said nothing for {timeout_seconds:g} s", host=self._host
            ) from error
        except (OSError, asyncssh.Error):
            return ""
        return ""

    async def ask(self, line: str, timeout_seconds: float) -> str:
        """Send a line and read one; empty when the session has ended."""
        if self._process.is_closing():
            return ""
        try:
            self._process.stdin.write(line + "\n")
        except (OSError, asyncssh.Error):
            return ""
        return await self.read_line(timeout_seconds)

    def exit_status(self) -> int | None:
        """Tell how the session ended; None while it runs."""
        return self._process.exit_status

    async def why_refused(self) -> RunbookError | None:
        """Tell why the script did not begin; None where it did, or where the connection broke."""
        with suppress(OSError, asyncssh.Error, TimeoutError):
            async with asyncio.timeout(ASK_SECONDS):
                said = str(await self._process.stderr.read())
                status = self.exit_status()
                if status is not None and f"\n{self._token} {BEGIN}\n" not in said:
                    return await self._refused(status, said)
        return None
