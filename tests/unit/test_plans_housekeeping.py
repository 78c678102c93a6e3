"""Which journals are compressed, and which replaced files may go from a host."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tasks.model.retention import Backup, Retention
from tasks.plans.housekeeping import (
    ArchiveJournals,
    Leavings,
    RemoveBackups,
    choose_backups,
    plan_housekeeping,
)
from tests.unit.plan_cases import inventory as made

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
RULES = Retention(backups_days=30, backups_keep=2)


def backup(days: int, run: str = "aaaaaaaa", suffix: str = "") -> Backup:
    """Make what a run of so many days ago has replaced."""
    return Backup(f"{NOW - timedelta(days=days):%Y%m%dT%H%M%SZ}-{run}{suffix}", 1024)


OLD, OLDER = backup(90), backup(100)
NEW = (backup(1), backup(2))


@pytest.mark.parametrize(
    ("backups", "settled", "rules", "chosen"),
    [
        pytest.param([], {"aaaaaaaa"}, RULES, [], id="none"),
        pytest.param([OLD, *NEW, OLDER], {"aaaaaaaa"}, RULES, [OLDER, OLD], id="old"),
        pytest.param([OLD, *NEW], set(), RULES, [], id="unfinished, or another machine's"),
        pytest.param([OLD, OLDER], {"aaaaaaaa"}, RULES, [], id="the newest so many stay"),
        pytest.param([OLD, *NEW], {"aaaaaaaa"}, Retention(), [], id="no rule"),
        pytest.param(
            [backup(90, suffix="-refused"), *NEW],
            {"aaaaaaaa"},
            RULES,
            [backup(90, suffix="-refused")],
            id="what a restart has refused",
        ),
        pytest.param(
            [Backup("by-hand", 1), Backup("20200101T000000Z-aaaaaaaa.mine", 1), *NEW],
            {"aaaaaaaa"},
            RULES,
            [],
            id="none of a run's",
        ),
    ],
)
def test_only_what_is_old_and_done_may_go(
    backups: list[Backup], settled: set[str], rules: Retention, chosen: list[Backup]
) -> None:
    """Never the newest, never what nobody knows to be done."""
    assert list(choose_backups(backups, settled, rules, NOW)) == chosen


def test_the_plan_says_what_goes_where() -> None:
    """Journals on the runner by their age, replaced files by host; nothing to do is no step."""
    inventory = made(retention=RULES)
    host = inventory.hosts[0].name
    times = {"old.jsonl": NOW - timedelta(days=61), "new.jsonl": NOW - timedelta(days=59)}
    seen = Leavings(times, (), {host: (OLD, *NEW)}, {"aaaaaaaa"}, {"other": "no way"})
    plan = plan_housekeeping(inventory, seen, NOW)
    journals, backups = plan.steps
    assert isinstance(journals, ArchiveJournals)
    assert journals.names == ("old.jsonl",)
    assert isinstance(backups, RemoveBackups)
    assert (backups.host, backups.names) == (host, (OLD.name,))
    assert "1.0 MB" in backups.sentence
    assert plan.warnings == ("other is not looked at: no way",)
    assert plan_housekeeping(inventory, Leavings({}, (), {}, ()), NOW).steps == ()
