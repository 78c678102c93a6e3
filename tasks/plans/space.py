"""Giving space back: compaction, defragmentation one member at a time, alarms taken back. Pure.

What is free in a database after a compaction is not known before it, so members may have a step
that does nothing when its turn comes: the rules are asked again then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointStatus
from tasks.model.inventory import Inventory
from tasks.model.members import AlarmType, DesiredMember
from tasks.model.plan import Finding, Plan, Severity, Stage, Step
from tasks.model.pointers import parameter
from tasks.model.space import DiskRoom, SpaceRow, Survey, mebibytes, revision_before
from tasks.plans.health import corrupt_names, corrupt_sentence
from tasks.plans.quotas import plan_raises, tell_raise

COMPACT = Stage(1, "compact", is_serial=True)
DEFRAGMENT = Stage(2, "defragment, one member at a time, the leader last", is_serial=True)
DISARM = Stage(4, "take the alarm back", is_serial=True)

DISARM_SHARE = 0.9
"""Of the quota: an alarm is taken back when every member's database is below (etcd-defrag's)."""
WORTH_SHARE = 0.05
"""Of a database that is nearly full: less is not worth the wait."""
RESTART_SECONDS = 2
"""Beside the copy, of a member that is stopped for it."""
BYTES_A_SECOND = 100 << 20
"""Of what is in use, written by a defragmentation; for the seconds that a plan tells."""
COPY_SHARE = 1.1
"""Of what is in use: what a defragmentation needs on the disk for its copy."""
KEEP = timedelta(minutes=5)
"""Of history, where nobody says more: what kube-apiserver keeps (--etcd-compaction-interval)."""
OLD_ENOUGH = 3
"""Times what is to be kept: while the alarm is raised, older looks are too old to free enough."""
FEWEST = 3
"""Members of which one can be stopped."""
FIRST_REVISION = 1
"""Of a cluster that nobody has written to."""
MOST_LAG = 1000
"""Raft entries that a member may be behind before another one is defragmented."""
NEVER = {"3.5.6": "its defragmentation may end it"}
"""Versions that must not be defragmented while they serve."""
TOLD_PREFIXES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactHistory(Step):
    """Forget the history before a revision, `after` some time for those that read it."""

    revision: int
    after: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class DefragmentMember(Step):
    """Write a member's database anew, if the rules still say so at its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisarmAlarms(Step):
    """Take NOSPACE back, when every member's database is below the threshold."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """Up to which revision, None: not at all; why; and how long the run waits before it."""

    revision: int | None
    why: str
    after: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Rules:
    """When a member is defragmented: by the share that is free, the size, the share of the quota.

    The first two are those of OpenShift's operator and of etcd-defrag's examples; the size is no
    reason to wait near the quota. `stops`: each is stopped meanwhile.
    """

    free_percent: int = 45
    at_least_mb: int = 100
    quota_percent: int = 80
    stops: bool = False

    def is_due(self, status: EndpointStatus, quota: int | None, *, alarmed: bool) -> bool:
        """Whether a member has enough to give back, or is in the alarm's way.

        In NOSPACE nothing is written, and what the last transaction of a compaction has freed is
        counted as in use until the next one: there the size alone is believed.
        """
        if alarmed and (quota is None or status.db_size >= DISARM_SHARE * quota):
            return True
        free = status.db_size - status.db_size_in_use
        if self._is_full(status, quota) and free > WORTH_SHARE * status.db_size:
            return True
        is_large = status.db_size >= self.at_least_mb << 20
        return is_large and free * 100 >= status.db_size * self.free_percent

    def may_be_due(self, status: EndpointStatus, quota: int | None) -> bool:
        """Whether a member has enough to give back as soon as a compaction frees it."""
        return status.db_size >= self.at_least_mb << 20 or self._is_full(status, quota)

    def _is_full(self, status: EndpointStatus, quota: int | None) -> bool:
        return quota is not None and status.db_size * 100 >= quota * self.quota_percent


@dataclass(frozen=True, slots=True)
class SpaceSight:
    """What the plan goes by; quotas and rooms by host, as far as they are known.

    `rows` are earlier looks. `has_apiservers`: Kubernetes' API servers compact it by themselves.
    `raised` is what this run raises every lower quota to.
    """

    members: tuple[DesiredMember, ...]
    health: ClusterHealth
    quotas: Mapping[str, int]
    rooms: Mapping[str, DiskRoom]
    rows: tuple[SpaceRow, ...]
    survey: Survey
    has_apiservers: bool
    now: datetime
    raised: int = 0

    @property
    def limits(self) -> dict[str, int]:
        """The quotas as this run leaves them."""
        return {name: max(quota, self.raised) for name, quota in self.quotas.items()}

    @property
    def is_alarmed(self) -> bool:
        """Whether a full database keeps the cluster from writes."""
        return any(alarm.type is AlarmType.NOSPACE for alarm in self.health.alarms)

    @property
    def statuses(self) -> dict[str, EndpointStatus]:
        """What the members that answer say, by host."""
        return {e.name: e.status for e in self.health.endpoints if e.status}


def find_space_obstacles(
    members: tuple[DesiredMember, ...], health: ClusterHealth
) -> tuple[str, ...]:
    """List what forbids to touch a database now: every member must be there and not lag behind."""
    if corrupt := corrupt_names(health):
        return (corrupt_sentence(corrupt),)
    behind = {e.name: e.status.raft_applied_index for e in health.endpoints if e.status}
    furthest = max(behind.values(), default=0)
    lagging = (
        f"{name}: is {furthest - index} entries behind the furthest member"
        for name, index in behind.items()
        if furthest - index > MOST_LAG
    )
    return (*health.find_faults(members), *lagging)


def find_space_findings(seen: SpaceSight) -> tuple[Finding, ...]:
    """Refuse what forbids the run, and tell of disks that may not take a copy."""
    obstacles = find_space_obstacles(seen.members, seen.health)
    never = (
        Finding(Severity.REFUSAL, name, f"is etcd {s.version}: {NEVER[s.version]}; upgrade it")
        for name, s in seen.statuses.items()
        if s.version in NEVER
    )
    return (
        *(Finding(Severity.REFUSAL, None, text) for text in obstacles),
        *never,
        *(
            Finding(Severity.WARNING, name, text)
            for name, status in seen.statuses.items()
            if (text := tell_no_room(status, seen.rooms.get(name)))
        ),
    )


def refuse_stops(inventory: Inventory, seen: SpaceSight) -> tuple[Finding, ...]:
    """Refuse to stop members where that ends the service, or a kubelet would start them."""
    if inventory.has_pods:
        said = "static pods are not stopped for it; run it without stop_members"
    elif len(seen.members) < FEWEST:
        said = f"{len(seen.members)} members cannot lose one: nobody would be served meanwhile"
    else:
        return ()
    return (Finding(Severity.REFUSAL, None, said),)


def tell_no_room(status: EndpointStatus, room: DiskRoom | None) -> str | None:
    """Say that a member's disk cannot take the copy that a defragmentation writes; None: it can."""
    needed = int(status.db_size_in_use * COPY_SHARE)
    if room is None or room.free >= needed:
        return None
    beside = f"; beside the database lie {', '.join(room.leftovers)}" if room.leftovers else ""
    return (
        f"a defragmentation needs {mebibytes(needed)} for its copy and {room.mount} has "
        f"{mebibytes(room.free)}: it is done only when a compaction leaves that little in use, or "
        f"when {mebibytes(needed - room.free)} are freed there{beside}"
    )


