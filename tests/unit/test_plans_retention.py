"""Which snapshots may go, over years of them and over months without any."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.model.snapshots import Keep, Manifest
from tasks.plans.retention import choose_expired
from tests.unit.plan_cases import snapshot_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = Keep(hourly=24, daily=7, weekly=5, monthly=12)


def taken(at: datetime, *, proven: bool = False) -> Manifest:
    """Make a manifest of that time."""
    return snapshot_of(at, proven=at if proven else None)


def left(snapshots: list[Manifest], keep: Keep = RULES) -> list[datetime]:
    """Say of what times snapshots stay, the newest first."""
    expired = {one.file for one in choose_expired(snapshots, keep)}
    return sorted((one.taken for one in snapshots if one.file not in expired), reverse=True)


def test_two_years_of_hours_are_days_weeks_and_months() -> None:
    """The newest of each period, and no more than the rules say."""
    stay = left([taken(NOW - timedelta(hours=hour)) for hour in range(2 * 365 * 24)])
    assert stay[:24] == [NOW - timedelta(hours=hour) for hour in range(24)]
    assert len(stay) <= 24 + 7 + 5 + 12
    assert NOW - stay[-1] < timedelta(days=366)
    assert len({(at.year, at.month) for at in stay}) == 12
    assert all(sooner - later <= timedelta(days=31) for sooner, later in pairwise(stay))


def test_a_schedule_that_stood_still_loses_nothing() -> None:
    """Periods without a snapshot do not count: what is old is not too old."""
    old = [taken(NOW - timedelta(days=day)) for day in range(400, 404)]
    assert left([taken(NOW), *old]) == [one.taken for one in (taken(NOW), *old)]


@pytest.mark.parametrize("number", range(4))
def test_the_newest_and_the_newest_proven_always_stay(number: int) -> None:
    """Whatever the rules: without them there would be nothing to go back to."""
    many = [taken(NOW - timedelta(days=day), proven=day in {number, 5}) for day in range(6)]
    nothing = Keep(hourly=0, daily=0, weekly=0, monthly=0)
    days = {0, number}
    assert left(many, nothing) == [NOW - timedelta(days=day) for day in sorted(days)]


@given(
    st.lists(st.integers(0, 10_000), min_size=1, max_size=40, unique=True),
    st.builds(Keep, **dict.fromkeys(Keep.model_fields, st.integers(0, 30))),
)
def test_clearing_again_clears_nothing_more(hours: list[int], keep: Keep) -> None:
    """What stays is what would stay, so that a run that died half-way is gone on with."""
    many = [taken(NOW - timedelta(hours=hour)) for hour in hours]
    expired = choose_expired(many, keep)
    for cut in {0, len(expired) // 2, len(expired)}:
        gone = {one.file for one in expired[:cut]}
        assert choose_expired([one for one in many if one.file not in gone], keep) == expired[cut:]
