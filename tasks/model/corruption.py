"""Members' data compared: each one's hash at the same revision."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.snapshots import DataHash

INCONSISTENT = "found data inconsistency with peers"
"""What a member ends for at its start, after its id, where InitialCorruptCheck compares it (3.4 to
3.7: EtcdServer.CheckInitialHashKV, corruptionChecker.InitialCheck)."""


@dataclass(frozen=True, slots=True)
class HashRow:
    """A voter's data at a revision; without a hash, why, and what its last start ended with."""

    host: str
    label: str
    member_id: int
    data: DataHash | None = None
    why: str = ""
    last_words: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All voters' hashes at one revision."""

    revision: int
    rows: tuple[HashRow, ...]

    @property
    def groups(self) -> tuple[tuple[HashRow, ...], ...]:
        """Those whose data are the same together, the largest group first."""
        found: dict[DataHash, list[HashRow]] = {}
        for row in self.rows:
            if row.data is not None:
                found.setdefault(row.data, []).append(row)
        return tuple(sorted(map(tuple, found.values()), key=len, reverse=True))

    @property
    def unknown(self) -> tuple[HashRow, ...]:
        """Those that could not be compared."""
        return tuple(row for row in self.rows if row.data is None)