def choose_revision(
    seen: SpaceSight, keep: timedelta | None, keep_revisions: int | None
) -> Compaction:
    """Choose up to which revision the history goes, so that what was asked for stays.

    How old a revision is, is known from earlier looks alone. While the alarm is raised nobody
    writes: all history goes, unless the operator or API servers want some of it, for which the
    run waits where no look is of the right age.
    """
    if seen.has_apiservers and not seen.is_alarmed:
        return Compaction(None, "API servers compact it every five minutes, as they need it")
    present = max((s.revision for s in seen.statuses.values()), default=0)
    if keep_revisions is not None:
        until = present - keep_revisions
        why = f"the last {keep_revisions} revisions stay"
        return Compaction(until if until > 0 else None, why)
    if seen.is_alarmed and keep is None and not seen.has_apiservers:
        return Compaction(present, "all history goes, since nobody writes")
    keep = KEEP if keep is None else keep
    minutes = keep / timedelta(minutes=1)
    oldest = seen.now - OLD_ENOUGH * keep if seen.is_alarmed else None
    noted = revision_before(seen.rows, seen.now - keep, oldest)
    if noted is not None and noted > FIRST_REVISION:
        return Compaction(noted, f"what was written in the last {minutes:g} minutes stays")
    if seen.is_alarmed:
        why = f"after {minutes:g} minutes, for which what reads older revisions has them"
        return Compaction(present, why, keep)
    unknown = (
        f"no look that is {minutes:g} minutes old has noted a revision, so that it is not known "
        "what is older: the next run knows"
    )
    unwritten = f"nothing was written until {minutes:g} minutes ago"
    return Compaction(None, unknown if noted is None else unwritten)


