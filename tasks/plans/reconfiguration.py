"""Changes of etcd's member list: the steps, and in which order. Etcd calls it reconfiguration.

A new member joins as a learner, which has no vote and so costs no quorum, and is promoted once it
has the log. What is dead is removed before anything is added, because etcd before 3.5.30 adds
nothing while a voter is away; what is alive is removed last. Members are matched by peer URL: that
is what an interrupted run left in the list. Source: etcd.io/docs, "Runtime reconfiguration".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tasks.model.errors import Refused
from tasks.model.members import DesiredMember, SeenMember, format_id, label_members, quorum
from tasks.model.plan import Stage, Step
from tasks.model.pointers import parameter
from tasks.plans.voters import (
    Cluster,
    refuse_corrupt_members,
    refuse_to_lose,
    refuse_without_members,
    refuse_without_quorum,
)

PREPARE = Stage(1, "prepare, all hosts at once")
CHANGE = Stage(2, "change the members, one step at a time", is_serial=True)
REFRESH = Stage(3, "bring the other hosts up to date, all at once")
SLIGHT_LAG = 1000
"""Entries, by which one who takes leadership over may be behind: it gets them before it does."""
ADDS_WITH_QUORUM = ((3, 5, 30), (3, 6, 11))
"""From these on etcd adds a member while a voter is away, as long as there is a quorum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipStep(Step):
    """A step that the gate looks at; `before` are the peer URLs that must be members then."""

    before: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveMember(MembershipStep):
    """Take a member out of the list, for good."""

    member_id: int
    name: str
    was_healthy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AddLearner(MembershipStep):
    """Put a member without a vote into the list."""

    member: DesiredMember


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinMember(MembershipStep):
    """Write its settings with exactly the live members, and start etcd."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteMember(MembershipStep):
    """Wait until a learner has the leader's log, and give it its vote."""

    member: DesiredMember


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitMember(MembershipStep):
    """Wait until a voter that was added without ever having started is healthy."""

    member: DesiredMember


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleMember(MembershipStep):
    """Write a static pod's manifest as it is to stay, and start it anew; it has its log by now."""

    member: DesiredMember


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveLeader(MembershipStep):
    """Hand leadership to another voter."""

    member_id: int
    target_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateMember(MembershipStep):
    """Tell the cluster another peer URL of a member."""

    member_id: int
    member: DesiredMember


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaddressMember(MembershipStep):
    """Write a member's new URLs into its etcd.conf, and restart it."""

    member: DesiredMember


@dataclass(frozen=True, slots=True)
class Joiner:
    """A member that shall be in the cluster, and whether its host has data of this membership.

    `is_stale`: that data, or the lack of it, does not go with the entry in the list any more.
    `written` is what it is given before its start, `diff` what that differs in from its model.
    """

    member: DesiredMember
    has_data: bool = False
    is_stale: bool = False
    written: str = "etcd.conf"
    diff: str = ""


def needs_every_voter(versions: Iterable[str | None]) -> bool:
    """Whether one of these etcd versions adds a member only while every voter is connected."""
    for version in versions:
        if version is None:
            continue
        numbers = tuple(int(part) for part in version.split("-")[0].split("."))
        least = next((v for v in ADDS_WITH_QUORUM if v[:2] == numbers[:2]), None)
        if numbers[:2] < (3, 5) or (least is not None and numbers < least):
            return True
    return False


def order_changes(
    live: tuple[SeenMember, ...],
    removals: frozenset[int],
    joiners: tuple[Joiner, ...],
    *,
    planned: bool,
) -> tuple[Step, ...]:
    """Order the changes that lead from the live members to the goal; raises Refused.

    The goal: no member of `removals` (ids), and each of `joiners` a voter; all others stay.
    `planned` allows to remove a healthy voter, after the others have joined.
    """
    refuse_without_members(live)
    refuse_without_quorum(live)
    refuse_corrupt_members(live)
    cluster = Cluster(list(live))
    leaving = [m for m in cluster.members if m.member.id in removals]
    alive = [m for m in leaving if m.is_healthy and not m.member.is_learner]
    if alive and not planned:
        others = ", ".join(m.label for m in cluster.voters if not m.is_healthy) or "none"
        raise Refused(
            f"{', '.join(m.label for m in alive)}: is a healthy voter (members that are down: "
            f"{others}). To replace a healthy member by another host, set planned: the new one "
            "joins first and the old one is removed last"
        )
    steps: list[Step] = [remove_from(cluster, m) for m in leaving if m not in alive]
    steps += _clear_stale(cluster, joiners, alive)
    # One learner at a time is all that etcd takes: what has been begun is ended first.
    for joiner in sorted(joiners, key=lambda j: cluster.at(j.member.peer_url) is None):
        steps += _join(cluster, joiner)
    for member in sorted(alive, key=lambda m: m.is_leader):
        if member.is_leader:
            steps.append(_move_leader(cluster, member, {m.member.id for m in alive}))
        steps.append(remove_from(cluster, member))
    return tuple(steps)


