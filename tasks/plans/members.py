"""What a change of the members means for hosts, files and everything that lists the members.

`membership` has the order and the arithmetic of the member list itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tasks.model.cluster import ClusterHealth, DesiredMember, SeenMember, format_id
from tasks.model.errors import Refused
from tasks.model.inventory import PEER_PORT, Inventory
from tasks.model.machines import Host
from tasks.model.observation import DataDirectory, HostObservation, HostTarget, ServiceState
from tasks.model.plan import Finding, Plan, Severity, Stage, Step
from tasks.plans.addresses import member_url
from tasks.plans.bootstrap import IssueCertificates, preparation_steps
from tasks.plans.membership import PREPARE, REFRESH, Joiner, order_changes, order_move

PERSISTS_PROMOTION = (3, 5, 24)
INVENTORY = Stage(6, "on the runner")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireHost(Step):
    """Stop and disable etcd, set its data aside: it cannot come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitHost(Step):
    """Wait for a dead member's host whose SSH has not answered yet; retire it if it does."""


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

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshConfiguration(Step):
    """Name the members that are left in ETCD_INITIAL_CLUSTER."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteInventory(Step):
    """Write the changed inventory file, if it still is what `before` says."""

    text: str
    before: str


@dataclass(frozen=True, slots=True)
class Leaver:
    """Who shall leave: the id, None when it is no member any more, and its host in the inventory.

    `word` is what the operator called it; `client_url` is known where it is, or was, a member.
    `peer_urls` are where it is, or would be by the inventory. `is_settled`: it is healthy in its
    own place, by an earlier run.
    """

    word: str
    member_id: int | None
    host: str | None
    client_url: str | None = None
    peer_urls: frozenset[str] = frozenset()
    is_settled: bool = False


def find_leavers(
    words: Iterable[str],
    inventory: Inventory,
    live: tuple[SeenMember, ...],
    joining: tuple[DesiredMember, ...],
    located: Iterable[DesiredMember] = (),
) -> tuple[Leaver, ...]:
    """Find the members that are called by name, id, host name or address; raises Refused.

    `located` are the inventory's members with the addresses that were found.

    An entry at the peer URL of one that joins is the joining itself, begun by an earlier run, as
    long as it has no vote yet, or is not where the inventory has the one that leaves.
    """
    urls = {member.peer_url for member in joining}
    homes = {member.name: member.peer_url for member in located}
    found = []
    for word in words:
        host = next((h for h in inventory.hosts if word in (h.name, h.address)), None)
        names = {word, host.name} if host else {word}
        addresses = {word, *_addresses(host)} if host else {word}
        entry = next(
            (
                m
                for m in live
                if m.member.name in names
                or format_id(m.member.id) == word.removeprefix("0x").lower()
                or addresses & {_address(url) for url in m.member.peer_urls}
            ),
            None,
        )
        if entry is None and host is None and not any(m.peer_url in urls for m in live):
            raise Refused(
                f"{word}: no member, id or host is called so; the members are "
                + ", ".join(f"{m.label} ({format_id(m.member.id)})" for m in live)
            )
        if entry and entry.peer_url in urls:
            pending = entry.member.is_learner or not entry.member.is_started
            if pending or (host and entry.peer_url not in _peer_urls(host, homes)):
                entry = None
        name = host.name if host else entry.member.name if entry else None
        found.append(
            Leaver(
                word,
                entry.member.id if entry else None,
                name,
                (entry.client_url or None) if entry else None,
                frozenset(entry.member.peer_urls if entry else _peer_urls(host, homes)),
            )
        )
    return tuple(found)


def _address(url: str) -> str:
    return url.removeprefix("https://").removeprefix("http://").rsplit(":", 1)[0].strip("[]")


def _peer_urls(host: Host | None, homes: dict[str, str]) -> tuple[str, ...]:
    if host is None:
        return ()
    urls = [member_url(address, PEER_PORT) for address in _addresses(host)]
    return (*urls, homes[host.name]) if host.name in homes else tuple(urls)


def _addresses(host: Host) -> set[str]:
    return {a for a in (host.address, host.peer_address, host.client_address) if a}


def settle_in_place(
    leavers: tuple[Leaver, ...],
    live: tuple[SeenMember, ...],
    joining: tuple[DesiredMember, ...],
    *,
    planned: bool,
) -> tuple[Leaver, ...]:
    """Mark those that are healthy in their own place as replaced already; nothing else is down.

    A healthy member cannot be replaced by its own host, so that there is nothing to do for it:
    an earlier run has ended, or died in its last look.
    """
    urls = {member.peer_url for member in joining}
    ids = {leaver.member_id for leaver in leavers}
    is_ill = any(not (m.is_healthy or m.member.is_learner or m.member.id in ids) for m in live)
    healthy = {
        m.member.id for m in live if m.is_healthy and not m.member.is_learner and m.peer_url in urls
    }
    if planned or is_ill:
        return leavers
    return tuple(
        replace(leaver, member_id=None, is_settled=True) if leaver.member_id in healthy else leaver
        for leaver in leavers
    )


def judge_joiner(
    inventory: Inventory,
    member: DesiredMember,
    seen: HostObservation,
    live: tuple[SeenMember, ...],
    *,
    is_leaving_here: bool,
    is_configured: bool,
) -> tuple[Joiner, bool]:
    """Say whether a host can join with the data it has, and whether that must be set aside.

    `is_leaving_here`: the member that leaves was on this very host, so that old data is its own
    and is retired first. Raises Refused for data of which nothing is known.
    """
    entry = next((m for m in live if member.peer_url in m.member.peer_urls), None)
    has_data = seen.data is DataDirectory.INITIALISED
    has_files = has_data or seen.data is DataDirectory.LEFTOVERS
    runs = seen.service is not None and seen.service.state in (
        ServiceState.ACTIVE,
        ServiceState.ACTIVATING,
    )
    pending = entry is not None and (entry.member.is_learner or not entry.member.is_started)
    if entry is not None and not pending:
        return Joiner(member, has_data and not is_leaving_here), False
    if pending and entry is not None:
        if entry.is_healthy or (has_data and runs):
            return Joiner(member, has_data=True), False
        stale = entry.member.is_learner and (entry.member.is_started or has_data)
        keeps = has_data and not entry.member.is_learner
        return Joiner(member, keeps, is_stale=stale), has_files and not keeps
    if has_files and not is_leaving_here and (has_data or not is_configured):
        raise Refused(
            f"{member.name}: {inventory.paths.data} holds data, and this host is no member; "
            "move it away first (it is left alone)"
        )
    return Joiner(member), has_files and not is_leaving_here


def choose_source(health: ClusterHealth) -> str | None:
    """Choose whose snapshot to take: the healthy follower that is furthest, or the leader's."""
    able = [
        (e.status.leader != e.status.member_id, e.status.raft_applied_index, e.endpoint)
        for e in health.endpoints
        if e.status and e.is_healthy and not e.status.is_learner
    ]
    return max(able)[2] if able else None


