"""Whose data are wrong: found by the majority of hashes at one revision, or refused. Pure.

Etcd's alarm says that data differ; before 3.6 it does not say whose, and it outlives its member.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.cluster import ClusterHealth
from tasks.model.corruption import INCONSISTENT, Comparison, HashRow
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.members import AlarmType, format_id, quorum
from tasks.model.plan import Plan, Stage, Step
from tasks.plans.reconfiguration import CHANGE

DISARM = Stage(CHANGE.number, "take the alarm CORRUPT back", is_serial=True)
"""After the members have changed, which its name comes after, and before API servers follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisarmCorrupt(Step):
    """Take CORRUPT back, when all voters have the same data."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whose data are wrong, by host; whom an earlier run has taken out; whether the alarm is on.

    `comparison` is the evidence.
    """

    comparison: Comparison
    guilty: tuple[HashRow, ...]
    unfinished: tuple[str, ...]
    alarmed: bool

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts whose members are replaced from the others."""
        return tuple(dict.fromkeys((*(row.host for row in self.guilty), *self.unfinished)))


def find_guilty(comparison: Comparison, voters: int) -> tuple[HashRow, ...]:
    """Name those whose data a majority of all voters does not have; raises Refused without one.

    A voter that could not be compared counts for nobody.
    """
    groups, needed = comparison.groups, quorum(voters)
    if groups and len(groups[0]) >= needed:
        return tuple(row for group in groups[1:] for row in group)
    most = len(groups[0]) if groups else 0
    raise Refused(
        f"nobody can say whose data are right: {most} of {voters} voters have the same, and "
        f"{needed} are needed. What was compared:\n  - "
        + "\n  - ".join(tell_hashes(comparison))
        + "\nBring back those that could not be compared and run this again; where data differ "
        "and there is no majority, a snapshot from before is the way (restore_cluster). Nothing "
        "was changed"
    )


def find_ended(comparison: Comparison) -> tuple[HashRow, ...]:
    """Name those that are down since they found, at their start, their own data to be others.

    The check compares with each peer, so that it tells whose data are wrong only where all who
    answer have the same.
    """
    if len(comparison.groups) != 1:
        return ()
    return tuple(row for row in comparison.unknown if is_ended(row))


def is_ended(row: HashRow) -> bool:
    """Whether a voter's last start ended by etcd's check of its data."""
    return f" {format_id(row.member_id)} {INCONSISTENT}" in f" {row.last_words}"


def tell_hashes(comparison: Comparison) -> tuple[str, ...]:
    """Write the evidence, a sentence for each voter."""
    return tuple(
        f"{row.label}: hash {row.data.hash} at revision {comparison.revision}, compacted at "
        f"{row.data.compact_revision}"
        if row.data
        else f"{row.label}: could not be compared: {tell_why(row)}"
        for row in comparison.rows
    )


def tell_why(row: HashRow) -> str:
    """Say why a voter could not be compared."""
    return row.why + (f"; etcd's last words there: {row.last_words}" if row.last_words else "")


def is_corrupt(health: ClusterHealth) -> bool:
    """Whether the alarm CORRUPT is raised, by whomever."""
    return any(alarm.type is AlarmType.CORRUPT for alarm in health.alarms)


def disarm_step(comparison: Comparison) -> DisarmCorrupt:
    """Plan to take the alarm back, once it is seen that all data are the same."""
    members = ", ".join(row.label for row in comparison.groups[0])
    return DisarmCorrupt(
        stage=DISARM,
        host=None,
        sentence="take the alarm CORRUPT back, also of members that are none any more, when all "
        f"voters have the data that {members} have",
    )


def plan_disarm(inventory: Inventory, verdict: Verdict) -> Plan:
    """Plan what is left where all voters have the same data: an alarm that outlived its reason."""
    steps = (disarm_step(verdict.comparison),) if verdict.alarmed else ()
    told = tell_hashes(verdict.comparison)
    return Plan("repair_corruption", inventory.name, "all members have the same data", steps, told)
