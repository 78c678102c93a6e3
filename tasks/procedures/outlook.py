"""Seeing what a change of the members is drafted from: hosts, members, and the inventory's edit.

Composes steps; owns none.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.engine.run import Run, both, together
from tasks.hosts.connection import HostConnection
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import Refused, RunbookError
from tasks.model.inventory import Inventory
from tasks.model.inventory_file import InventoryFile, edit_hosts, parse_inventory
from tasks.model.machines import Host
from tasks.model.members import DesiredMember, SeenMember
from tasks.model.observation import HostObservation, Path, Reachability
from tasks.model.plan import Finding, Severity
from tasks.model.pointers import parameter, pointer
from tasks.plans import agreement, member_hosts
from tasks.plans.addresses import desired_member
from tasks.plans.kubeadm import refuse_to_join
from tasks.plans.member_hosts import Leaver
from tasks.plans.preflight import clock_findings, find_reasons, is_bound_elsewhere
from tasks.plans.voters import refuse_without_members
from tasks.procedures.location import find_strange_sources
from tasks.procedures.roster import Roster, locate_known
from tasks.procedures.wishes import Wish, joining_hosts
from tasks.steps import (
    onhosts,
    preflight,
)
from tasks.steps.locks import Late


@dataclass(frozen=True, slots=True)
class Outlook:
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


async def look(
    run: Run, file: InventoryFile, wish: Wish, roster: Roster, unlocked: dict[str, str], late: Late
) -> tuple[Outlook, str]:
    """See hosts and members, and write what the inventory shall say; raises Refused."""
    (observed, absent, awaited), found = await both(
        _observe_hosts(run, unlocked, late), roster.look(run, settled=True)
    )
    known = roster.members
    for member in locate_known(run.inventory, observed):
        roster.add(member)
    if roster.members != known:
        found = await roster.look(run, settled=True)
    found = await roster.reconsider(run, found, observed)
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
    if left and not wish.leaving:
        refuse_to_join(original, left, live)
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
    seen = Outlook(
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


async def judge(run: Run, seen: Outlook, goal: tuple[DesiredMember, ...]) -> tuple[Finding, ...]:
    """Say what forbids the change or is to be weighed: paths, clocks, versions, who is absent."""
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
        *await find_strange_sources(run, seen.wanted, goal, seen.observed),
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


def _is_its_own(inventory: Inventory, path: Path) -> bool:
    """Whether an answer, or none, may be a pod's etcd that ends and is started all the time.

    Without its data it does, and holds the port for a moment in place of our listener.
    """
    return inventory.layout(path.target).is_pod and path.met is not Reachability.TIMED_OUT


def _is_bare(seen: HostObservation | None) -> bool:
    """Whether a node has no manifest of etcd's, in place or kept: kubeadm has to make it one."""
    return seen is None or seen.settings is None or seen.settings.manifest is None
