"""Drafting a change of the members: seeing hosts and cluster, and the plan; changes nothing.

Composes steps; owns none.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tasks.config.editing import name_members, readdress
from tasks.config.launch import NotUnderstood
from tasks.config.rendering import InitialState
from tasks.config.settings import changed_files, read_settings
from tasks.engine.authority import read_authority_certificate
from tasks.engine.run import Run, both, together
from tasks.hosts.connection import HostConnection
from tasks.model.cluster import ClusterHealth, DesiredMember, SeenMember
from tasks.model.dependents import Moves
from tasks.model.errors import Refused, RunbookError
from tasks.model.inventory import Inventory
from tasks.model.inventory_file import InventoryFile, edit_hosts, parse_inventory
from tasks.model.machines import Host
from tasks.model.member_settings import Settings
from tasks.model.observation import HostObservation, HostTarget, Path, Reachability
from tasks.model.plan import Finding, Plan, Severity
from tasks.model.pointers import parameter, pointer
from tasks.plans import agreement, member_changes, member_hosts
from tasks.plans.addresses import desired_member
from tasks.plans.bootstrap import trusts_others
from tasks.plans.member_hosts import Leaver
from tasks.plans.nodes import (
    find_obstructions,
    find_paused,
    find_unsettled,
    left_to_kubeadm,
)
from tasks.plans.preflight import clock_findings, find_reasons, is_bound_elsewhere
from tasks.plans.voters import refuse_without_members
from tasks.procedures.likeness import Pattern, find_likeness, find_pattern
from tasks.procedures.location import find_strange_sources
from tasks.procedures.roster import Roster, locate_known
from tasks.procedures.wishes import Wish, joining_hosts
from tasks.report.inventories import inventory_diff
from tasks.steps import (
    certificates,
    configuration,
    dependents,
    installation,
    nodes,
    onhosts,
    preflight,
)
from tasks.steps.installation import Programs
from tasks.steps.locks import Late


@dataclass(frozen=True, slots=True)
class Draft:
    """A plan, and what was seen for it."""

    plan: Plan
    findings: tuple[Finding, ...]
    live: tuple[SeenMember, ...]
    health: ClusterHealth
    goal: tuple[DesiredMember, ...]
    joining: tuple[DesiredMember, ...]
    observed: dict[str, HostObservation]
    roster: Roster
    programs: Programs
    pattern: Pattern | None

    @property
    def down(self) -> frozenset[str]:
        """Members that stay, and were down before this run: nobody waits for them."""
        joining = {member.peer_url for member in self.joining}
        return frozenset(
            m.host for m in self.live if not m.is_healthy and m.peer_url not in joining
        ) & {member.name for member in self.goal}


@dataclass(frozen=True, slots=True)
class _Outlook:
    """What was seen, and what the inventory shall say."""

    original: Inventory
    inventory: Inventory
    hosts: dict[str, tuple[Host, str | None]]
    wanted: tuple[DesiredMember, ...]
    observed: dict[str, HostObservation]
    absent: dict[str, str]
    awaited: frozenset[str]
    health: ClusterHealth
    live: tuple[SeenMember, ...]
    leavers: tuple[Leaver, ...]
    dropped: frozenset[str]
    left: frozenset[str]


async def draft_plan(
    run: Run,
    file: InventoryFile,
    wish: Wish,
    roster: Roster,
    *,
    unlocked: dict[str, str],
    late: Late,
) -> Draft:
    """Observe hosts and members, and plan; raises Refused. Changes nothing.

    `late` are those of the unlocked that may still answer.
    """
    path, before = file.path, file.text
    seen, after = await _look(run, file, wish, roster, unlocked, late)
    moved = seen.wanted if wish.moving else ()
    joining = () if wish.moving else seen.wanted
    removals = frozenset(x.member_id for x in seen.leavers if x.member_id is not None)
    order = {host.name: number for number, host in enumerate(seen.inventory.hosts)}
    goal = member_changes.goal_members(seen.live, removals, joining, moved)
    goal = tuple(sorted(goal, key=lambda member: order.get(member.name, len(order))))
    moves = Moves(_gone_urls(seen, moved), seen.wanted, goal)
    findings, programs = await both(
        _judge(run, seen, goal), asyncio.to_thread(installation.load_programs, seen.inventory)
    )
    last = list(await dependents.plan_updates(run, moves, wish.skip))
    warnings: tuple[str, ...] = ()
    if after != before:
        diff = inventory_diff(before, after, path.name)
        if wish.writes_inventory:
            sentence = f"write {path}:\n{diff}"
            last.append(
                member_changes.WriteInventory(
                    stage=member_changes.INVENTORY,
                    host=None,
                    sentence=sentence,
                    text=after,
                    before=before,
                )
            )
        else:
            warnings = (
                f"{path} must say so too; set write_inventory to let this run do it:\n{diff}",
            )
    joined = frozenset(member.name for member in joining)
    made = any(not run.inventory.layout(name).is_pod for name in joined)
    pattern = find_pattern(run, seen.live, seen.observed, joined) if made else None
    pods, _ = await nodes.observe_nodes(run)
    leaving = {x.host for x in seen.leavers if x.host}
    findings = (*findings, *find_obstructions(pods, joined | leaving))
    targets = await _targets(run, seen, programs, goal, pattern)
    outdated, left = _find_outdated(seen.observed, goal)
    stranded = member_hosts.warn_of_stranded(seen.original, seen.dropped)
    warnings = (
        *warnings,
        *left,
        *stranded,
        *(pattern.remarks if pattern else ()),
        *left_to_kubeadm(seen.inventory, seen.left, leaving - joined),
    )
    if moved:
        plan = member_changes.plan_move(
            seen.inventory,
            seen.live,
            moved[0],
            seen.observed[moved[0].name],
            targets[moved[0].name],
            restarts=_tells_others(seen, moved[0]),
            outdated=outdated,
            further=tuple(last),
            warnings=warnings,
        )
    else:
        plan = member_changes.plan_members(
            run.runbook,
            seen.inventory,
            seen.live,
            seen.leavers,
            joining,
            seen.observed,
            targets,
            planned=wish.planned,
            configured=frozenset(
                n for n, s in seen.observed.items() if _is_configured(run.inventory, s)
            ),
            outdated=outdated,
            further=tuple(last),
            warnings=warnings,
            awaited=seen.awaited,
            paused=find_paused(pods),
            unsettled=find_unsettled(
                pods, joined, {x.host for x in seen.leavers if x.host and x.member_id is not None}
            ),
        )
    return Draft(
        plan,
        findings,
        seen.live,
        seen.health,
        goal,
        seen.wanted,
        seen.observed,
        roster,
        programs,
        pattern,
    )


async def _look(
    run: Run, file: InventoryFile, wish: Wish, roster: Roster, unlocked: dict[str, str], late: Late
) -> tuple[_Outlook, str]:
    (observed, absent, awaited), found = await both(
        _observe_hosts(run, unlocked, late), roster.look(run, settled=True)
    )
    known = roster.members
    for member in locate_known(run.inventory, observed):
        roster.add(member)
    if roster.members != known:
        found = await roster.look(run, settled=True)
    live = found.seen_members()
    if not live:
        await onhosts.refuse_foreign(run, roster.members)
    original, text = file.inventory, file.text
    hosts = joining_hosts(original, wish)
    left = frozenset(
        name
        for name in hosts
        if original.layout(name).is_pod and not wish.moving and _is_bare(observed.get(name))
    )
    if left and wish.planned:
        raise Refused(
            f"{', '.join(sorted(left))}: a new node of a stacked cluster joins by `kubeadm join "
            f"--control-plane`; do that first, then {pointer('remove_member', member=wish.leaving)}"
        )
    for name in hosts:
        if name not in observed and name not in left:
            another = (
                f", or name another that takes its place: {parameter(replacement=['NAME=ADDRESS'])}"
                if run.runbook == "replace_member"
                else ""
            )
            raise Refused(
                f"{name} is to be a member and cannot be reached: {absent[name]}. Bring that host "
                f"back{another}"
            )
    wanted = tuple(
        desired_member(run.inventory, host, observed[name].detected_address)
        for name, (host, _) in hosts.items()
        if name not in left
    )
    refuse_without_members(live)
    located = locate_known(original, observed)
    leavers = member_hosts.settle_in_place(
        member_hosts.find_leavers(wish.leaving, original, live, wanted, located),
        live,
        wanted,
        planned=wish.planned,
    )
    moving = {host.name for host, _ in hosts.values()} if wish.moving else set()
    agreement.refuse_disagreement(
        live,
        (*located, *wanted),
        named=frozenset({x.host for x in leavers if x.host} | moving | {m.name for m in wanted}),
        ids=frozenset(x.member_id for x in leavers if x.member_id is not None),
        unlocated=frozenset(h.name for h in original.hosts) - {m.name for m in located},
    )
    dropped = frozenset(x.host for x in leavers if x.host and x.host not in hosts)
    after = edit_hosts(text, dropped, hosts) if dropped or hosts else text
    inventory = parse_inventory(after, file.path)
    if inventory.hosts == original.hosts:
        after = text
    seen = _Outlook(
        original,
        inventory,
        hosts,
        wanted,
        observed,
        absent,
        awaited,
        found,
        live,
        leavers,
        dropped,
        left,
    )
    return seen, after


async def _judge(run: Run, seen: _Outlook, goal: tuple[DesiredMember, ...]) -> tuple[Finding, ...]:
    names = {member.name for member in goal}
    paths = await preflight.probe_paths(
        run,
        tuple(host for name, host in seen.observed.items() if name in names),
        tuple(member for member in goal if member.name in seen.observed),
    )
    newcomers = tuple(
        seen.observed[member.name]
        for member in seen.wanted
        if not seen.inventory.layout(member.name).is_pod
    )
    leaving = {leaver.host for leaver in seen.leavers}
    return (
        *find_reasons(
            seen.inventory,
            newcomers,
            tuple(
                path
                for path in paths
                if {path.source, path.target} & set(seen.hosts)
                and not is_bound_elsewhere(path, seen.observed[path.target])
                and not _is_its_own(seen.inventory, path)
            ),
        ),
        *(f for f in clock_findings(tuple(seen.observed.values())) if f.host not in seen.hosts),
        *member_hosts.version_findings(seen.inventory, seen.live, tuple(seen.hosts)),
        *(
            Finding(Severity.WARNING, name, f"is left out: {why}")
            for name, why in seen.absent.items()
            if name not in leaving
        ),
        *await find_strange_sources(run, seen.wanted, goal),
    )


async def _observe_hosts(
    run: Run, unlocked: dict[str, str], late: Late
) -> tuple[dict[str, HostObservation], dict[str, str], frozenset[str]]:
    """See the hosts that are locked, and the late that are by then; the third part may still be."""
    observed: dict[str, HostObservation] = {}
    absent = dict(unlocked)

    async def see(host: HostConnection) -> None:
        try:
            observed[host.name] = await preflight.observe_host(run, host)
        except RunbookError as error:
            absent[host.name] = error.message

    await together(see(host) for host in run.hosts.values() if host.name not in absent)
    answered = {name: task.result() for name, task in late.items() if task.done()}
    absent |= {name: why for name, why in answered.items() if why is not None}
    joined = [run.hosts[name] for name, why in answered.items() if why is None]
    for host in joined:
        del absent[host.name]
    await together(map(see, joined))
    return (
        {name: observed[name] for name in run.hosts if name in observed},
        absent,
        frozenset(late) - frozenset(answered),
    )


def _gone_urls(seen: _Outlook, moved: tuple[DesiredMember, ...]) -> tuple[str, ...]:
    """List the client URLs that are none any more; one that is gone already is where it was."""
    known = {member.name: member.client_url for member in locate_known(seen.original, {})}
    found = [leaver.client_url or known.get(leaver.host or "") for leaver in seen.leavers]
    for member in moved:
        entry = next((m.member for m in seen.live if m.host == member.name), None)
        found += [*(entry.client_urls if entry else ()), known.get(member.name)]
    wanted = {member.client_url for member in seen.wanted}
    return tuple(dict.fromkeys(url for url in found if url and url not in wanted))


def _tells_others(seen: _Outlook, member: DesiredMember) -> bool:
    """Whether a member that moves still tells others its old URLs, or will at its next start."""
    entry = next((m.member for m in seen.live if m.host == member.name), None)
    if entry is None:
        raise Refused(f"{member.name} is in the inventory and is no member; add_member adds it")
    files = seen.observed[member.name].settings
    try:
        edited = readdress(files, member, (*entry.peer_urls, *entry.client_urls)) if files else None
    except NotUnderstood as error:
        raise Refused(
            f"{member.name}: its settings cannot be given the new address: {error}"
        ) from error
    return member.client_url not in entry.client_urls or edited != files


async def _targets(
    run: Run,
    seen: _Outlook,
    programs: Programs,
    goal: tuple[DesiredMember, ...],
    pattern: Pattern | None,
) -> dict[str, HostTarget]:
    wanted = [m for m in seen.wanted if not run.inventory.layout(m.name).is_pod]
    if not wanted:
        return {}
    trusted = read_authority_certificate(seen.inventory)
    known = {host.name for host in seen.original.hosts}
    targets = {}
    for member in wanted:
        host = seen.observed[member.name]
        is_new = pattern is not None and member.name not in known
        if is_new and trusts_others(host, trusted.decode() if trusted else None):
            raise Refused(
                f"{run.inventory.layout(member.name).trusted} is there and holds other "
                "authorities than the cluster's; what uses it on that host would lose them. Move "
                "it away there, if nothing does",
                host=member.name,
            )
        differences = certificates.leaf_differences(run.inventory, member, host, trusted)
        targets[member.name] = configuration.new_member_target(
            run.inventory,
            member,
            seen.wanted,
            host,
            programs.sums,
            differences,
            InitialState.EXISTING,
            await find_likeness(run, pattern, member, goal, host) if pattern else None,
        )
    return targets


def _is_its_own(inventory: Inventory, path: Path) -> bool:
    """Whether an answer, or none, may be a pod's etcd that ends and is started all the time.

    Without its data it does, and holds the port for a moment in place of our listener.
    """
    return inventory.layout(path.target).is_pod and path.met is not Reachability.TIMED_OUT


def _is_bare(seen: HostObservation | None) -> bool:
    """Whether a node has no manifest of etcd's, in place or kept: kubeadm has to make it one."""
    return seen is None or seen.settings is None or seen.settings.manifest is None


def _is_configured(inventory: Inventory, seen: HostObservation) -> bool:
    found = read_settings(seen.settings) if seen.settings else Settings()
    return (found.value("initial-cluster-token", "etcd-cluster"), found.value("name")) == (
        inventory.etcd.cluster_token,
        inventory.layout(seen.host).member,
    )


def _find_outdated(
    observed: dict[str, HostObservation], goal: tuple[DesiredMember, ...]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Tell which files of which hosts name other members than the goal, and which stay so."""
    outdated, left = {}, []
    for member in goal:
        files = observed[member.name].settings if member.name in observed else None
        if files is None or not files.units:
            continue
        try:
            changed = changed_files(files, name_members(files, goal))
        except NotUnderstood as error:
            left.append(
                f"{member.name}: its settings go on naming other members, which etcd reads at a "
                f"first start only: {error}"
            )
            continue
        if changed:
            outdated[member.name] = " and ".join(file.path for file in changed)
    return outdated, tuple(left)
