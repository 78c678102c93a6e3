"""What a diagnosis tells: a line each, with what is normal and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

FSYNC = "etcd_disk_wal_fsync_duration_seconds"
COMMIT = "etcd_disk_backend_commit_duration_seconds"


class State(IntEnum):
    """How a value compares with what is normal; the worst is the lowest."""

    BAD = 0
    NOTABLE = 1
    UNKNOWN = 2
    NORMAL = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was seen."""

    state: State
    what: str
    where: str
    value: str
    normal: str
    meaning: str


@dataclass(frozen=True, slots=True)
class MemberMetrics:
    """A member's own metrics: values by name, and histograms as cumulated buckets by upper bound.

    `peers` has the round trips by the peer's id. `now` and what began are seconds since the epoch.
    """

    values: dict[str, float]
    histograms: dict[str, tuple[tuple[float, float], ...]]
    peers: dict[str, tuple[tuple[float, float], ...]]

    def quantile(self, name: str, share: float = 0.99) -> float | None:
        """Tell below which bound that share of all measurements is; None: there are none."""
        return quantile(self.histograms.get(name, ()), share)


def quantile(buckets: tuple[tuple[float, float], ...], share: float) -> float | None:
    """Find the bound of the bucket in which a quantile is; the last but one where it is beyond."""
    total = buckets[-1][1] if buckets else 0.0
    if not total:
        return None
    finite = [bound for bound, _ in buckets if bound != float("inf")]
    reached = (bound for bound, count in buckets if count >= share * total)
    return min(next(reached, finite[-1]), finite[-1])
