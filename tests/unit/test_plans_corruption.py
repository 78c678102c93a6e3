"""Whose data are wrong: a majority of all voters says it, or nobody does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.hosts.batch import Result
from tasks.hosts.hashes import parse_hash
from tasks.model.corruption import Comparison, HashRow
from tasks.model.errors import Refused
from tasks.model.members import Alarm, AlarmType
from tasks.model.snapshots import DataHash
from tasks.plans.corruption import (
    DISARM,
    DisarmCorrupt,
    Verdict,
    find_ended,
    find_guilty,
    plan_disarm,
    tell_hashes,
)
from tasks.plans.dependents import APISERVERS
from tasks.plans.reconfiguration import CHANGE
from tests.unit.plan_cases import inventory
from tests.unit.test_plans_health import cluster


def compare(*hashes: int | None) -> Comparison:
    """Make a comparison of voters m1, m2, …; None could not be compared."""
    return Comparison(
        7,
        tuple(
            HashRow(f"m{i}", f"m{i}", i, DataHash(hash=h, compact_revision=3), "")
            if h is not None
            else HashRow(f"m{i}", f"m{i}", i, None, "it does not answer")
            for i, h in enumerate(hashes, 1)
        ),
    )


@pytest.mark.parametrize(
    ("hashes", "guilty"),
    [
        ((5, 5, 5), ()),
        ((5, 5, 6), ("m3",)),
        ((6, 5, 5), ("m1",)),
        ((5, 5, None), ()),
        ((5, 5, 5, 6, 7), ("m4", "m5")),
        ((5,), ()),
    ],
)
def test_a_majority_says_whose_data_are_wrong(
    hashes: tuple[int | None, ...], guilty: tuple[str, ...]
) -> None:
    """Of all voters, not of those that answer."""
    found = find_guilty(compare(*hashes), len(hashes))
    assert tuple(row.host for row in found) == guilty


@pytest.mark.parametrize(
    "hashes", [(5, 6), (5, 6, 7), (5, 6, None), (5, None, None), (5, 5, 6, 6, None), ()]
)
def test_without_a_majority_nobody_is_guilty(hashes: tuple[int | None, ...]) -> None:
    """The refusal has the evidence."""
    comparison = compare(*hashes)
    with pytest.raises(Refused, match="nobody can say whose data are right") as refused:
        find_guilty(comparison, len(hashes) or 3)
    assert all(text in str(refused.value) for text in tell_hashes(comparison))


@pytest.mark.parametrize(
    ("hashes", "words", "ended"),
    [
        ((5, 5, None), "discovery failed: 3 found data inconsistency with peers", True),
        ((5, 5, None), "3 found data inconsistency with peers", True),
        ((5, 5, None), "discovery failed: 33 found data inconsistency with peers", False),
        ((5, 5, None), "discovery failed: 2 found data inconsistency with peers", False),
        ((5, 5, None), "closed etcd server", False),
        ((5, 5, None), "", False),
        ((5, 5, 5), "3 found data inconsistency with peers", False),
        ((5, 6, None, 5, 5), "3 found data inconsistency with peers", False),
    ],
)
def test_who_is_down_by_etcds_own_comparison_is_guilty(
    hashes: tuple[int | None, ...], words: str, ended: bool
) -> None:
    """By its own id in its last start's words; where two that answer differ it may be right."""
    comparison = compare(*hashes)
    rows = tuple(replace(r, last_words=words if r.host == "m3" else "") for r in comparison.rows)
    comparison = replace(comparison, rows=rows)
    assert [row.host for row in find_ended(comparison)] == ["m3"] * ended
    if words and not hashes[2]:
        assert words in tell_hashes(comparison)[2]


def test_an_alarm_that_outlived_its_reason_is_all_that_is_left() -> None:
    """And where there is none, nothing is."""
    for alarmed in (True, False):
        verdict = Verdict(compare(5, 5, 5), (), (), alarmed=alarmed)
        assert verdict.hosts == ()
        steps = plan_disarm(inventory(), verdict).steps
        assert [type(step) for step in steps] == [DisarmCorrupt] * alarmed


def test_whom_an_earlier_run_took_out_joins_again() -> None:
    """Each host once."""
    verdict = Verdict(compare(5, 5, 6), (compare(5, 5, 6).rows[2],), ("m3", "m4"), alarmed=True)
    assert verdict.hosts == ("m3", "m4")


def test_the_alarm_goes_after_the_members_and_before_what_writes() -> None:
    """API servers could not start while no write is taken."""
    assert CHANGE < DISARM < APISERVERS


def test_whose_data_are_wrong_counts_for_nothing_and_the_alarm_forbids_nothing() -> None:
    """So that what heals it may be planned as for a member that is down."""
    health = cluster(Alarm(2, AlarmType.CORRUPT), Alarm(3, AlarmType.NOSPACE))
    judged = health.condemning(frozenset({2}))
    assert [m.is_healthy for m in judged.seen_members()] == [True, False, True]
    assert [alarm.type for alarm in judged.alarms] == [AlarmType.NOSPACE]
    assert health.condemning(frozenset()).find_alarms() != health.find_alarms()


def test_what_etcdctl_says_of_a_hash_is_read() -> None:
    """The compaction is left out where there was none."""
    said = '[{"Endpoint":"x","HashKV":{"header":{"revision":9},"hash":12%s}}]'
    for more, compacted in ((',"compact_revision":4', 4), (',"compact_revision":-1', 0), ("", 0)):
        result = Result("ask", 0, said % more, "", 0.1)
        assert parse_hash(result) == DataHash(hash=12, compact_revision=compacted)
