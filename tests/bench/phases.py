"""Where a run's time went, from its journal: every instant belongs to what was going on in it.

Hosts are worked on side by side, so an instant is shared equally by the steps that were open in
it. An instant without an open step is the runner's own: Prefect's and Python's.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from tasks.model.record import Event, Record


class Phase(StrEnum):
    """What time is spent on; the value is the table's row."""

    CONNECT = "connect: SSH, the lock"
    PREFLIGHT = "preflight: observe, reach"
    KEYS = "keys: authority, certificates"
    FILES = "files: account, programs, configuration"
    ETCD = "etcd: start, verify"
    BEGINNING = "Prefect and Python: until the run begins"
    BETWEEN = "Prefect and Python: between steps"
    END = "Prefect and Python: record, exit"


OVERHEAD = (Phase.BEGINNING, Phase.BETWEEN, Phase.END)

STEPS = {
    "lock": Phase.CONNECT,
    "observe": Phase.PREFLIGHT,
    "reach": Phase.PREFLIGHT,
    "detect": Phase.PREFLIGHT,
    "make the authority": Phase.KEYS,
    "issue certificates": Phase.KEYS,
    "make the account": Phase.FILES,
    "make directories": Phase.FILES,
    "install": Phase.FILES,
    "write configuration": Phase.FILES,
    "start etcd": Phase.ETCD,
    "verify": Phase.ETCD,
    "read the cluster's health": Phase.ETCD,
}
"""How a step's name begins, and its phase."""


def phase_of(step: str) -> Phase:
    """Tell a step's phase; KeyError for a step that the table does not know."""
    for beginning, phase in STEPS.items():
        if step.startswith(beginning):
            return phase
    raise KeyError(f"tests/bench/phases.py does not know the step {step!r}")


def split_run(records: list[Record], began: float, ended: float) -> dict[Phase, float]:
    """Split the seconds from `began` to `ended` (the process, since the epoch) over the phases."""
    spent: dict[Phase, float] = dict.fromkeys(Phase, 0.0)
    open_steps: Counter[Phase] = Counter()
    position = began
    rest = Phase.BEGINNING

    def advance(time: float) -> None:
        nonlocal position
        working = open_steps.total()
        if working:
            for phase, count in open_steps.items():
                spent[phase] += (time - position) * count / working
        else:
            spent[rest] += time - position
        position = time

    last_step = max((r.time for r in records if r.event is Event.STEP_FINISHED), default=ended)
    for record in records:
        advance(record.time)
        if record.event is Event.RUN_STARTED:
            # The flow reads and hashes the programs before its first step.
            rest = Phase.FILES
        elif record.event is Event.STEP_STARTED:
            open_steps[phase_of(record.details["step"])] += 1
            rest = Phase.BETWEEN
        elif record.event in (Event.STEP_FINISHED, Event.STEP_FAILED):
            open_steps[phase_of(record.details["step"])] -= 1
            if record.time >= last_step:
                rest = Phase.END
    advance(ended)
    return spent


def overhead(spent: dict[Phase, float]) -> float:
    """Sum up what is Prefect's and Python's, in seconds."""
    return sum(spent[phase] for phase in OVERHEAD)
