"""What is told of a run while it goes on: the lines of its journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Event(StrEnum):
    """What a line tells of."""

    RUN_STARTED = "run-started"
    PLANNED = "planned"
    OBSERVED = "observed"
    MEASURED = "measured"
    SNAPSHOT = "snapshot"
    REHEARSED = "rehearsed"
    PROVEN = "proven"
    PROGRESS = "progress"
    STEP_STARTED = "step-started"
    COMMAND = "command"
    STEP_FINISHED = "step-finished"
    STEP_FAILED = "step-failed"
    RUN_FINISHED = "run-finished"
    PERFORMED = "performed"
    BROKEN = "broken"

    # The lines of a run's own file, beside the journals of the clusters that it opened.
    BEGUN = "begun"
    KNOWN = "known"
    OPENED = "opened"
    ARTIFACT = "artifact"
    ENDED = "ended"
    RECORDED = "recorded"

    @property
    def is_boundary(self) -> bool:
        """Whether the line must be on disk before anything else happens."""
        return self not in (Event.COMMAND, Event.PERFORMED, Event.BROKEN)

    @property
    def begins_work(self) -> bool:
        """Whether something would be done after this line, which must not be without it."""
        return self in (Event.BEGUN, Event.RUN_STARTED, Event.STEP_STARTED)


@dataclass(frozen=True, slots=True)
class Record:
    """One line; `time` is seconds since the epoch, `details` is JSON."""

    time: float
    event: Event
    details: dict[str, Any] = field(default_factory=dict)
