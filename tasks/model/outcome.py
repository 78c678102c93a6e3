"""How a run ended, in the words that the operator, Prefect's runs list and the journal share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from tasks.model.errors import Refused, RunbookError
from tasks.model.record import Event, Record

COMPLETED, CANCELLED, FAILED, CRASHED = "COMPLETED", "CANCELLED", "FAILED", "CRASHED"
BY_A_PERSON = frozenset({"Rejected", "Interrupted"})
NOTHING = "Nothing was changed."
MANY = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """`word` and `message` are the line that the operator reads; `state` is Prefect's name.

    `work` says what the run changed, in the line below.
    """

    state: str
    word: str
    message: str
    exit_status: int
    work: str = ""

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

    def after(self, work: Work) -> Outcome:
        """Say what was changed before this end; a refusal after a change is a failure."""
        end = self
        if work.has_changed and self.exit_status == Refused.exit_status:
            end = replace(self, state="Failed", word="failed", exit_status=1)
        said = work.sentence()
        if end.state == "Failed" and (work.broken or work.left) and "again" not in self.message:
            said += " Run it again: it starts from what is there."
        return replace(end, work=said)

    def lines(self) -> str:
        """Write it as the operator reads it."""
        said = f"{self.word}: {self.message}" if self.message else self.word
        is_told = not self.work or NOTHING.lower().rstrip(".") in self.message.lower()
        return said if is_told else f"{said}\n{self.work}"


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
            "Rejected": "rejected",
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
    """What the journals of a run say was done, and what of its plan was not.

    `steps` are the lines of those that ended, with the time at which they did, in seconds.

    `settled` are the hosts for which all that was planned is done.
    """

    goal: str
    steps: tuple[dict[str, Any], ...]
    done: tuple[str, ...]
    left: tuple[str, ...]
    broken: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()

    @property
    def has_changed(self) -> bool:
        """Whether the run changed anything, or may have."""
        return bool(self.done or self.changes or self.broken)

    @property
    def changes(self) -> int:
        """How many steps say that they changed something."""
        return sum(row.get("changed") is True for row in self.steps)

    def count(self) -> str:
        """Say how much it is, where the lists stand below."""
        if not self.has_changed:
            return NOTHING
        said = f"{self.changes} step(s) changed something"
        if count := len(self.done) + len(self.broken) + len(self.left):
            said += f"; {len(self.done)} of {count} of the plan done"
        return f"{said}."

    def sentence(self) -> str:
        """Say it in one sentence."""
        if not self.has_changed:
            return NOTHING + (f" Not done: {_list(self.left)}." if self.left else "")
        said = self.count().rstrip(".")
        if self.settled and (self.broken or self.left):
            said += f", all of {', '.join(self.settled)}"
        if self.broken:
            said += f"; ended in the middle of: {_list(self.broken)}"
        return said + (f"; not done: {_list(self.left)}." if self.left else ".")


def work_of(records: Iterable[Record]) -> Work:
    """Read it from the lines of the journals; a plan that was made again replaces the first."""
    goal, planned, steps = "", list[tuple[str | None, str]](), list[dict[str, Any]]()
    done, broken = list[str](), list[str]()
    for record in records:
        details = record.details
        if record.event is Event.PLANNED:
            goal, done, broken = details["goal"], [], []
            planned = [
                (step["host"], _sentence(step["host"], step["sentence"]))
                for step in details["steps"]
            ]
        elif record.event in (Event.STEP_FINISHED, Event.STEP_FAILED):
            steps.append({**details, "ended": record.time})
        elif record.event is Event.PERFORMED:
            done.append(_sentence(details["host"], details["sentence"]))
        elif record.event is Event.BROKEN:
            broken.append(_sentence(details["host"], details["sentence"]))
    left = tuple(one for _, one in planned if one not in (*done, *broken))
    unsettled = {host for host, one in planned if one not in done}
    settled = dict.fromkeys(host for host, _ in planned if host and host not in unsettled)
    return Work(goal, tuple(steps), tuple(done), left, tuple(broken), tuple(settled))


def _list(sentences: tuple[str, ...]) -> str:
    more = f", and {len(sentences) - MANY} more" if len(sentences) > MANY else ""
    return ", ".join(sentences[:MANY]) + more


def _sentence(host: str | None, sentence: str) -> str:
    first = sentence.splitlines()[0] if sentence else ""
    return f"{host}: {first}" if host else first