def plan_space(inventory: Inventory, seen: SpaceSight, rules: Rules, history: Compaction) -> Plan:
    """Plan to compact, to defragment followers first, to raise quotas, to take the alarm back."""
    steps: list[Step] = []
    compacts = history.revision is not None
    if history.revision is not None:
        steps.append(
            CompactHistory(
                stage=COMPACT,
                host=None,
                revision=history.revision,
                after=history.after,
                sentence=f"compact the history before revision {history.revision}: {history.why}",
                essence=f"compact the history: {history.why}",
            )
        )
    order = sorted(seen.statuses, key=lambda name: name == seen.health.leader_name)
    for name in order:
        sentence = _defragment(name, seen, rules, compacts=compacts)
        if sentence is not None:
            stopped = ", stopped meanwhile" if rules.stops else ""
            essence = f"defragment {name}{stopped}"
            step = DefragmentMember(stage=DEFRAGMENT, host=name, sentence=sentence, essence=essence)
            steps.append(step)
    if seen.raised:
        steps += plan_raises(inventory, order, seen.quotas)
    if seen.is_alarmed:
        steps.append(
            DisarmAlarms(
                stage=DISARM,
                host=None,
                sentence="take the alarm NOSPACE back; every database must be below "
                f"{DISARM_SHARE:.0%} of its quota by then",
            )
        )
    goal = f"databases are small again: {_due(seen, rules)}"
    warnings = [*_waiting(inventory, seen, steps, rules), *tell_fillers(seen)]
    if not compacts:
        warnings.append(f"the history is not compacted: {history.why}")
    return Plan("reclaim_space", inventory.name, goal, tuple(steps), tuple(warnings))


def _defragment(name: str, seen: SpaceSight, rules: Rules, *, compacts: bool) -> str | None:
    status, quota = seen.statuses[name], seen.limits.get(name)
    free = status.db_size - status.db_size_in_use
    handing = "not while it leads: " if len(seen.members) > 1 else ""
    seconds = status.db_size_in_use / BYTES_A_SECOND
    if rules.is_due(status, quota, alarmed=seen.is_alarmed):
        if not compacts and tell_no_room(status, seen.rooms.get(name)):
            return None
        return (
            f"defragment {name}: {handing}{mebibytes(free)} of {mebibytes(status.db_size)} are "
            f"free{' before the compaction' if compacts else ''}; "
            + (
                f"stopped for about {seconds + RESTART_SECONDS:.0f} s, for which no other member "
                "may be lost"
                if rules.stops
                else f"its clients wait about {max(seconds, 0.1):.1f} s"
            )
        )
    if not compacts or not rules.may_be_due(status, quota):
        return None
    return (
        f"defragment {name}: {handing}only if the compaction leaves enough of its "
        f"{mebibytes(status.db_size)} free ({mebibytes(free)} are now)"
    )


