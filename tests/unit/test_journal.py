"""The journal: on disk line by line, and a dead run is told from one that goes on."""

from __future__ import annotations

from pathlib import Path

from tasks.journal.journal import Journal, find_dead_runs, read_journal
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


def test_only_a_run_without_an_end_and_without_a_runner_is_dead(tmp_path: Path) -> None:
    """Finished, alive, dead."""
    cluster = tmp_path / "c1"
    with Journal(cluster / "1-finished.jsonl") as journal:
        journal.append(Event.RUN_STARTED, run="1")
        journal.append(Event.RUN_FINISHED, outcome="done")
    with Journal(cluster / "2-dead.jsonl") as journal:
        journal.append(Event.RUN_STARTED, run="2")
    with Journal(cluster / "3-alive.jsonl") as journal:
        journal.append(Event.RUN_STARTED, run="3")
        assert [path.stem for path in find_dead_runs(tmp_path)] == ["2-dead"]
    assert [path.stem for path in find_dead_runs(tmp_path)] == ["2-dead", "3-alive"]


def test_the_journal_is_the_runners_alone(tmp_path: Path) -> None:
    """Its directory is not for others."""
    with Journal(tmp_path / "c1" / "j.jsonl"):
        assert (tmp_path / "c1").stat().st_mode & 0o077 == 0