def _clear_stale(
    cluster: Cluster, joiners: tuple[Joiner, ...], alive: list[SeenMember]
) -> list[Step]:
    steps: list[Step] = []
    for joiner in joiners:
        entry = cluster.at(joiner.member.peer_url)
        if entry in alive:
            raise Refused(
                f"{entry.label}: is healthy, and its own host cannot join beside it; name "
                f"another host: {parameter(replacement=['NAME=ADDRESS'])}"
            )
        if entry and joiner.is_stale and entry.member.is_learner:
            steps.append(remove_from(cluster, entry))
    return steps


def order_move(
    live: tuple[SeenMember, ...], wanted: DesiredMember, *, restarts: bool
) -> tuple[Step, ...]:
    """Order what gives a member other URLs; raises Refused.

    It keeps its data and its id. `restarts`: its etcd does not know the new URLs yet.
    """
    refuse_without_quorum(live)
    refuse_corrupt_members(live)
    cluster = Cluster(list(live))
    entry = cluster.on(wanted.name)
    clash = cluster.at(wanted.peer_url)
    if clash not in (None, entry):
        raise Refused(f"{wanted.peer_url} is the peer URL of {clash.label if clash else ''}")
    is_listed = wanted.peer_url in entry.member.peer_urls
    if is_listed and not restarts:
        return ()
    refuse_to_lose(cluster, entry)
    steps: list[Step] = []
    if entry.is_leader:
        steps.append(_move_leader(cluster, entry, {entry.member.id}))
    if not is_listed:
        steps.append(
            UpdateMember(
                stage=CHANGE,
                host=None,
                sentence=f"tell the members that {wanted.name} is at {wanted.peer_url}",
                member_id=entry.member.id,
                member=wanted,
                before=cluster.urls,
            )
        )
        moved = replace(entry, member=replace(entry.member, peer_urls=(wanted.peer_url,)))
        cluster.members[cluster.members.index(entry)] = moved
    steps.append(
        ReaddressMember(
            stage=CHANGE,
            host=wanted.name,
            sentence="write its new address into its settings and restart it; its data and id stay",
            member=wanted,
            before=cluster.urls,
        )
    )
    return tuple(steps)


def order_handover(live: tuple[SeenMember, ...], word: str | None) -> tuple[Step, ...]:
    """Plan to hand leadership over, to the voter called so or the one that is furthest."""
    refuse_without_quorum(live)
    cluster = Cluster(list(live))
    leader = next((m for m in live if m.is_leader), None)
    if leader is None:
        raise Refused("no member leads now; look again in some seconds")
    if word is None:
        return (_move_leader(cluster, leader, {leader.member.id}),)
    called = [m for m in live if word in (m.member.name, m.host, format_id(m.member.id))]
    if len(called) != 1:
        meant = "several members are called so" if called else "no member is called so; these are"
        raise Refused(f"{word}: {meant}: {label_members(called or live)}")
    (target,) = called
    if target.member.is_learner or not target.is_healthy:
        state = "a learner" if target.member.is_learner else "not healthy"
        raise Refused(f"{target.label} is {state} and cannot lead")
    if target is leader:
        return ()
    others = {m.member.id for m in live if m is not target}
    return (_move_leader(cluster, leader, others),)


def remove_from(cluster: Cluster, member: SeenMember) -> RemoveMember:
    """Plan to take a member out, and count without it from here on; raises Refused."""
    left = [m for m in cluster.voters if m is not member]
    healthy, needed = sum(m.is_healthy for m in left), quorum(len(left))
    if not left:
        raise Refused(f"{member.label} is the last member; the cluster would end with it")
    if healthy < needed:
        raise Refused(
            f"without {member.label}, {healthy} of {len(left)} voters would be healthy and "
            f"{needed} are needed for a quorum; bring the others back first"
        )
    before = cluster.urls
    cluster.members.remove(member)
    kind = "learner" if member.member.is_learner else "member"
    state = "healthy" if member.is_healthy else "not healthy"
    return RemoveMember(
        stage=CHANGE,
        host=None,
        sentence=f"remove the {kind} {member.label} ({format_id(member.member.id)}, {state}); "
        f"{healthy} of {len(left)} voters are healthy then, {needed} are needed",
        member_id=member.member.id,
        name=member.label,
        was_healthy=member.is_healthy,
        before=before,
    )


