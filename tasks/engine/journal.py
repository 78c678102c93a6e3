"""One run's journal: a JSON line for each thing that happened, on disk at each step boundary.

Prefect's history can lose task runs when a process dies; this does not. The runner holds a lock
on its journal while it lives, so that a journal without an end whose lock is free is a dead
run's. A line that a power cut left half-written is the last one, and readers skip it.

A disk that fills up in mid-run does not break off what has begun: lines that tell of an end wait
in memory for the next line. A line that begins something is on disk, or the thing does not begin.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from tasks.model.errors import JournalUnwritable
from tasks.model.record import Event, Record

TAIL = 4096


class Journal:
    """The journal of a run that goes on; `on_record` sees each line after it is written.

    Raises OSError when the file cannot be made, and BlockingIOError when another one holds it.
    """

    def __init__(self, path: Path, on_record: Callable[[Record], None] | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._on_record = on_record
        self._file = path.open("ab", buffering=0)
        self._waiting = b""
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, event: Event, **details: object) -> None:
        """Write a line; at a step boundary it is on disk when this returns.

        Raises JournalUnwritable for a line that begins work, when the disk takes no more.
        """
        record = Record(time.time(), event, details)
        line = {"time": round(record.time, 6), "event": event.value, **details}
        self._waiting += (json.dumps(line, default=str) + "\n").encode()
        try:
            self._write(to_disk=event.is_boundary)
        except OSError as error:
            if event.begins_work:
                raise JournalUnwritable(
                    f"{self.path} cannot be written ({error.strerror}), and nothing is done that "
                    "is not written down: no further step was begun. Make room there and run it "
                    "again; it starts from what is there"
                ) from error
        if self._on_record is not None:
            self._on_record(record)

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


def read_journal(path: Path) -> list[Record]:
    """Read a journal's lines; a half-written last one is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        records.append(Record(row.pop("time"), Event(row.pop("event")), row))
    return records


def find_undelivered(directory: Path) -> Iterator[Path]:
    """Find the runs whose record is not complete yet, and that no runner holds, oldest first."""
    for path in sorted(directory.glob("*.jsonl")):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            if f'"event": "{Event.RECORDED}"'.encode() in file.read():
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
        yield path
