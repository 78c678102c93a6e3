"""One run's journal: a JSON line for each thing that happened, on disk at each step boundary.

Prefect's history can lose task runs when a process dies; this does not. The runner holds a lock
on its journal while it lives, so that a journal without an end whose lock is free is a dead
run's. A line that a power cut left half-written is the last one, and readers skip it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from tasks.model.record import Event, Record


class Journal:
    """The journal of a run that goes on; `on_record` sees each line after it is written."""

    def __init__(self, path: Path, on_record: Callable[[Record], None] | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._on_record = on_record
        self._file = path.open("a", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, event: Event, **details: object) -> None:
        """Write a line; at a step boundary it is on disk when this returns."""
        record = Record(time.time(), event, details)
        line = {"time": round(record.time, 6), "event": event.value, **details}
        self._file.write(json.dumps(line, default=str) + "\n")
        self._file.flush()
        if event.is_boundary:
            os.fsync(self._file.fileno())
        if self._on_record is not None:
            self._on_record(record)


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


def find_dead_runs(directory: Path) -> Iterator[Path]:
    """Find the journals whose runner died before it wrote an end."""
    for path in sorted(directory.glob("*/*.jsonl")):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - (1 << 20)))
            if f'"event": "{Event.RUN_FINISHED}"'.encode() in file.read():
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
        yield path
