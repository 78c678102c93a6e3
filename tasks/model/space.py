"""A database's space: how large, how much of it is in use, what fills it, what was given back.

Sizes are in bytes. `size` is the file's, which alone counts against the quota; it never shrinks but
by a defragmentation. `in_use` is what pages with data take.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

DEPTH = 2
"""Folders of a key that a report may name; the key's own name is never told."""
FLAT = 16
"""Letters of a key without folders that a report may name."""
KEPT_ROWS = 1000
TREND = timedelta(days=14)
SHORTEST_TREND = timedelta(hours=6)

_LETTERS = re.compile(rb"/?[A-Za-z]*")


@dataclass(frozen=True, slots=True)
class SpaceRow:
    """One look at a cluster: its largest member, the smallest quota, the highest revision."""

    at: datetime
    revision: int
    size: int
    in_use: int
    quota: int | None = None


@dataclass(frozen=True, slots=True)
class Prefix:
    """The keys that begin alike: how many, and by a sample what they take and how often written.

    `size` and `writes` are estimates; `writes` counts what was written since the keys were made,
    and `written` is what those writes had in bytes.
    """

    name: str
    keys: int
    size: int
    writes: int
    written: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What fills a database, the largest first; not `is_whole` where time or bounds ended it."""

    keys: int
    prefixes: tuple[Prefix, ...]
    is_whole: bool

    def most_written(self, count: int) -> tuple[Prefix, ...]:
        """List the prefixes that made the most history, the most of it first; none that made none.

        They may have few keys and little in use: keys that are written again and again.
        """
        again = [prefix for prefix in self.prefixes if prefix.writes > prefix.keys]
        return tuple(sorted(again, key=lambda one: -one.written)[:count])


@dataclass(frozen=True, slots=True)
class DiskRoom:
    """What the file system of a member's database has left, and what lies beside the database.

    `leftovers` are copies of defragmentations that died, and databases that a leader has sent.
    """

    free: int
    mount: str
    leftovers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Freed:
    """A defragmentation that was done."""

    host: str
    seconds: float
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Growth:
    """How fast the data grow, in bytes a day, and the days until they fill the quota.

    None: they do not grow, or no quota is known.
    """

    bytes_a_day: float
    days_left: float | None


def prefix_of(key: bytes) -> bytes:
    """Cut a key down to what a report may name: its first folders, else its first letters.

    Kubernetes' keys begin with /registry; a resource of a group has one folder more.
    """
    folders = key.split(b"/")[:-1]
    named = [folder for folder in folders if folder]
    if not named:
        letters = _LETTERS.match(key)
        return (letters.group() if letters else b"")[:FLAT] or key[:1]
    depth = DEPTH + (len(named) > 1 and named[0] == b"registry" and b"." in named[1])
    kept: list[bytes] = []
    for folder in folders:
        if sum(map(bool, kept)) == depth:
            break
        kept.append(folder)
    return b"/".join(kept) + b"/"


def prefix_end(prefix: bytes) -> bytes:
    """Get the first key after all that begin so; a zero byte stands for the end of all."""
    for at in range(len(prefix) - 1, -1, -1):
        if prefix[at] < 0xFF:  # noqa: PLR2004 - the last byte
            return prefix[:at] + bytes([prefix[at] + 1])
    return b"\0"


def thin(rows: Sequence[SpaceRow]) -> tuple[SpaceRow, ...]:
    """Keep a record small: once it is full, every second row of its older half goes."""
    if len(rows) <= KEPT_ROWS:
        return tuple(rows)
    half = len(rows) // 2
    return (*rows[:half:2], *rows[half:])


def revision_before(
    rows: Sequence[SpaceRow], when: datetime, oldest: datetime | None = None
) -> int | None:
    """Get the highest revision that is surely as old as that; None where none was noted.

    What was noted before `oldest` does not count.
    """
    able = (row for row in rows if row.at <= when and (oldest is None or row.at >= oldest))
    return max((row.revision for row in able), default=None)


def find_growth(rows: Sequence[SpaceRow]) -> Growth | None:
    """Fit a line through what was in use in the last fortnight; None where that is too short."""
    if not rows:
        return None
    last = rows[-1]
    recent = [row for row in rows if row.at >= last.at - TREND]
    if last.at - recent[0].at < SHORTEST_TREND:
        return None
    days = [(row.at - recent[0].at) / timedelta(days=1) for row in recent]
    used = [float(row.in_use) for row in recent]
    middle, mean = sum(days) / len(days), sum(used) / len(used)
    spread = sum((day - middle) ** 2 for day in days)
    slope = sum((d - middle) * (u - mean) for d, u in zip(days, used, strict=True)) / spread
    left = (last.quota - last.in_use) / slope if last.quota and slope > 0 else None
    return Growth(slope, left if left is None else max(left, 0.0))


def mebibytes(size: float) -> str:
    """Write a size as people compare it."""
    return f"{size / (1 << 20):.1f} MiB"
