"""Progress: alive on a terminal, plain lines in a pipe, from the same records."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from tasks.engine.progress import Progress
from tasks.model.record import Event, Record
from tasks.report.terminal import table_lines

STEP = {"step": "install etcd on m1", "host": "m1", "task_run": "1"}
RECORDS = (
    Record(0, Event.RUN_STARTED, {"runbook": "r", "cluster": "c1", "run": "42", "hosts": ["m1"]}),
    Record(
        1,
        Event.PLANNED,
        {
            "goal": "three members",
            "steps": [{"host": None, "sentence": "make the authority"}],
            "findings": [{"severity": "warning", "finding": "m1: is slow"}],
        },
    ),
    Record(2, Event.STEP_STARTED, STEP),
    Record(3, Event.STEP_FAILED, {**STEP, "seconds": 0.1, "error": "HostUnreachable: gone"}),
    Record(4, Event.STEP_STARTED, STEP),
    Record(5, Event.STEP_FINISHED, {**STEP, "seconds": 1.5, "changed": True}),
    Record(6, Event.RUN_FINISHED, {"outcome": "done"}),
)


def show(*records: Record, is_terminal: bool) -> str:
    """Show records and return what was written."""
    written = StringIO()
    console = Console(file=written, force_terminal=is_terminal, width=100, color_system=None)
    with Progress(console) as progress:
        for record in records:
            progress(record)
            if record.details.get("outcome") == "done":
                progress.tell_done()
    return written.getvalue()


def test_a_pipe_gets_a_line_for_each_thing_that_ended() -> None:
    """Failures and their retries too, without control characters."""
    text = show(*RECORDS, is_terminal=False)
    assert "\x1b" not in text
    assert "  runner: make the authority" in text
    assert "warning: m1: is slow" in text
    assert "m1: install etcd: failed: HostUnreachable: gone (0.10 s)" in text
    assert "m1: install etcd: changed (1.50 s)" in text
    assert text.endswith("done: 1 step(s) changed something\n")


def test_a_run_that_looks_before_it_knows_what_it_does_has_one_title() -> None:
    """It is opened twice; another cluster's run has a title of its own."""
    other = Record(8, Event.RUN_STARTED, {**RECORDS[0].details, "cluster": "other"})
    text = show(RECORDS[0], *RECORDS, other, is_terminal=False)
    assert text.count(": run ") == 2


def test_a_step_that_the_operator_stopped_has_not_failed() -> None:
    """No exception's name is told for it."""
    stopped = Record(3, Event.STEP_FAILED, {**STEP, "seconds": 0.1, "error": "CancelledError: "})
    text = show(*RECORDS[:3], stopped, is_terminal=False)
    assert "m1: install etcd: interrupted (0.10 s)" in text
    assert "failed" not in text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_looks_like_markup_is_shown(is_terminal: bool) -> None:
    """A plan's sentence with an address of IPv6, an error with a list."""
    plan = {
        "goal": "https://[fd00::1]:2380",
        "steps": [{"host": "m1", "sentence": "dial https://[fd00::2]:2380"}],
        "findings": [{"severity": "warning", "finding": "m1: [bold]"}],
    }
    failed = {**STEP, "seconds": 0.1, "error": "[errno] at [fd00::3]"}
    records = (RECORDS[0], Record(1, Event.PLANNED, plan), Record(2, Event.STEP_FAILED, failed))
    text = show(*records, is_terminal=is_terminal)
    shown = ("[fd00::1]", "[fd00::2]", "[bold]")
    assert all(one in text for one in shown)
    assert is_terminal or "[errno] at [fd00::3]" in text


def test_a_terminal_gets_a_table_of_steps_by_hosts() -> None:
    """The last state of each step stays."""
    text = show(*RECORDS, is_terminal=True)
    last = text[text.rindex("step") :]
    assert "install etcd" in last
    assert "changed 1.50 s" in last


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_run_without_changes_says_so(is_terminal: bool) -> None:
    """The no-op case."""
    same = Record(5, Event.STEP_FINISHED, {**STEP, "seconds": 0.1, "changed": False})
    text = show(RECORDS[0], RECORDS[2], same, RECORDS[-1], is_terminal=is_terminal)
    assert "done: no changes" in text


def test_a_health_table_shows_members_and_problems() -> None:
    """As check_health tells it."""
    seen = {"columns": ["member"], "rows": [["m1"]], "problems": ["m1: is a learner"]}
    text = show(Record(0, Event.OBSERVED, seen), is_terminal=False)
    assert "m1" in text
    assert "- m1: is a learner" in text


def test_a_run_that_failed_is_not_called_done() -> None:
    """The error itself is the command line's to show."""
    failed = Record(6, Event.RUN_FINISHED, {"outcome": "CommandFailed: x"})
    assert "done" not in show(RECORDS[0], failed, is_terminal=False)


COLUMNS = ("member", "id", "version", "role", "raft lag", "healthy")
ROW = (
    "master01",
    "8e9e05c52164694d",
    "3.5.30",
    "follower",
    "0",
    "no: the server says why at length",
)


def test_a_table_fits_80_columns_and_breaks_no_word() -> None:
    """In a pipe as well as on a terminal, without box characters."""
    said = "10.77.0.11:2379 does not answer within 2 s, and no member has heard of it since"
    row = [*ROW[:-1], said]
    for width in (80, 60, 30):
        lines = table_lines(COLUMNS, [row, ROW], width)
        assert max(map(len, lines)) <= width
        words = " ".join(lines).split()
        assert set(" ".join(row).split()) <= set(words)
        assert "".join(lines).isascii()


def test_a_table_that_fits_is_one_line_a_row() -> None:
    """The columns stand below each other."""
    lines = table_lines(("member", "role"), [("m1", "leader"), ("master02", "")], 80)
    assert lines == ("member    role", "m1        leader", "master02")


def test_a_table_too_narrow_for_its_words_is_a_block_a_row() -> None:
    """Each column has its line."""
    assert table_lines(("member", "id", "role"), [("m1", "8e9e05", "leader")], 15) == (
        "m1",
        "  id    8e9e05",
        "  role  leader",
    )
