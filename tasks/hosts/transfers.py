"""Files of any size through a process on a host: in behind its script, or out behind a mark."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import IO, Any, Protocol

from tasks.hosts.batch import BEGIN

PART_BYTES = 2 << 20


class Process(Protocol):
    """A process on a host whose streams are bytes."""

    @property
    def stdin(self) -> Any:  # noqa: ANN401 - asyncssh's writer
        """Where its input goes."""
        ...

    @property
    def stdout(self) -> Any:  # noqa: ANN401 - asyncssh's reader
        """Where its output comes from."""
        ...


async def send(process: Process, spoken: bytes, file: Path) -> None:
    """Send a script and a file behind it, as fast as the host takes it."""
    with file.open("rb") as source:
        process.stdin.write(spoken)
        while part := await asyncio.to_thread(source.read, PART_BYTES):
            process.stdin.write(part)
            await process.stdin.drain()
        process.stdin.write_eof()


async def receive(process: Process, spoken: bytes, token: str, size: int, target: Path) -> None:
    """Send a script, and write the bytes behind its first mark into a file; it may be cut off."""
    process.stdin.write(spoken)
    process.stdin.write_eof()
    mark, seen = f"\n{token} {BEGIN}\n".encode(), b""
    while mark not in seen:
        if not (part := await process.stdout.read(PART_BYTES)):
            return
        seen += part
    with target.open("wb") as file:
        left = await _write(file, seen.partition(mark)[2], size)
        while left and (part := await process.stdout.read(PART_BYTES)):
            left = await _write(file, part, left)


async def _write(file: IO[bytes], part: bytes, left: int) -> int:
    await asyncio.to_thread(file.write, part[:left])
    return max(left - len(part), 0)
