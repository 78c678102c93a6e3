"""Which snapshots may go: all but the newest of each hour, day, week and month that count."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from tasks.model.snapshots import Keep, Manifest

_PERIODS: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "hourly": lambda at: (at.year, at.month, at.day, at.hour),
    "daily": lambda at: (at.year, at.month, at.day),
    "weekly": lambda at: at.isocalendar()[:2],
    "monthly": lambda at: (at.year, at.month),
}


def choose_expired(snapshots: Iterable[Manifest], keep: Keep) -> tuple[Manifest, ...]:
    """Choose the snapshots that no rule keeps, the oldest first.

    A period without a snapshot does not count, so that a schedule which stood still for months
    deletes nothing. The newest one and the newest that was proven always stay.
    """
    newest_first = sorted(snapshots, key=lambda one: one.taken, reverse=True)
    stay = {one.file for one in newest_first[:1]}
    stay |= {one.file for one in [one for one in newest_first if one.proven][:1]}
    for name, period in _PERIODS.items():
        newest: dict[tuple[int, ...], str] = {}
        for one in newest_first:
            newest.setdefault(period(one.taken.astimezone(UTC)), one.file)
        stay |= set(list(newest.values())[: getattr(keep, name)])
    return tuple(one for one in reversed(newest_first) if one.file not in stay)