def version_findings(
    inventory: Inventory, live: tuple[SeenMember, ...], joining: tuple[str, ...]
) -> tuple[Finding, ...]:
    """Tell a joining member's version that the others do not have, and one that may forget.

    Source: etcd's CHANGELOG-3.5, 3.5.20 and 3.5.24: a learner's promotion was not always persisted.
    """
    if not joining:
        return ()
    wanted = inventory.etcd.version
    found: tuple[Finding, ...] = ()
    if (3, 5, 0) <= inventory.etcd.version_tuple < PERSISTS_PROMOTION:
        found = (
            Finding(
                Severity.WARNING,
                ", ".join(joining),
                f"etcd {wanted} may forget at a restart that a learner was promoted; 3.5.24 and "
                "later do not: upgrade the cluster soon",
            ),
        )
    others = sorted({m.version for m in live if m.version and m.version != wanted})
    if not others:
        return found
    minor = wanted.rpartition(".")[0]
    severe = any(other.rpartition(".")[0] != minor for other in others)
    return (
        *found,
        Finding(
            Severity.REFUSAL if severe else Severity.WARNING,
            ", ".join(joining),
            f"would run etcd {wanted} of the inventory beside members that run "
            f"{', '.join(others)}; replacing members is not upgrading them",
        ),
    )


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
    outdated: frozenset[str],
    further: tuple[Step, ...] = (),
    warnings: tuple[str, ...] = (),
    awaited: frozenset[str] = frozenset(),
) -> Plan:
    """Plan the whole change; raises Refused.

    `inventory` is the wanted one, `observed` has every host that could be reached. Of the hosts,
    the etcd.conf of `configured` is this cluster's, and that of `outdated` names other members
    than the goal has. `further` are the steps for whatever else lists the members.
    The hosts `awaited` are not observed and may still answer.
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
        joiners.append(joiner)
        if discard:
            discards.append(member.name)
    changes = order_changes(live, removals, tuple(joiners), planned=planned)
    alive = {m.member.name for m in live if m.member.id in removals and m.is_healthy}
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
            sentence="wait for its SSH, beside the other hosts; if it answers: lock it, stop and "
            f"disable {inventory.paths.service}, set {inventory.paths.data} aside",
        )
        for name in sorted((leaving_hosts & awaited) - alive - others)
    ]
    steps += _drops(live, removals, observed)
    pending = {str(step.host) for step in changes if step.host}
    for name in discards:
        sentence = f"stop etcd and set {inventory.paths.data} of the join that failed aside"
        steps.append(DiscardData(stage=PREPARE, host=name, sentence=sentence))
    for member in joining:
        if member.name in pending:
            steps += preparation_steps(
                inventory, observed[member.name], targets[member.name], PREPARE
            )
    steps += changes
    goal = goal_members(live, removals, joining)
    rewritten = {m.name for m in joining} if alive or len(joining) > 1 else set()
    for member in goal:
        if member.name in outdated or (member.name in rewritten and member.name in pending):
            steps.append(_refresh(inventory, member.name))
    steps += [_retire(inventory, REFRESH, name) for name in sorted(alive) if name in observed]
    names = ", ".join(member.name for member in goal)
    return Plan(
        runbook,
        inventory.name,
        f"{len(goal)} healthy members: {names}",
        (*steps, *further),
        (*warnings, *warn_of_hosts(leavers, observed, others, awaited)),
    )


def plan_move(
    inventory: Inventory,
    live: tuple[SeenMember, ...],
    member: DesiredMember,
    seen: HostObservation,
    target: HostTarget,
    *,
    restarts: bool,
    outdated: frozenset[str],
    further: tuple[Step, ...],
    warnings: tuple[str, ...],
) -> Plan:
    """Plan to give a member other URLs: certificates that name them, the list, etcd.conf.

    The pair on the host names the new address alone, so that between its exchange and the restart
    no member can connect to this one anew: it is one that the cluster can lose. Raises Refused.
    """
    changes = order_move(live, member, restarts=restarts)
    prepared = [
        step
        for step in preparation_steps(inventory, seen, target, PREPARE)
        if isinstance(step, IssueCertificates)
    ]
    refreshed = [_refresh(inventory, name) for name in sorted(outdated)]
    return Plan(
        "update_member",
        inventory.name,
        f"{member.name} at {member.peer_url} and {member.client_url}",
        (*prepared, *changes, *refreshed, *further),
        warnings,
    )


def _drops(
    live: tuple[SeenMember, ...], removals: frozenset[int], observed: dict[str, HostObservation]
) -> list[Step]:
    silent = [
        m
        for m in live
        if m.member.id in removals and not m.is_healthy and m.member.name not in observed
    ]
    addresses = tuple(sorted({_address(url) for m in silent for url in m.member.peer_urls}))
    names = ", ".join(m.label for m in silent)
    return [
        DropConnections(
            stage=PREPARE,
            host=m.member.name,
            sentence=f"end the connections with {names} that nobody has closed",
            addresses=addresses,
        )
        for m in live
        if silent and m.is_healthy and m.member.name in observed
    ]


def _is_begun(
    member: DesiredMember, live: tuple[SeenMember, ...], removals: frozenset[int]
) -> bool:
    """Whether the list has this very member already, as one that stays."""
    entry = next((m for m in live if member.peer_url in m.member.peer_urls), None)
    return entry is not None and entry.member.id not in removals


def _refresh(inventory: Inventory, name: str) -> RefreshConfiguration:
    return RefreshConfiguration(
        stage=REFRESH,
        host=name,
        sentence=f"name the members in {inventory.paths.configuration} (no restart)",
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
        if m.member.id not in removals and m.peer_url not in urls and m.member.name not in names
    ]
    return tuple(sorted((*kept, *joining, *moved), key=lambda member: member.name))


def _can_be_retired(seen: HostObservation) -> bool:
    runs = seen.service is not None and (
        seen.service.is_enabled
        or seen.service.state not in (ServiceState.INACTIVE, ServiceState.FAILED)
    )
    return runs or seen.data in (DataDirectory.INITIALISED, DataDirectory.LEFTOVERS)


def _retire(inventory: Inventory, stage: Stage, name: str) -> RetireHost:
    return RetireHost(
        stage=stage,
        host=name,
        sentence=f"stop and disable {inventory.paths.service}, set {inventory.paths.data} aside: "
        "the old member cannot come back",
    )


def warn_of_hosts(
    leavers: tuple[Leaver, ...],
    observed: dict[str, HostObservation],
    others: set[str],
    awaited: frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """Say of each old member whose host is not stopped why that is; who was asked, and who not."""
    returning = "When it comes back, its etcd ends by itself on hearing that it was removed"
    found = []
    for leaver in leavers:
        if leaver.is_settled:
            found.append(
                f"{leaver.host} is a healthy member in its own place: taken as replaced already. "
                "A healthy member is replaced by another host, with planned"
            )
        elif leaver.host is None and leaver.member_id is None:
            found.append(
                f"{leaver.word} is neither a member nor in the inventory: taken as replaced "
                "already; nothing was asked of its host"
            )
        elif leaver.host is None:
            found.append(
                f"{leaver.word} has no host in the inventory, so that none was asked: its etcd is "
                f"not stopped. {returning}; disable it there"
            )
        elif leaver.host in others:
            found.append(
                f"the machine that was {leaver.host} before is not in the inventory and was not "
                f"asked: its etcd is not stopped. {returning}; disable it there"
            )
        elif leaver.host not in observed:
            found.append(
                f"{leaver.host} "
                + (
                    "has not answered over SSH yet: unless it does, its etcd is not stopped. "
                    if leaver.host in awaited
                    else "cannot be reached over SSH: its etcd is not stopped. "
                )
                + f"{returning}; disable it there"
            )
    return tuple(found)
