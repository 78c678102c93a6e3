"""The journal: on disk line by line, and a dead run is told from one that goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.engine.journal import (
    Journal,
    Room,
    archive_recorded,
    find_undelivered,
    read_journal,
)
from tasks.model.chain import check_lines
from tasks.model.errors import JournalUnwritable
from tasks.model.record import Event, Record


def test_lines_come_back_as_they_were_written(tmp_path: Path) -> None:
    """And the listener sees each."""
    heard: list[Record] = []
    with Journal(tmp_path / "j.jsonl", heard.append) as journal:
        journal.append(Event.RUN_STARTED, run="1")
        journal.append(Event.STEP_STARTED, step="é")
    read = read_journal(tmp_path / "j.jsonl")
    assert [(r.event, r.details) for r in read] == [(r.event, r.details) for r in heard]
    assert read[1].details == {"step": "é"}


def test_a_half_written_last_line_is_left_out(tmp_path: Path) -> None:
    """A power cut in mid-write."""
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.append(Event.RUN_STARTED, run="1")
    with path.open("a") as file:
        file.write('{"time": 1, "event": "step-st')
    assert [record.event for record in read_journal(path)] == [Event.RUN_STARTED]


def test_a_line_after_a_half_written_one_is_whole_and_follows_what_was_whole(
    tmp_path: Path,
) -> None:
    """The next run writes the end of a dead one into its journal."""
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.append(Event.RUN_STARTED, run="1")
    with path.open("a") as file:
        file.write('{"time": 1, "event": "step-st')
    with Journal(path) as journal:
        journal.append(Event.RUN_FINISHED, outcome="died")
    assert [record.event for record in read_journal(path)] == [
        Event.RUN_STARTED,
        Event.RUN_FINISHED,
    ]
    checked = check_lines(path.read_bytes().splitlines())
    assert not checked.faults
    assert checked.remarks == ("line 2 is half-written: its runner died there, or its machine",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"two", b"TWO"), *lines[2:]], "line 2 is not"),
        (lambda lines: [lines[0], *lines[2:]], "line 2 is not"),
        (lambda lines: lines[1:], "line 1 is not"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "line 1 is not"),
        (lambda lines: [*lines[:2], lines[1], lines[2]], "line 3 is not"),
        (lambda lines: [lines[0], b"{}", *lines[1:]], "line 2 has no seal"),
        (lambda lines: [lines[0], b"garbage", *lines[2:]], "line 3 is not"),
    ],
)
def test_a_line_that_was_changed_added_or_taken_away_is_told(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    """By its number, or by that of the line after it; and what nobody touched is sound."""
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        for name in ("one", "two", "three"):
            journal.append(Event.STEP_STARTED, step=name)
    lines = path.read_bytes().splitlines()
    sound = check_lines(lines)
    assert (sound.faults, sound.remarks, len(sound.seals)) == ((), (), 3)
    faults = check_lines(change(lines)).faults
    assert faults
    assert faults[0].startswith(said)


def test_only_a_run_that_is_not_recorded_and_has_no_runner_is_delivered(tmp_path: Path) -> None:
    """Recorded, alive, dead or ended without its record."""
    with Journal(tmp_path / "1-recorded.jsonl") as journal:
        journal.append(Event.BEGUN, key="1")
        journal.append(Event.RECORDED)
    with Journal(tmp_path / "2-dead.jsonl") as journal:
        journal.append(Event.BEGUN, key="2")
    with Journal(tmp_path / "3-alive.jsonl") as journal:
        journal.append(Event.BEGUN, key="3")
        assert [path.stem for path in find_undelivered(tmp_path)] == ["2-dead"]
    assert [path.stem for path in find_undelivered(tmp_path)] == ["2-dead", "3-alive"]


def test_a_second_runner_that_would_deliver_is_kept_away(tmp_path: Path) -> None:
    """Two at once must not double anything."""
    with Journal(tmp_path / "j.jsonl"), pytest.raises(BlockingIOError):
        Journal(tmp_path / "j.jsonl")


def test_on_a_full_disk_nothing_begins_and_what_ends_is_kept_for_later() -> None:
    """The device says that there is no room; a step's end is told, a step's begin is refused."""
    heard: list[Record] = []
    with Journal(Path("/dev/full"), heard.append) as journal:
        journal.append(Event.STEP_FINISHED, step="one")
        with pytest.raises(JournalUnwritable, match=r"/dev/full cannot be written \(No space left"):
            journal.append(Event.STEP_STARTED, step="two")
        assert [record.details["step"] for record in heard] == ["one"]


def test_once_the_disk_was_full_nothing_begins_though_its_room_is_free(tmp_path: Path) -> None:
    """The room that a run has held is for telling its end; another journal of it may use it."""
    room = Room(tmp_path)
    with Journal(Path("/dev/full"), room=room) as full, Journal(tmp_path / "j", room=room) as other:
        other.append(Event.STEP_STARTED, step="one")
        with pytest.raises(JournalUnwritable):
            full.append(Event.STEP_STARTED, step="two")
        with pytest.raises(JournalUnwritable, match="No space left"):
            other.append(Event.STEP_STARTED, step="three")
        other.append(Event.STEP_FINISHED, step="one")
    told = [(r.event, r.details["step"]) for r in read_journal(tmp_path / "j")]
    assert told == [(Event.STEP_STARTED, "one"), (Event.STEP_FINISHED, "one")]


def test_the_files_of_runs_are_archived_when_they_are_delivered_and_old(tmp_path: Path) -> None:
    """Not one that Prefect lacks something of, and not one of yesterday."""
    for name, last in (("old", Event.RECORDED), ("new", Event.RECORDED), ("behind", Event.ENDED)):
        path = tmp_path / f"{name}.jsonl"
        with Journal(path) as journal:
            journal.append(Event.BEGUN, key=name)
            journal.append(last)
        os.utime(path, (0, 1000 if name == "new" else 10))
    archive_recorded(tmp_path, 500)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "behind.jsonl",
        "new.jsonl",
        "old.jsonl.gz",
    ]
    assert [r.event for r in read_journal(tmp_path / "old.jsonl")] == [Event.BEGUN, Event.RECORDED]
    assert [p.stem for p in find_undelivered(tmp_path)] == ["behind"]


def test_the_journal_is_the_runners_alone(tmp_path: Path) -> None:
    """Its directory is not for others."""
    with Journal(tmp_path / "c1" / "j.jsonl"):
        assert (tmp_path / "c1").stat().st_mode & 0o077 == 0
