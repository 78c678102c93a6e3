"""How a run ended, in the words that the operator, Prefect's runs list and the journal share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tasks.model.errors import RunbookError
from tasks.model.record import Event, Record

COMPLETED, CANCELLED, FAILED, CRASHED = "COMPLETED", "CANCELLED", "FAILED", "CRASHED"
BY_A_PERSON = frozenset({"Rejected", "Interrupted"})
MANY = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """`word` and `message` are the line that the operator reads; `state` is Prefect's name."""

    state: str
    word: str
    message: str
    exit_status: int

    @property
    def kind(self) -> str:
        """The type of Prefect's state.

        What a person stopped is Cancelled; everything else that did not do what was asked, a
        refusal included, is Failed: the dashboard counts those, and nobody misses a schedule
        that is refused each night.
        """
        if self.state == "Completed":
            return COMPLETED
        if self.state == "Crashed":
            return CRASHED
        return CANCELLED if self.state in BY_A_PERSON else FAILED


DONE = Outcome("Completed", "done", "", 0)
DRY = Outcome("Completed", "done", "this was a dry run", 0)
INTERRUPTED = Outcome("Interrupted", "interrupted", "run it again, it starts from what is there", 1)
CRASHED_RUN = Outcome("Crashed", "crashed", "the runner died; run it again", 1)


def outcome_of(error: BaseException | None) -> Outcome:
    """Name how a run ended by what it raised; what is no error of ours is a fault of the code."""
    if error is None:
        return DONE
    if isinstance(error, RunbookError):
        word = {
            "Refused": "refused",
            "Rejected": "refused",
            "LockedOut": "refused",
            "NotSeen": "not seen",
        }
        said = word.get(error.state_name, "failed")
        return Outcome(error.state_name, said, str(error), error.exit_status)
    if isinstance(error, Exception):
        text = f"{type(error).__name__}: {error} (a fault of the runbook's own)"
        return Outcome("Failed", "failed", text, 1)
    return INTERRUPTED


@dataclass(frozen=True, slots=True)
class Work:
    """What the journals of a run say was done, and what of its plan was not."""

    goal: str
    steps: tuple[dict[str, Any], ...]
    done: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def changes(self) -> int:
        """How many steps say that they changed something."""
        return sum(row.get("changed") is True for row in self.steps)

    def sentence(self) -> str:
        """Say it in one sentence."""
        if not self.done and not self.changes:
            return "Nothing was changed." + (f" Not done: {self._list()}." if self.left else "")
        said = f"{self.changes} step(s) changed something"
        if self.done or self.left:
            said += f"; {len(self.done)} of {len(self.done) + len(self.left)} of the plan done"
        return said + (f"; not done: {self._list()}." if self.left else ".")

    def _list(self) -> str:
        more = f", and {len(self.left) - MANY} more" if len(self.left) > MANY else ""
        return ", ".join(self.left[:MANY]) + more


def work_of(records: Iterable[Record]) -> Work:
    """Read it from the lines of the journals; a plan that was made again replaces the first."""
    goal, planned, steps, done = "", list[str](), list[dict[str, Any]](), list[str]()
    for record in records:
        details = record.details
        if record.event is Event.PLANNED:
            goal, done = details["goal"], []
            planned = [_sentence(step["host"], step["sentence"]) for step in details["steps"]]
        elif record.event in (Event.STEP_FINISHED, Event.STEP_FAILED):
            steps.append(details)
        elif record.event is Event.PERFORMED:
            done.append(_sentence(details["host"], details["sentence"]))
    left = tuple(one for one in planned if one not in done)
    return Work(goal, tuple(steps), tuple(done), left)


def _sentence(host: str | None, sentence: str) -> str:
    first = sentence.splitlines()[0] if sentence else ""
    return f"{host}: {first}" if host else first
