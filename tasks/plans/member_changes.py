"""What a change of the members means for hosts, files and everything that lists the members.

`reconfiguration` has the order of the member list itself, `member_hosts` who is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tasks.model.inventory import Inventory
from tasks.model.members import DesiredMember, SeenMember, quorum
from tasks.model.observation import (
    DataDirectory,
    HostObservation,
    HostTarget,
    Likeness,
    ServiceState,
)
from tasks.model.plan import Plan, Stage, Step
from tasks.model.urls import split_url
from tasks.plans.apiservers import CHANGED, JOINED
from tasks.plans.bootstrap import IssueCertificates, preparation_steps
from tasks.plans.leaves import Work, leaf_steps
from tasks.plans.member_hosts import Leaver, judge_joiner, warn_of_hosts
from tasks.plans.reconfiguration import (
    CHANGE,
    PREPARE,
    REFRESH,
    Joiner,
    ReaddressMember,
    SettleMember,
    order_changes,
    order_move,
)

INVENTORY = Stage(6, "on the runner")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireHost(Step):
    """Stop and disable etcd, set its data aside: it cannot come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitHost(Step):
    """Wait for a dead member's host whose SSH has not answered yet; retire it if it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeApiserver(Step):
    """Let the API server that lives on a host's member run again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardData(Step):
    """Stop etcd and set aside what a failed join left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropConnections(Step):
    """End the connections of a live member with a host without power.

    Nobody has closed them, and a leader that removes the member waits for them: etcd served
    nobody for up to 10 s (3.4.23 and 3.5.16, by etcdctl too; in its log the time between
    "stopping remote peer" and the second "stopped TCP streaming connection").
    """

    ends: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshConfiguration(Step):
    """Name the members that are left in ETCD_INITIAL_CLUSTER."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteInventory(Step):
    """Write the changed inventory file, if it still is what `before` says."""

    text: str
    before: str


def plan_members(
    runbook: str,
    inventory: Inventory,
    live: tuple[SeenMember, ...],
    leavers: tuple[Leaver, ...],
    joining: tuple[DesiredMember, ...],
    observed: dict[str, HostObservation],
    targets: dict[str, HostTarget],
    *,
    planned: bool,
    configured: frozenset[str],
    outdated: Mapping[str, str],
    further: tuple[Step, ...] = (),
    warnings: tuple[str, ...] = (),
    awaited: frozenset[str] = frozenset(),
    paused: frozenset[str] = frozenset(),
    unsettled: frozenset[str] = frozenset(),
) -> Plan:
    """Plan the whole change; raises Refused.

    `inventory` is the wanted one, `observed` has every host that could be reached. Of the hosts,
    the settings of `configured` are this cluster's, and those of `outdated` name other members
    than the goal has, in these files. `further` are the steps for whatever else lists the members.
    The hosts `awaited` are not observed and may still answer. Those `paused` have an API server
    that was taken out, and goes back in; the manifests of `unsettled` are not as they are to stay.
    """
    removals = frozenset(x.member_id for x in leavers if x.member_id is not None)
    leaving_hosts = {x.host for x in leavers if x.host}
    # On this very machine, which then is emptied first; another one of the same name is not.
    here = {
        member.name
        for member in joining
        if any(member.peer_url in leaver.peer_urls for leaver in leavers)
        and not _is_begun(member, live, removals)
    }
    joiners, discards = [], []
    for member in joining:
        joiner, discard = judge_joiner(
            inventory,
            member,
            observed[member.name],
            live,
            is_leaving_here=member.name in here,
            is_configured=member.name in configured,
        )
        layout = inventory.layout(member.name)
        target = targets.get(member.name)
        if layout.manifest is not None:
            joiner = replace(joiner, written=str(layout.manifest))
        elif target is not None and target.likeness:
            joiner = _with_likeness(joiner, target.likeness)
        joiners.append(joiner)
        if discard:
            discards.append(member.name)
    changes = order_changes(live, removals, tuple(joiners), planned=planned)
    alive = {m.host for m in live if m.member.id in removals and m.is_healthy}
    others = {member.name for member in joining} - here
    steps: list[Step] = [
        _retire(inventory, PREPARE, name)
        for name in sorted(leaving_hosts - alive - others)
        if name in observed and _can_be_retired(observed[name])
    ]
    steps += [
        AwaitHost(
            stage=PREPARE,
            host=name,
            sentence="wait for its SSH, beside the other hosts; if it answers: lock it, "
            f"{inventory.layout(name).stopping}, set {inventory.layout(name).data} aside",
        )
        for name in sorted((leaving_hosts & awaited) - alive - others)
    ]
    steps += _drops(live, removals, observed)
    pending = {str(step.host) for step in changes if step.host}
    for name in discards:
        data = inventory.layout(name).data
        sentence = f"stop etcd and set {data} of the join that failed aside"
        steps.append(DiscardData(stage=PREPARE, host=name, sentence=sentence))
    for member in joining:
        if member.name in pending and member.name in targets:
            steps += preparation_steps(
                inventory, observed[member.name], targets[member.name], PREPARE
            )
    steps += changes
    goal = goal_members(live, removals, joining)
    up = {m.host for m in live if m.is_healthy} | {m.name for m in joining}
    spare = sum(m.name in up for m in goal) - 1 >= quorum(len(goal))
    settling = [m for m in joining if spare and m.name in unsettled]
    steps += [_settle(member, goal) for member in settling]
    rewritten = {m.name for m in joining} if alive or len(joining) > 1 else set()
    for member in goal:
        if member.name in outdated or (member.name in rewritten and member.name in pending):
            where = outdated.get(member.name, "its settings")
            steps.append(_refresh(member.name, where))
    steps += [_retire(inventory, REFRESH, name) for name in sorted(alive) if name in observed]
    leave = leaving_hosts - {member.name for member in joining}
    back = {n for n in pending if inventory.layout(n).is_pod} | (paused - leave)
    back |= {member.name for member in settling}
    steps += [_resume(name, JOINED if name in pending else CHANGED) for name in sorted(back)]
    names = ", ".join(member.name for member in goal)
    return Plan(
        runbook,
        inventory.name,
        f"{len(goal)} healthy members: {names}",
        (*steps, *further),
        (*warnings, *warn_of_hosts(leavers, observed, others, inventory, awaited)),
    )


