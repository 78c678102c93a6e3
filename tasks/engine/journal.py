"""One run's journal: a JSON line for each thing that happened, on disk at each step boundary.

Prefect's history can lose task runs when a process dies; this does not. The runner holds a lock
on its journal while it lives, so that a journal without an end whose lock is free is a dead
run's. A line that a power cut left half-written is the last one, and readers skip it.

A disk that fills up in mid-run does not break off what has begun: lines that tell of an end are
written into the room that the run has held for its end. A line that begins something is on disk, or
the thing does not begin. Each line has a seal, which depends on all lines before it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

from tasks.engine import archive
from tasks.model.chain import read_seal, seal_line
from tasks.model.errors import JournalUnwritable
from tasks.model.record import Event, Record

TAIL = 4096
LINE = 1 << 20
"""More than any line has, in bytes."""
ROOM_BYTES = 8 << 20


class Room:
    """Disk that a run holds from its begin for telling its end, Prefect's database included.

    A file without a name: a runner that dies leaves nothing behind. Raises OSError when the
    directory, or its disk, cannot take it.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.lack = ""
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - held by the run
        try:
            os.posix_fallocate(self._file.fileno(), 0, ROOM_BYTES)
        except OSError:
            self._file.close()
            raise

    def free(self, lack: str = "") -> None:
        """Let the room be used; with what the disk lacks, nothing begins in this run any more."""
        self.lack = self.lack or lack
        self._file.close()


class Journal:
    """The journal of a run that goes on; `on_record` sees each line after it is written.

    Raises OSError when the file cannot be made, and BlockingIOError when another one holds it.
    """

    def __init__(
        self,
        path: Path,
        on_record: Callable[[Record], None] | None = None,
        room: Room | None = None,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._room = room
        self._on_record = on_record
        self._file = path.open("ab", buffering=0)
        self._waiting = b""
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._seal, is_half = read_end(path)
        if is_half:
            self._waiting = b"\n"  # what a power cut left is a line of its own

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, event: Event, **details: object) -> None:
        """Write a line; at a step boundary it is on disk when this returns.

        Raises JournalUnwritable for a line that begins work, when the disk takes no more.
        """
        if event.begins_work and self._room is not None and self._room.lack:
            raise self._unwritable(self._room.lack)
        record = Record(time.time(), event, details)
        row = {"time": round(record.time, 6), "event": event.value, **details}
        before = self._waiting, self._seal
        line, self._seal = seal_line(row, self._seal)
        self._waiting += line
        try:
            self._write(to_disk=event.is_boundary)
        except OSError as error:
            lack = error.strerror or str(error)
            if event.begins_work:
                self._waiting, self._seal = before
            if self._room is not None:
                self._room.free(lack)
                with contextlib.suppress(OSError):
                    self._write(to_disk=True)
            if event.begins_work:
                raise self._unwritable(lack) from error
        if self._on_record is not None:
            self._on_record(record)

    def _unwritable(self, lack: str) -> JournalUnwritable:
        return JournalUnwritable(
            f"{self.path} cannot be written ({lack}), and nothing is done that is not written "
            "down: no further step was begun. Make room there and run it again; it starts from "
            "what is there"
        )

    def _write(self, *, to_disk: bool) -> None:
        end = os.fstat(self._file.fileno()).st_size
        try:
            left = self._waiting
            while left:
                left = left[self._file.write(left) :]
            if to_disk:
                os.fsync(self._file.fileno())
        except OSError:
            # No half line stays before the next one.
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise
        self._waiting = b""


def read_end(path: Path) -> tuple[str, bool]:
    """Read a journal's last seal, and whether its last line is half-written."""
    if path.suffix == archive.SUFFIX:
        lines = archive.read_content(path).splitlines(keepends=True)
    else:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LINE))
            lines = file.read(LINE).splitlines(keepends=True) if path.is_file() else []
    is_half = bool(lines) and not lines[-1].endswith(b"\n")
    return next(filter(None, map(read_seal, reversed(lines))), ""), is_half


def read_journal(path: Path) -> list[Record]:
    """Read a journal's lines, archived or not; a half-written last one is left out."""
    return parse_journal(archive.read_content(path))


def parse_journal(content: bytes) -> list[Record]:
    """Read the lines of a journal's content, as `read_journal` does."""
    records = []
    for line in content.decode(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        row.pop("chain", None)
        records.append(Record(row.pop("time"), Event(row.pop("event")), row))
    return records


def find_undelivered(directory: Path) -> Iterator[Path]:
    """Find the runs whose record is not complete yet, and that no runner holds, oldest first."""
    for path in sorted(directory.glob("*.jsonl")):
        with path.open("rb") as file:
            if _is_recorded(file):
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
        yield path


def archive_recorded(directory: Path, before: float) -> None:
    """Archive the files of runs whose record was complete before a moment, in the epoch's seconds.

    They hold the runs' artifacts, which Prefect's own retention deletes.
    """
    for path in directory.glob("*.jsonl"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if os.fstat(file.fileno()).st_mtime < before and _is_recorded(file):
                archive.archive(path)


def is_held(path: Path) -> bool:
    """Whether a runner holds a journal: its run goes on."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _is_recorded(file: BinaryIO) -> bool:
    file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
    return f'"event": "{Event.RECORDED}"'.encode() in file.read()
