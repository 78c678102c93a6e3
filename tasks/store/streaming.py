"""From a stream of the event loop into a file of a store, encrypted with age where asked.

Files block, and so does age: they work in a thread, which asks the loop for the next part when it
has room for it. So no more than a part or two is in memory, however slow the place is.
"""

from __future__ import annotations

import asyncio
import io
import shutil
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pyrage

from tasks.store.places import Store, Unstorable

CHUNK_BYTES = 1 << 20


class _Parts(io.RawIOBase):
    """An asynchronous stream of parts, read from a thread."""

    def __init__(self, parts: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._parts = parts
        self._loop = loop
        self._rest = memoryview(b"")
        self.error: BaseException | None = None

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer
        """Read some of what comes next; raises what the stream raises, and keeps it."""
        if not self._rest:
            if self.error is not None:
                raise self.error
            try:
                asked = asyncio.run_coroutine_threadsafe(self._gather(), self._loop)
                self._rest = memoryview(asked.result())
            except BaseException as error:
                self.error = error
                raise
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def stop(self) -> None:
        """Let the next read end the work."""
        self.error = self.error or asyncio.CancelledError()
        self._rest = memoryview(b"")

    async def _gather(self) -> bytes:
        """Join parts, so that the thread need not ask for each."""
        gathered = bytearray()
        async for part in self._parts:
            gathered += part
            if len(gathered) >= CHUNK_BYTES:
                break
        return bytes(gathered)


async def store_stream(
    store: Store, name: str, parts: AsyncIterator[bytes], recipients: Sequence[str] = ()
) -> None:
    """Write a stream to a file, which is there once all of it has come, and else is not.

    Raises Unstorable, and what the stream raises.
    """
    stream = _Parts(parts, asyncio.get_running_loop())
    work = asyncio.ensure_future(asyncio.to_thread(_write, store, name, stream, recipients))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        stream.stop()
        await asyncio.gather(work, return_exceptions=True)
        raise


def _write(store: Store, name: str, stream: _Parts, recipients: Sequence[str]) -> None:
    try:
        with store.writing(name) as file:
            reader = io.BufferedReader(stream, CHUNK_BYTES)
            if recipients:
                pyrage.encrypt_io(reader, file, [_recipient(text) for text in recipients])
            else:
                shutil.copyfileobj(reader, file, CHUNK_BYTES)
    except (Unstorable, pyrage.EncryptError):
        if stream.error is not None:  # of which the store and age have only the words
            raise stream.error from None
        raise


def _recipient(text: str) -> Any:  # noqa: ANN401 - pyrage has no types
    kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
    return kind.Recipient.from_str(text)
