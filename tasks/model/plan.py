"""A plan: what a runbook will do, as data that an operator reads before anything changes."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain


@dataclass(frozen=True, slots=True, order=True)
class Stage:
    """When a step runs: a stage starts when the one before, by number, is done on every host.

    In a serial stage one step is done at a time, in the plan's order, with a gate before each that
    touches a host; in any other the hosts' tracks run all at once.
    """

    number: int
    title: str
    is_serial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One small, idempotent change, and the sentence that tells of it; host None is the runner.

    `essence` is the sentence without what clients change from one look to the next, as sizes and
    revisions: what a person approves. Where it is empty, that is the whole sentence.
    """

    stage: Stage
    host: str | None
    sentence: str
    essence: str = ""

    @property
    def heading(self) -> str:
        """The sentence's first part, by which a serial step is called where the gap is told."""
        return re.split(r"[;:]\s|\n", self.sentence)[0]


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps in order; none means that everything is as wanted."""

    runbook: str
    cluster: str
    goal: str
    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Tell plans apart by every sentence in them: members, ids, health, certificates, files."""
        told = [[step.host, step.essence or step.sentence] for step in self.steps]
        return hashlib.sha256(json.dumps([self.goal, told]).encode()).hexdigest()

    def stages(self) -> tuple[Stage, ...]:
        """List the stages that have steps, in order."""
        return tuple(sorted({step.stage for step in self.steps}))

    def in_order(self) -> tuple[Step, ...]:
        """List the steps in the order in which they are done; those side by side, host by host."""
        return tuple(
            step
            for stage in self.stages()
            for step in (
                (one for one in self.steps if one.stage == stage)
                if stage.is_serial
                else chain.from_iterable(self.tracks(stage).values())
            )
        )

    def cut_before(self, stage: Stage) -> tuple[Plan, Plan]:
        """Cut the plan in two: what comes before a stage, and what is left."""
        before = tuple(step for step in self.steps if step.stage < stage)
        rest = tuple(step for step in self.steps if step.stage >= stage)
        return replace(self, steps=before), replace(self, steps=rest)

    def hosts_of(self, kind: type[Step]) -> frozenset[str]:
        """Name the hosts that have a step of this kind."""
        return frozenset(step.host for step in self.steps if isinstance(step, kind) and step.host)

    def tracks(self, stage: Stage) -> dict[str | None, tuple[Step, ...]]:
        """Get a stage's steps by host: tracks run side by side, steps of one in turn."""
        hosts = dict.fromkeys(step.host for step in self.steps if step.stage is stage)
        return {
            host: tuple(s for s in self.steps if s.stage is stage and s.host == host)
            for host in hosts
        }


class Severity(StrEnum):
    """Whether a finding forbids the run."""

    REFUSAL = "refusal"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that preflight found; host None concerns the cluster as a whole."""

    severity: Severity
    host: str | None
    sentence: str

    def __str__(self) -> str:
        return f"{self.host}: {self.sentence}" if self.host else self.sentence
