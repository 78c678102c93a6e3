"""The gap in service, as clients would have met it: counted from reads as they come.

Times are seconds on any one clock that only goes forward. Pure: it is told what happened.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EndpointGap:
    """What a client of one endpoint, which never fails over, met in one stage; in seconds."""

    name: str
    reads: int
    failures: int
    longest: float
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """What a careful client met in one stage, and what a client of each endpoint did.

    `seconds` is the stage's length; `reads` were acknowledged. `longest` is the longest time
    between two acknowledged reads that reaches into the stage, in seconds, with its whole length
    also where it began in the stage before. `writes` and `longest_write` are the same of a careful
    client that writes, None where none did.
    """

    stage: str
    seconds: float
    reads: int
    failures: int
    longest: float
    endpoints: tuple[EndpointGap, ...] = ()
    writes: int = 0
    longest_write: float | None = None


@dataclass(slots=True)
class _Count:
    reads: int = 0
    failures: int = 0
    longest: float = 0.0
    last_error: str | None = None


@dataclass(slots=True)
class Meter:
    """Counts one client's reads, stage by stage; what was before its first read is a gap too."""

    began: float
    stages: list[tuple[str, float]] = field(default_factory=list)
    _counts: list[_Count] = field(default_factory=list)
    _last: float = 0.0
    _last_stage: int = 0

    def __post_init__(self) -> None:
        self._last = self.began

    def mark(self, stage: str, time: float) -> None:
        """Begin a stage."""
        self.stages.append((stage, time))
        self._counts.append(_Count())

    def acknowledge(self, time: float) -> None:
        """Count a read that was acknowledged."""
        self._reach(time)
        self._counts[-1].reads += 1
        self._last, self._last_stage = time, len(self._counts) - 1

    def fail(self, error: str) -> None:
        """Count a read that failed."""
        self._counts[-1].failures += 1
        self._counts[-1].last_error = error

    def count(self, now: float) -> list[tuple[str, float, _Count]]:
        """List each stage with its length and what was counted, the gap that still lasts too."""
        self._reach(now)
        ends = [began for _, began in self.stages[1:]] + [now]
        return [
            (stage, end - began, one)
            for (stage, began), end, one in zip(self.stages, ends, self._counts, strict=True)
        ]

    def _reach(self, time: float) -> None:
        for one in self._counts[self._last_stage :]:
            one.longest = max(one.longest, time - self._last)


def read_meters(
    careful: Meter, unforgiving: dict[str, Meter], now: float, writer: Meter | None = None
) -> tuple[Gap, ...]:
    """Put what the careful client and those of each endpoint met together, stage by stage.

    `writer` counts the writes of a careful client, where there is one. A stage of no length, in
    which nothing was read, is left out.
    """
    by_endpoint = {name: meter.count(now) for name, meter in unforgiving.items()}
    written = writer.count(now) if writer else []
    gaps = []
    for index, (stage, seconds, one) in enumerate(careful.count(now)):
        endpoints = tuple(
            EndpointGap(name, its.reads, its.failures, its.longest, its.last_error)
            for name, rows in by_endpoint.items()
            for _, _, its in rows[index : index + 1]
        )
        if one.reads or one.failures or seconds >= 1:
            done = written[index][2] if written else None
            gaps.append(
                Gap(
                    stage,
                    seconds,
                    one.reads,
                    one.failures,
                    one.longest,
                    endpoints,
                    done.reads if done else 0,
                    done.longest if done else None,
                )
            )
    return tuple(gaps)


@dataclass(slots=True)
class Absences:
    """How long each API server was away, in seconds at most, while its node was changed.

    `longest` has those that came back, by host; `at_once` is how many were away together at most.
    """

    longest: dict[str, float] = field(default_factory=dict)
    at_once: int = 0
    _since: dict[str, float] = field(default_factory=dict)

    def leave(self, host: str, now: float) -> None:
        """Note that it is told to go, or would be, if it is there."""
        self._since.setdefault(host, now)

    def come_back(self, host: str, now: float) -> None:
        """Note that it is ready again; one of which it is not known when it went is not counted."""
        self.at_once = max(self.at_once, len(self._since))
        if (since := self._since.pop(host, None)) is not None:
            self.longest[host] = max(now - since, self.longest.get(host, 0.0))

    def forget(self, host: str) -> None:
        """Note that there was none to go."""
        self._since.pop(host, None)
