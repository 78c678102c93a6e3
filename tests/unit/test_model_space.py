"""What a report may name of a key, what is kept of earlier looks, and what they foretell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tasks.model.space import (
    KEPT_ROWS,
    Growth,
    SpaceRow,
    find_growth,
    prefix_end,
    prefix_of,
    revision_before,
    thin,
)

NOW = datetime(2026, 11, 27, 22, tzinfo=UTC)
GIB = 1 << 30


def row(days: float, in_use: int = GIB, quota: int | None = 2 * GIB) -> SpaceRow:
    """Make a look of some days ago; its revision rises by one a day."""
    return SpaceRow(NOW - timedelta(days=days), round(1000 - days), 2 * in_use, in_use, quota)


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        (b"/registry/secrets/default/token-x", b"/registry/secrets/"),
        (b"/registry/apps.example.org/widgets/ns/name", b"/registry/apps.example.org/widgets/"),
        (b"/registry/health", b"/registry/"),
        (b"calico/v1/host/name", b"calico/v1/"),
        (b"compact_rev_key", b"compact"),
        (b"/top", b"/top"),
        (b"sk-4f9a02", b"sk"),
        (b"0123secret", b"0"),
        (b"averyveryverylongname", b"averyveryverylon"),
        (b"\xff\xfe", b"\xff"),
    ],
)
def test_a_prefix_never_is_a_key_of_its_own(key: bytes, prefix: bytes) -> None:
    """Two folders, one more for Kubernetes' groups; of what has none, its first letters."""
    assert prefix_of(key) == prefix
    assert key.startswith(prefix)
    assert key < prefix_end(prefix) or prefix_end(prefix) == b"\0"


@pytest.mark.parametrize(("prefix", "end"), [(b"a/", b"a0"), (b"a\xff", b"b"), (b"\xff", b"\0")])
def test_the_end_of_a_prefix_is_the_next_key(prefix: bytes, end: bytes) -> None:
    """As etcd's clients compute it."""
    assert prefix_end(prefix) == end


def test_only_what_is_surely_old_enough_is_compacted() -> None:
    """By looks of that age and older, but not older than what is told."""
    rows = (row(3), row(2), row(0.001))
    hour = NOW - timedelta(hours=1)
    assert revision_before(rows, hour) == 998
    assert revision_before(rows, NOW) == 1000
    assert revision_before((), NOW) is None
    assert revision_before(rows, hour, NOW - timedelta(days=1)) is None


def test_a_record_stays_small_and_keeps_its_ends() -> None:
    """The older half is thinned out."""
    rows = [row(days) for days in range(KEPT_ROWS + 1, 0, -1)]
    kept = thin(rows)
    assert len(kept) < KEPT_ROWS
    assert (kept[0], kept[-1]) == (rows[0], rows[-1])
    assert thin(rows[:3]) == tuple(rows[:3])


@pytest.mark.parametrize(
    ("rows", "growth"),
    [
        ((), None),
        ((row(0),), None),
        ((row(0.1), row(0)), None),
        ((row(2, GIB), row(0, GIB)), Growth(0.0, None)),
        ((row(2, GIB), row(0, GIB // 2)), Growth(-GIB / 4, None)),
        ((row(2, GIB), row(0, 3 * GIB // 2)), Growth(GIB / 4, 2.0)),
        ((row(30, 0), row(1, GIB), row(0, GIB)), Growth(0.0, None)),
        ((row(2, GIB, None), row(0, 3 * GIB // 2, None)), Growth(GIB / 4, None)),
    ],
)
def test_growth_tells_the_days_that_are_left(
    rows: tuple[SpaceRow, ...], growth: Growth | None
) -> None:
    """From at least six hours, and no more than a fortnight; what does not grow has no end."""
    assert find_growth(rows) == growth
