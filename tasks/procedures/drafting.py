"""Drafting a change of the members: seeing hosts and cluster, and the plan; changes nothing.

Composes steps; owns none.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tasks.config.editing import name_members, readdress
from tasks.config.launch import NotUnderstood
from tasks.config.likeness import exchanged_address
from tasks.config.rendering import InitialState
from tasks.config.settings import changed_files, read_settings
from tasks.engine.authority import read_authority_certificate
from tasks.engine.run import Run, both
from tasks.model.cluster import ClusterHealth
from tasks.model.dependents import Moves
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.inventory_file import InventoryFile
from tasks.model.member_settings import Settings, SettingsFiles
from tasks.model.members import DesiredMember, Member, SeenMember
from tasks.model.nodes import NodeObservation
from tasks.model.observation import HostObservation, HostTarget
from tasks.model.plan import Finding, Plan
from tasks.plans import member_changes, member_hosts, sharing
from tasks.plans.apiservers import warn_of_clients
from tasks.plans.bootstrap import trust_text, trusts_others
from tasks.plans.kubeadm import address_left, nodes_left
from tasks.plans.member_names import find_unruled
from tasks.plans.nodes import (
    find_obstructions,
    find_paused,
    find_unsettled,
)
from tasks.plans.preflight import find_unmoved_names
from tasks.plans.sandbox import hidden_findings
from tasks.plans.voters import refuse_without_quorum
from tasks.plans.ways import find_closed
from tasks.procedures.likeness import Pattern, find_likeness, find_pattern
from tasks.procedures.outlook import Outlook, judge, look
from tasks.procedures.readdressing import Leaves, find_leaves
from tasks.procedures.roster import Roster, locate_known
from tasks.procedures.wishes import Wish
from tasks.report.inventories import inventory_diff
from tasks.steps import (
    certificates,
    configuration,
    dependents,
    installation,
    nodes,
)
from tasks.steps import sharing as see_sharing
from tasks.steps.installation import Programs
from tasks.steps.locks import Late


@dataclass(frozen=True, slots=True)
class Draft:
    """A plan, and what was seen for it; `edited` are the settings files that it writes."""

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
    leaves: Leaves
    edited: dict[str, tuple[str, ...]]
    listens: dict[str, str]

    @property
    def down(self) -> frozenset[str]:
        """Members that stay, and were down before this run: nobody waits for them."""
        joining = {member.peer_url for member in self.joining}
        return frozenset(
            m.host for m in self.live if not m.is_healthy and m.peer_url not in joining
        ) & {member.name for member in self.goal}


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
    seen, after = await look(run, file, wish, roster, unlocked, late)
    moved = seen.wanted if wish.moving else ()
    joining = () if wish.moving else seen.wanted
    removals = frozenset(x.member_id for x in seen.leavers if x.member_id is not None)
    order = {host.name: number for number, host in enumerate(seen.inventory.hosts)}
    goal = member_changes.goal_members(seen.live, removals, joining, moved)
    goal = tuple(sorted(goal, key=lambda member: order.get(member.name, len(order))))
    moves = Moves(_gone_urls(seen, moved), seen.wanted, goal)
    findings, programs = await both(
        judge(run, seen, goal), asyncio.to_thread(installation.load_programs, seen.inventory)
    )
    pods, _ = await nodes.observe_nodes(run)
    joined = frozenset(member.name for member in joining)
    leaving = {x.host for x in seen.leavers if x.host}
    last = [
        *dependents.plan_node_updates(run, pods, moves, leaving - joined, wish.skip),
        *await dependents.plan_updates(run, moves, wish.skip),
    ]
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
    made = any(not run.inventory.layout(name).is_pod for name in joined)
    if made:  # without a quorum no member is healthy that could be a model
        refuse_without_quorum(seen.live)
    pattern = find_pattern(run, seen.live, seen.observed, joined) if made else None
    moving = {member.name for member in moved}
    findings = (
        *findings,
        *await _weigh_nodes(run, seen, pods, joined | leaving | moving),
        *(
            finding
            for name in moving
            for finding in find_unmoved_names(seen.inventory.host(name), seen.observed.values())
        ),
    )
    targets = await _targets(run, seen, programs, goal, pattern, stays=bool(moved))
    for name, target in targets.items():
        hidden = hidden_findings(seen.observed[name], seen.inventory.layout(name), target)
        findings = (*findings, *hidden)
    edited, left = _find_outdated(seen.observed, goal)
    outdated = {name: " and ".join(paths) for name, paths in edited.items()}
    stranded = member_hosts.warn_of_stranded(seen.original, seen.dropped)
    new = joined - {host.name for host in seen.original.hosts}
    warnings = (
        *warnings,
        *left,
        *stranded,
        *(pattern.remarks if pattern else ()),
        *find_unruled(seen.inventory.hosts, new),
        *(await _find_lacking(run, pattern, new) if pattern else ()),
        *nodes_left(seen.inventory, seen.left, leaving - joined),
        *(each for m in moved for each in address_left(seen.inventory, pods, m)),
    )
    away = {x.name for x in (*joining, *moved) if run.inventory.layout(x.name).has_apiserver}
    if away:
        warnings = (*warnings, *warn_of_clients(pods))
    leaves, listens = Leaves(), {}
    if moved:
        listens = exchanged_address(
            seen.original.layout(moved[0].name), run.inventory.layout(moved[0].name)
        )
        if run.inventory.layout(moved[0].name).is_pod:
            leaves = await find_leaves(run, moved[0])
        plan = member_changes.plan_move(
            seen.inventory,
            seen.live,
            moved[0],
            seen.observed[moved[0].name],
            targets.get(moved[0].name),
            leaves.work,
            restarts=_has_to_restart(seen, moved[0], listens),
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
        leaves,
        edited | _find_edited(seen, moved, targets, listens),
        listens,
    )


async def _weigh_nodes(
    run: Run, seen: Outlook, pods: tuple[NodeObservation, ...], changed: frozenset[str]
) -> tuple[Finding, ...]:
    """Say what of the nodes forbids the change or is to be weighed."""
    staying = tuple(m.as_desired for m in seen.live if m.host not in changed)
    ways = await nodes.observe_ways(run, pods, staying)  # the others' were probed already
    return (*find_obstructions(run.inventory, pods, changed), *find_closed(run.inventory, ways))


async def _find_lacking(run: Run, pattern: Pattern, new: frozenset[str]) -> tuple[str, ...]:
    """Tell which certificates the model's host has beside its member's, and new hosts will not."""
    model = pattern.model.layout
    (seen,) = await see_sharing.see_all(run, [model.host] if new else []) or (None,)
    return sharing.find_lacking(seen, model, new) if seen else ()


def _gone_urls(seen: Outlook, moved: tuple[DesiredMember, ...]) -> tuple[str, ...]:
    """List the client URLs that are none any more; one that is gone already is where it was."""
    known = {member.name: member.client_url for member in locate_known(seen.original, {})}
    found = [leaver.client_url or known.get(leaver.host or "") for leaver in seen.leavers]
    for member in moved:
        entry = next((m.member for m in seen.live if m.host == member.name), None)
        found += [*(entry.client_urls if entry else ()), known.get(member.name)]
    wanted = {member.client_url for member in seen.wanted}
    return tuple(dict.fromkeys(url for url in found if url and url not in wanted))


def _readdressed(
    seen: Outlook, member: DesiredMember, listens: dict[str, str]
) -> tuple[SettingsFiles | None, SettingsFiles | None]:
    """Give the settings of a member that moves, as they are and with its new addresses."""
    entry = _member_of(seen, member)
    files = seen.observed[member.name].settings
    former = (*entry.peer_urls, *entry.client_urls)
    try:
        return files, readdress(files, member, former, listens) if files else None
    except NotUnderstood as error:
        raise Refused(
            f"{member.name}: its settings cannot be given the new address: {error}"
        ) from error


def _member_of(seen: Outlook, member: DesiredMember) -> Member:
    for live in seen.live:
        if live.host == member.name:
            return live.member
    raise Refused(f"{member.name} is in the inventory and is no member; add_member adds it")


def _has_to_restart(seen: Outlook, member: DesiredMember, listens: dict[str, str]) -> bool:
    """Whether a member that moves tells or hears at what it left, or will at its next start."""
    files, edited = _readdressed(seen, member, listens)
    return member.client_url not in _member_of(seen, member).client_urls or edited != files


async def _targets(
    run: Run,
    seen: Outlook,
    programs: Programs,
    goal: tuple[DesiredMember, ...],
    pattern: Pattern | None,
    *,
    stays: bool,
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
        like = pattern.trusted if pattern else None
        if is_new and trusts_others(host, trust_text(trusted.decode() if trusted else None, like)):
            raise Refused(
                f"{run.inventory.layout(member.name).trusted} is there and holds other "
                "authorities than the cluster's; what uses it on that host would lose them. Move "
                "it away there, if nothing does",
                host=member.name,
            )
        differences = certificates.leaf_differences(run.inventory, member, host, trusted)
        if stays:  # whoever wrote its unit and settings, they are edited in place
            targets[member.name] = configuration.kept_target(
                run.inventory, host, programs.sums, differences
            )
            continue
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


def _is_configured(inventory: Inventory, seen: HostObservation) -> bool:
    found = read_settings(seen.settings) if seen.settings else Settings()
    return (found.value("initial-cluster-token", "etcd-cluster"), found.value("name")) == (
        inventory.etcd.cluster_token,
        inventory.layout(seen.host).member,
    )


def _find_edited(
    seen: Outlook,
    moved: tuple[DesiredMember, ...],
    targets: dict[str, HostTarget],
    listens: dict[str, str],
) -> dict[str, tuple[str, ...]]:
    """Tell which files say how a member that joins or moves starts, and will be written."""
    found = {
        name: tuple(file.path for file in target.likeness.files)
        for name, target in targets.items()
        if target.likeness is not None
    }
    for member in moved:
        files, edited = _readdressed(seen, member, listens)
        if files is not None and edited is not None:
            found[member.name] = tuple(file.path for file in changed_files(files, edited))
    return found


def _find_outdated(
    observed: dict[str, HostObservation], goal: tuple[DesiredMember, ...]
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Tell which files of which hosts name other members than the goal, and which stay so."""
    outdated, left = dict[str, tuple[str, ...]](), list[str]()
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
            outdated[member.name] = tuple(file.path for file in changed)
    return outdated, tuple(left)
