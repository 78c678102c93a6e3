"""How a run ended: a word for the operator, a name for Prefect, what was and was not done."""

from __future__ import annotations

import asyncio

import pytest

from tasks.model.errors import (
    CheckFailed,
    HostUnreachable,
    LockHeld,
    LockLost,
    PreflightFailed,
    RecordUnreachable,
    Refused,
    Rejected,
)
from tasks.model.outcome import CRASHED_RUN, outcome_of, work_of
from tasks.model.record import Event, Record


@pytest.mark.parametrize(
    ("error", "state", "kind", "word", "status"),
    [
        (None, "Completed", "COMPLETED", "done", 0),
        (PreflightFailed(("no",)), "Refused", "FAILED", "refused", 2),
        (RecordUnreachable("away"), "Refused", "FAILED", "refused", 2),
        (LockHeld("by another"), "LockedOut", "FAILED", "refused", 2),
        (Rejected("by Eve"), "Rejected", "CANCELLED", "rejected", 2),
        (CheckFailed("late"), "CheckFailed", "FAILED", "failed", 1),
        (HostUnreachable("gone"), "Failed", "FAILED", "failed", 1),
        (LockLost("gone"), "Failed", "FAILED", "failed", 1),
        (KeyError("x"), "Failed", "FAILED", "failed", 1),
        (asyncio.CancelledError(), "Interrupted", "CANCELLED", "interrupted", 1),
        (KeyboardInterrupt(), "Interrupted", "CANCELLED", "interrupted", 1),
    ],
)
def test_each_end_has_a_name_of_its_own(
    error: BaseException | None, state: str, kind: str, word: str, status: int
) -> None:
    """Told apart in the runs list; a failure is never called done."""
    outcome = outcome_of(error)
    assert (outcome.state, outcome.kind, outcome.word) == (state, kind, word)
    assert outcome.exit_status == status


def test_a_dead_runner_is_crashed() -> None:
    """Prefect's own word for it."""
    assert (CRASHED_RUN.state, CRASHED_RUN.kind) == ("Crashed", "CRASHED")


def lines(*performed: str, changed: bool, broken: str | None = None) -> list[Record]:
    """Write the journal of a run that planned two steps."""
    plan: list[dict[str, str | None]] = [
        {"host": "m1", "sentence": "one"},
        {"host": None, "sentence": "two"},
    ]
    return [
        Record(0, Event.PLANNED, {"goal": "a goal", "steps": plan}),
        Record(1, Event.STEP_FINISHED, {"step": "s", "seconds": 1.0, "changed": changed}),
        *(
            Record(2, Event.PERFORMED, {"host": one["host"], "sentence": one["sentence"]})
            for one in plan
            if one["sentence"] in performed
        ),
        *(Record(3, Event.BROKEN, one) for one in plan if one["sentence"] == broken),
    ]


def test_what_was_done_and_what_was_not_is_said() -> None:
    """Nothing, half, all."""
    assert work_of(lines(changed=False)).sentence() == (
        "Nothing was changed. Not done: m1: one, two."
    )
    assert work_of(lines("one", changed=True)).sentence() == (
        "1 step(s) changed something; 1 of 2 of the plan done, all of m1; not done: two."
    )
    assert work_of(lines("one", "two", changed=True)).sentence() == (
        "1 step(s) changed something; 2 of 2 of the plan done."
    )
    assert work_of([]).sentence() == "Nothing was changed."


def test_a_step_that_ended_in_the_middle_may_have_changed_something() -> None:
    """Though nothing says so: it is named, and neither done nor left."""
    work = work_of(lines(changed=False, broken="one"))
    assert work.has_changed
    assert work.sentence() == (
        "0 step(s) changed something; 0 of 2 of the plan done; ended in the middle of: m1: one; "
        "not done: two."
    )


def test_a_failure_says_what_was_changed_and_what_is_next() -> None:
    """In a line below; not a second time where the message says it."""
    half = work_of(lines("one", changed=True))
    failed = outcome_of(HostUnreachable("gone")).after(half)
    assert failed.lines() == (
        "failed: gone\n1 step(s) changed something; 1 of 2 of the plan done, all of m1; "
        "not done: two. Run it again: it starts from what is there."
    )
    assert "again" not in outcome_of(HostUnreachable("run it again")).after(half).work
    nothing = work_of([])
    assert outcome_of(Refused("no")).after(nothing).lines() == "refused: no\nNothing was changed."
    said = "away; nothing was changed"
    assert outcome_of(Refused(said)).after(nothing).lines() == f"refused: {said}"


def test_a_refusal_after_a_change_is_a_failure() -> None:
    """Exit status 2 says that nothing was changed."""
    assert outcome_of(LockHeld("no")).after(work_of(lines(changed=False))).exit_status == 2
    for work in (work_of(lines(changed=True)), work_of(lines(changed=False, broken="one"))):
        ended = outcome_of(LockHeld("no")).after(work)
        assert (ended.state, ended.word, ended.exit_status) == ("Failed", "failed", 1)
