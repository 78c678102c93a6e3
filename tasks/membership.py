"""Seeing the cluster and its hosts, and drafting the change of its members; changes nothing.

Owns what the operator's words mean: which member, which host. Composes the steps of the other
task modules; owns no step of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from pydantic import ValidationError

from tasks import (
    certificates,
    configuration,
    dependents,
    health,
    installation,
    preflight,
)
from tasks.authority import read_authority_certificate
from tasks.config.editing import edit_initial_cluster
from tasks.config.parsing import parse_configuration
from tasks.config.rendering import InitialState
from tasks.engine import Run, together
from tasks.etcd.client import EtcdClient
from tasks.hosts.connection import HostConnection
from tasks.model.cluster import ClusterHealth, DesiredMember, SeenMember
from tasks.model.dependents import Moves
from tasks.model.errors import Refused, RunbookError
from tasks.model.inventory import Host, Inventory, SshOverride, Topology
from tasks.model.inventory_file import edit_hosts, find_inventory, load_inventory, parse_inventory
from tasks.model.observation import HostObservation, HostTarget
from tasks.model.plan import Finding, Plan, Severity
from tasks.plans import members as plans
from tasks.plans import membership
from tasks.plans.addresses import desired_member
from tasks.plans.members import Leaver
from tasks.plans.preflight import clock_findings, find_reasons
from tasks.report.inventories import inventory_diff


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator wants of the members, as it was typed.

    `leaving`: names, ids or addresses. `joining`: NAME=ADDRESS, or the name of a host that the
    inventory has; in pairs with `leaving`, a joiner takes the other's place and SSH options.
    """

    leaving: tuple[str, ...] = ()
    joining: tuple[str, ...] = ()
    planned: bool = False
    writes_inventory: bool = False
    skip: tuple[str, ...] = ()


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

    @property
    def down(self) -> frozenset[str]:
        """Members that stay, and were down before this run: nobody waits for them."""
        joining = {member.peer_url for member in self.joining}
        return frozenset(
            m.member.name for m in self.live if not m.is_healthy and m.peer_url not in joining
        ) & {member.name for member in self.goal}


class Roster:
    """Where members can be asked: the inventory's, and every further one that the list names."""

    def __init__(self, known: Iterable[DesiredMember]) -> None:
        self._by_url = {member.client_url: member for member in known}

    @property
    def members(self) -> tuple[DesiredMember, ...]:
        """All that are known."""
        return tuple(self._by_url.values())

    def add(self, member: DesiredMember) -> None:
        """Ask one that joins, too."""
        self._by_url.setdefault(member.client_url, member)

    def drop(self, client_url: str | None) -> None:
        """Forget one that was removed: nobody is to wait for its answer."""
        self._by_url.pop(client_url or "", None)

    def open(self, run: Run) -> AbstractAsyncContextManager[EtcdClient]:
        """Open a client of all of them."""
        return health.etcd_client(run, self.members)

    async def look(self, run: Run) -> ClusterHealth:
        """Ask all members; those that the list names and nobody knew are asked, too."""
        while True:
            async with self.open(run) as client:
                found = await client.observe_cluster()
            further = {
                url: DesiredMember(m.member.name, m.peer_url, url)
                for m in found.seen_members()
                for url in m.member.client_urls[:1]
                if url not in self._by_url
            }
            if not further:
                return found
            self._by_url |= further


def wished_inventory(cluster: str, wish: Wish) -> Inventory:
    """Load the inventory with the hosts that are to join in it; raises Refused and such."""
    inventory = load_inventory(cluster)
    if inventory.topology is Topology.STACKED:
        raise Refused(
            f"{inventory.name} is stacked: its members come and go with control-plane nodes "
            "(kubeadm join, kubeadm reset); these runbooks change external clusters"
        )
    hosts = {host.name: host for host in inventory.hosts}
    for host, _ in joining_hosts(inventory, wish).values():
        hosts[host.name] = host
    return inventory.model_copy(update={"hosts": tuple(hosts.values())})