def _due(seen: SpaceSight, rules: Rules) -> str:
    due = (
        name
        for name, status in seen.statuses.items()
        if rules.is_due(status, seen.limits.get(name), alarmed=seen.is_alarmed)
    )
    return ", ".join(due) or "nothing is due by now"


def _waiting(
    inventory: Inventory, seen: SpaceSight, steps: Sequence[Step], rules: Rules
) -> list[str]:
    if not any(isinstance(step, DefragmentMember) for step in steps):
        return []
    if rules.stops:
        return [
            "a member that misses more writes than the leader keeps of its log (5000, by etcd's "
            "snapshot-catchup-entries) gets the whole database from it, and all clients may wait "
            "for that: with a large database, stop members at a quiet hour only"
        ]
    if len(seen.members) == 1:
        return ["it is the only member: nobody is served while its database is written anew"]
    told = (
        "a member answers nobody while its database is written anew, and clients that know several "
        "members, API servers too, go on sending it their share of requests, which wait"
    )
    if not refuse_stops(inventory, seen):
        told += (
            f"; with {parameter(stop_members=True)} it is stopped meanwhile, so that they go to "
            "another one at once, and no other member may be lost in that time"
        )
    return [told]


def tell_fillers(seen: SpaceSight) -> list[str]:
    """Say what fills the database, by prefixes; the last sentence says how much is history."""
    survey = seen.survey
    if not survey.prefixes:
        return []
    told = [
        f"{p.name}: {p.keys} keys, about {mebibytes(p.size)}"
        for p in survey.prefixes[:TOLD_PREFIXES]
    ]
    again = [
        f"{p.name}: {p.keys} keys, about {p.writes} times, {mebibytes(p.written)}"
        for p in survey.most_written(TOLD_PREFIXES)
    ]
    live = sum(p.size for p in survey.prefixes)
    in_use = max((s.db_size_in_use for s in seen.statuses.values()), default=0)
    share = f" of {mebibytes(in_use)} in use; the rest is history and etcd's own pages"
    part = "" if survey.is_whole else " (not all was looked at)"
    return [
        f"most space by prefix{part}: {'; '.join(told)}",
        *([f"most history, written since the keys were made: {'; '.join(again)}"] if again else []),
        f"keys as they are now take about {mebibytes(live)}{share}",
    ]


def tell_full(
    inventory: Inventory, statuses: Mapping[str, EndpointStatus], seen: SpaceSight
) -> str:
    """Say why the alarm stays, what fills the databases, and what is to be done.

    `statuses` are those at the end; the disks are as they were seen.
    """
    lacks = [
        f"{name}: {text}"
        for name, status in statuses.items()
        if (text := tell_no_room(status, seen.rooms.get(name)))
    ]
    full = find_full(statuses, seen.limits)
    why = "a disk lacks room to defragment" if lacks else "databases are full of what is in use"
    free = "make that room and run this again; or " if lacks else ""
    return (
        f"the alarm NOSPACE stays, for {why}:\n  - "
        + "\n  - ".join([*full, *lacks, *tell_fillers(seen)])
        + f"\n{free}delete keys (deletes are taken also now) and run this again, with "
        f"{parameter(keep_revisions=0)} where their history is to go at once; or "
        f"{tell_raise(inventory, seen.limits.values())}"
    )


def find_full(statuses: Mapping[str, EndpointStatus], quotas: Mapping[str, int]) -> tuple[str, ...]:
    """List the members whose database is too near to its quota for the alarm to be taken back."""
    return tuple(
        f"{name}: its database has {mebibytes(status.db_size)} of {mebibytes(quotas[name])}, "
        f"{mebibytes(status.db_size_in_use)} in use"
        for name, status in statuses.items()
        if name in quotas and status.db_size >= DISARM_SHARE * quotas[name]
    )
