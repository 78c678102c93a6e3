"""One run's journal: a JSON line for each thing that happened, on disk at each step boundary.

Prefect's history can lose task runs when a process dies; this does not. A line that a power cut
left half-written is the last one, and readers skip it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self


class Event(StrEnum):
    """What a line tells of."""

    RUN_STARTED = "run-started"
    PLANNED = "planned"
    STEP_STARTED = "step-started"
    COMMAND = "command"
    STEP_FINISHED = "step-finished"
    STEP_FAILED = "step-failed"
    RUN_FINISHED = "run-finished"

    @property
    def is_boundary(self) -> bool:
        """Whether the line must be on disk before anything else happens."""
        return self is not Event.COMMAND


@dataclass(frozen=True, slots=True)
class Record:
    """One line; `time` is seconds since the epoch, `details` is JSON."""

    time: float
    event: Event
    details: dict[str, Any] = field(default_factory=dict)


class Journal:
    """The journal of a run that goes on; `on_record` sees each line after it is written."""

    def __init__(self, path: Path, on_record: Callable[[Record], None] | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._on_record = on_record
        self._file = path.open("a", encoding="utf-8")

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