def find_same_hosts(cluster: str, words: Iterable[str]) -> tuple[str, ...]:
    """Find the inventory's hosts that are called so; raises Refused for an id or a stranger."""
    found = []
    for word in words:
        hosts = load_inventory(cluster).hosts
        name = next((h.name for h in hosts if word in (h.name, h.address)), None)
        if name is None:
            raise Refused(
                f"{word}: no host of the inventory is called so; name the host that takes its "
                "place (replacement, NAME=ADDRESS)"
            )
        found.append(name)
    return tuple(found)


def joining_hosts(inventory: Inventory, wish: Wish) -> dict[str, tuple[Host, str | None]]:
    """Read who is to join: the host, and the inventory's host whose place it takes."""
    known = {host.name: host for host in inventory.hosts}
    found: dict[str, tuple[Host, str | None]] = {}
    for index, word in enumerate(wish.joining):
        name, _, address = word.partition("=")
        left = wish.leaving[index] if index < len(wish.leaving) else None
        place = next((h for h in inventory.hosts if left in (h.name, h.address)), None)
        replaced = place.name if place else None
        if not address:
            if name not in known:
                raise Refused(
                    f"{name}: the inventory has no such host; say NAME=ADDRESS "
                    f"({name}=192.0.2.9), or put it into the inventory"
                )
            found[name] = (known[name], replaced)
            continue
        try:
            host = Host(
                name=name,
                address=address,
                ssh=place.ssh if place else known[name].ssh if name in known else SshOverride(),
            )
        except ValidationError as error:
            said = "; ".join(str(e["msg"]).removeprefix("Value error, ") for e in error.errors())
            raise Refused(f"{word}: {said}; say NAME=ADDRESS") from error
        same = known.get(name)
        found[name] = (same if same and same.address == address else host, replaced)
    return found


async def draft_plan(run: Run, cluster: str, wish: Wish, unlocked: dict[str, str]) -> Draft:
    """Observe hosts and members, and plan; raises Refused. Changes nothing."""
    observed, absent = await _observe_hosts(run, unlocked)
    roster = Roster(_locate(run.inventory, observed))
    found = await roster.look(run)
    live = found.seen_members()
    original = load_inventory(cluster)
    hosts = joining_hosts(original, wish)
    for name in hosts:
        if name not in observed:
            raise Refused(f"{name} is to join and cannot be reached: {absent[name]}")
    joining = tuple(
        desired_member(host, observed[name].detected_address) for name, (host, _) in hosts.items()
    )
    if not live:
        membership.order_changes(live, frozenset(), (), planned=False)
    leavers = plans.find_leavers(wish.leaving, original, live, joining)
    plans.refuse_strangers(live, (*_locate(original, observed), *joining), leavers)
    removals = frozenset(x.member_id for x in leavers if x.member_id is not None)
    goal = plans.goal_members(live, removals, joining)
    path = find_inventory(cluster)
    text = path.read_text()
    dropped = frozenset(x.host for x in leavers if x.host and x.host not in hosts)
    wanted = edit_hosts(text, dropped, hosts) if dropped or hosts else text
    inventory = parse_inventory(wanted, path)
    if inventory.hosts == original.hosts:
        wanted = text
    newcomers = tuple(observed[member.name] for member in joining)
    paths = await preflight.probe_paths(
        run,
        tuple(seen for name, seen in observed.items() if name in {m.name for m in goal}),
        tuple(m for m in goal if m.name in observed),
    )
    findings = (
        *find_reasons(
            inventory, newcomers, tuple(p for p in paths if {p.source, p.target} & set(hosts))
        ),
        *(f for f in clock_findings(tuple(observed.values())) if f.host not in hosts),
        *plans.version_findings(inventory, live, tuple(hosts)),
        *(
            Finding(Severity.WARNING, name, f"is left out: {why}")
            for name, why in absent.items()
            if name not in {x.host for x in leavers}
        ),
    )
    targets = _targets(run, inventory, joining, observed)
    warnings: tuple[str, ...] = ()
    gone = _gone_urls(leavers, original)
    moves = Moves(gone, joining, goal)
    last = list(await dependents.plan_updates(run, moves, wish.skip))
    if wanted != text:
        diff = inventory_diff(text, wanted, path.name)
        if wish.writes_inventory:
            last.append(
                plans.WriteInventory(
                    stage=plans.INVENTORY, host=None, sentence=f"write {path}:\n{diff}", text=wanted
                )
            )
        else:
            warnings = (
                f"{path} must say so too; set write_inventory to let this run do it:\n{diff}",
            )
    plan = plans.plan_members(
        run.runbook,
        inventory,
        live,
        leavers,
        joining,
        observed,
        targets,
        planned=wish.planned,
        configured=frozenset(n for n, s in observed.items() if _is_configured(run.inventory, s)),
        outdated=frozenset(
            m.name for m in goal if m.name in observed and _is_outdated(observed[m.name], goal)
        ),
        further=tuple(last),
        warnings=warnings,
    )
    return Draft(plan, findings, live, found, goal, joining, observed, roster)