def _with_likeness(joiner: Joiner, likeness: Likeness) -> Joiner:
    files = " and ".join(file.path for file in likeness.files)
    return replace(
        joiner,
        written=f"{files} as on {likeness.model}, its own names and addresses in them,",
        diff=f":\n{likeness.diff}",
    )


def plan_move(
    inventory: Inventory,
    live: tuple[SeenMember, ...],
    member: DesiredMember,
    seen: HostObservation,
    target: HostTarget | None,
    leaves: Work,
    *,
    restarts: bool,
    outdated: Mapping[str, str],
    further: tuple[Step, ...],
    warnings: tuple[str, ...],
) -> Plan:
    """Plan to give a member other URLs: certificates that name them, the list, etcd.conf.

    The pair on the host names the new address alone, so that between its exchange and the restart
    no member can connect to this one anew: it is one that the cluster can lose. A static pod's has
    no `target`, and `leaves` say why its pairs are replaced. Raises Refused.
    """
    changes = order_move(live, member, restarts=restarts)
    prepared: list[Step] = [
        step
        for step in (preparation_steps(inventory, seen, target, PREPARE) if target else ())
        if isinstance(step, IssueCertificates)
    ]
    prepared += leaf_steps(leaves, leaves, {name: name for name in leaves}, PREPARE, PREPARE)
    layout = inventory.layout(member.name)
    if layout.is_pod:
        said = (
            f"{layout.stopping}, write its new address into {layout.manifest}, put etcd in; its "
            "data and id stay"
        )
        changes = tuple(
            replace(step, sentence=said) if isinstance(step, ReaddressMember) else step
            for step in changes
        )
    resumed = [_resume(member.name, CHANGED)] if layout.has_apiserver and changes else []
    refreshed = [_refresh(name, where) for name, where in sorted(outdated.items())]
    return Plan(
        "update_member",
        inventory.name,
        f"{member.name} at {member.peer_url} and {member.client_url}",
        (*prepared, *changes, *refreshed, *resumed, *further),
        warnings,
    )


def _drops(
    live: tuple[SeenMember, ...], removals: frozenset[int], observed: dict[str, HostObservation]
) -> list[Step]:
    silent = [
        m for m in live if m.member.id in removals and not m.is_healthy and m.host not in observed
    ]
    ends = tuple(sorted({split_url(url) for m in silent for url in m.member.peer_urls}))
    names = ", ".join(m.label for m in silent)
    return [
        DropConnections(
            stage=PREPARE,
            host=m.host,
            sentence=f"end the connections with {names} that nobody has closed",
            ends=ends,
        )
        for m in live
        if silent and m.is_healthy and m.host in observed
    ]


def _is_begun(
    member: DesiredMember, live: tuple[SeenMember, ...], removals: frozenset[int]
) -> bool:
    """Whether the list has this very member already, as one that stays."""
    entry = next((m for m in live if member.peer_url in m.member.peer_urls), None)
    return entry is not None and entry.member.id not in removals


def _refresh(name: str, where: str) -> RefreshConfiguration:
    return RefreshConfiguration(
        stage=REFRESH,
        host=name,
        sentence=f"name the members in {where} (no restart)",
    )


def goal_members(
    live: tuple[SeenMember, ...],
    removals: frozenset[int],
    joining: tuple[DesiredMember, ...],
    moved: tuple[DesiredMember, ...] = (),
) -> tuple[DesiredMember, ...]:
    """List the members that there will be; `moved` have other URLs than now."""
    urls = {member.peer_url for member in joining}
    names = {member.name for member in moved}
    kept = [
        m.as_desired
        for m in live
        if m.member.id not in removals and m.peer_url not in urls and m.host not in names
    ]
    return tuple(sorted((*kept, *joining, *moved), key=lambda member: member.name))


def _can_be_retired(seen: HostObservation) -> bool:
    runs = seen.service is not None and (
        seen.service.is_enabled
        or seen.service.state not in (ServiceState.INACTIVE, ServiceState.FAILED)
    )
    return runs or seen.data in (DataDirectory.INITIALISED, DataDirectory.LEFTOVERS)


def _retire(inventory: Inventory, stage: Stage, name: str) -> RetireHost:
    layout = inventory.layout(name)
    return RetireHost(
        stage=stage,
        host=name,
        sentence=f"{layout.stopping}, set {layout.data} aside: the old member cannot come back",
    )


def _settle(member: DesiredMember, goal: tuple[DesiredMember, ...]) -> SettleMember:
    return SettleMember(
        stage=CHANGE,
        host=member.name,
        sentence="let its manifest name this member alone again, so that it ends without its data, "
        "and start it anew; its API server is out still",
        member=member,
        before=frozenset(m.peer_url for m in goal),
    )


def _resume(name: str, away: str) -> ResumeApiserver:
    return ResumeApiserver(
        stage=REFRESH,
        host=name,
        sentence=f"put its API server's manifest in, and wait until it is ready ({away})",
    )