def _join(cluster: Cluster, joiner: Joiner) -> list[Step]:
    wanted, entry = joiner.member, cluster.at(joiner.member.peer_url)
    steps: list[Step] = []
    if entry and not entry.member.is_learner and entry.member.is_started:
        if entry.is_healthy:
            return []
        raise Refused(
            f"{entry.label}: is a member already, and is down; replace_member replaces it"
        )
    if entry is None:
        steps.append(_add(cluster, wanted))
        entry = cluster.members[-1]
    is_learner = entry.member.is_learner
    if not (is_learner and entry.is_healthy):
        start = "start etcd with the data that is there" if joiner.has_data else "start etcd"
        steps.append(
            JoinMember(
                stage=CHANGE,
                host=wanted.name,
                sentence=f"write {joiner.written} with exactly the live members, and {start}"
                f"{joiner.diff}",
                before=cluster.urls,
            )
        )
    joined = replace(
        entry,
        member=replace(entry.member, name=wanted.member, is_learner=False),
        is_healthy=True,
        host=wanted.name,
    )
    before = cluster.urls
    cluster.members[cluster.members.index(entry)] = joined
    count = len(cluster.voters)
    if not is_learner:
        sentence = f"wait until the voter {wanted.name} is healthy"
        await_it = AwaitMember(
            stage=CHANGE, host=None, sentence=sentence, member=wanted, before=before
        )
        return [*steps, await_it]
    sentence = (
        f"wait until {wanted.name} has the leader's log, and promote it: "
        f"{cluster.healthy} of {count} voters are healthy then, {quorum(count)} are needed"
    )
    promote = PromoteMember(
        stage=CHANGE, host=None, sentence=sentence, member=wanted, before=before
    )
    return [*steps, promote]


def _add(cluster: Cluster, wanted: DesiredMember) -> AddLearner:
    for member in cluster.members:
        if member.member.name == wanted.member:
            raise Refused(
                f"{wanted.member}: a member of this name is in the cluster already, at "
                f"{member.peer_url}; give the new one another name"
            )
        if member.member.is_learner:
            raise Refused(
                f"{member.label} ({member.peer_url}) is a learner, and etcd takes one at a time: "
                "end what was begun with it, or remove it with remove_member"
            )
    down = [m.label for m in cluster.voters if not m.is_healthy]
    if down and needs_every_voter(m.version for m in cluster.members):
        raise Refused(
            f"{', '.join(down)}: is down, and this etcd adds a member only while every voter is "
            "connected; name it in the same run, so that it is replaced too, or take it out with "
            "remove_member first"
        )
    before = cluster.urls
    # The id is etcd's to give; no step after this one needs it.
    unstarted = replace(
        cluster.members[0].member,
        id=0,
        name="",
        peer_urls=(wanted.peer_url,),
        client_urls=(),
        is_learner=True,
    )
    cluster.members.append(SeenMember(unstarted, is_healthy=False))
    return AddLearner(
        stage=CHANGE,
        host=None,
        sentence=f"add {wanted.name} at {wanted.peer_url} as a learner, which has no vote yet",
        member=wanted,
        before=before,
    )


def _move_leader(cluster: Cluster, leader: SeenMember, leaving: set[int]) -> MoveLeader:
    able = [m for m in cluster.voters if m.is_healthy and m.member.id not in leaving]
    if not able:
        raise Refused(f"{leader.label} leads, and no other healthy voter stays to lead")
    furthest = max(m.applied for m in able)

    def order(m: SeenMember) -> tuple[bool, bool, str]:
        # One that has just joined has no id yet; older members go before it. Who is a few entries
        # behind changes with each write, and a plan that is made again must be the approved one.
        return m.member.id == 0, furthest - m.applied > SLIGHT_LAG, m.label

    chosen = min(able, key=order)
    return MoveLeader(
        stage=CHANGE,
        host=None,
        sentence=f"hand leadership from {leader.label} to {chosen.label}",
        member_id=leader.member.id,
        target_id=chosen.member.id,
        before=cluster.urls,
    )