async def _observe_hosts(
    run: Run, unlocked: dict[str, str]
) -> tuple[dict[str, HostObservation], dict[str, str]]:
    observed: dict[str, HostObservation] = {}
    absent = dict(unlocked)

    async def see(host: HostConnection) -> None:
        try:
            observed[host.name] = await preflight.observe_host(run, host)
        except RunbookError as error:
            absent[host.name] = error.message

    await together(see(host) for host in run.hosts.values() if host.name not in absent)
    return {name: observed[name] for name in run.hosts if name in observed}, absent


def _locate(
    inventory: Inventory, observed: dict[str, HostObservation]
) -> tuple[DesiredMember, ...]:
    """Say where the inventory's members are, of those whose address is known."""
    found = []
    for host in inventory.hosts:
        seen = observed.get(host.name)
        try:
            found.append(desired_member(host, seen.detected_address if seen else None))
        except Refused:
            continue  # without an address and unreachable: the member list knows it
    return tuple(found)


def _gone_urls(leavers: tuple[Leaver, ...], original: Inventory) -> tuple[str, ...]:
    """List the client URLs of those that leave; one that is gone already is where it was."""
    known = {member.name: member.client_url for member in _locate(original, {})}
    found = (leaver.client_url or known.get(leaver.host or "") for leaver in leavers)
    return tuple(url for url in found if url)


def _targets(
    run: Run,
    inventory: Inventory,
    joining: tuple[DesiredMember, ...],
    observed: dict[str, HostObservation],
) -> dict[str, HostTarget]:
    programs = installation.load_programs(inventory)
    trusted = read_authority_certificate(inventory)
    return {
        member.name: configuration.new_member_target(
            run.inventory,
            member,
            joining,
            observed[member.name],
            programs.sums,
            certificates.leaf_differences(run.inventory, member, observed[member.name], trusted),
            InitialState.EXISTING,
        )
        for member in joining
    }


def _is_configured(inventory: Inventory, seen: HostObservation) -> bool:
    try:
        found = parse_configuration(seen.configuration.text or "") if seen.configuration else {}
    except ValueError:
        return False
    return (found.get("ETCD_INITIAL_CLUSTER_TOKEN"), found.get("ETCD_NAME")) == (
        inventory.etcd.cluster_token,
        seen.host,
    )


def _is_outdated(seen: HostObservation, goal: tuple[DesiredMember, ...]) -> bool:
    text = seen.configuration.text if seen.configuration else None
    edited = edit_initial_cluster(text, goal) if text else None
    return edited is not None and edited != text
