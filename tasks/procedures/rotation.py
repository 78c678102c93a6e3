"""What the certificate runbooks share: seeing every pair, and the moves that touch a member.

Composes steps; owns none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from typing_extensions import override

from tasks.engine.authority import expired_authority, known_authorities
from tasks.engine.run import Run, together, unless
from tasks.hosts.connection import HostConnection
from tasks.model.certificates import Generation
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import CertificateRefused, MemberFailed, NotSeen, Refused, Transient
from tasks.model.layout import Pair
from tasks.model.members import DesiredMember
from tasks.model.nodes import NodeObservation
from tasks.model.observation import LeafFiles, PairsObservation, ServiceState
from tasks.model.plan import Finding, Plan, Severity, Step
from tasks.pki.inspect import fingerprints, read_certificate
from tasks.pki.targets import LeafTarget, client_targets, member_targets
from tasks.plans.leaves import StageLeaves, SwapLeaves
from tasks.plans.nodes import find_reasons, find_unable
from tasks.plans.preflight import clock_findings
from tasks.plans.recovery import Damage, ReviveMember
from tasks.plans.rooms import unwritable
from tasks.plans.succession import RestartApiserver, RestartMember
from tasks.plans.trials import Trial, find_places
from tasks.plans.ways import find_closed
from tasks.procedures import location
from tasks.procedures.course import Recipe, Unlocked
from tasks.report.tables import Table
from tasks.steps import certificates, health, nodes, onhosts, services, trust

HEALTHY_SECONDS = 60.0
GATEWAY_SECONDS = 160.0
"""How long etcd's gateway may take to dial its own etcd anew, once its pair is sound.

gRPC's back-off (doc/connection-backoff.md): up to 120 s, and a fifth more.
"""
NO_PAIR = LeafFiles(None, None, None)

Targets = dict[str, dict[str, LeafTarget]]


@dataclass(frozen=True, slots=True)
class Sight:
    """The members, and what was seen of each host and client that could be reached.

    `absent` names the others with the reason.
    """

    members: tuple[DesiredMember, ...]
    observed: dict[str, PairsObservation]
    absent: dict[str, str]
    targets: Targets
    nodes: tuple[NodeObservation, ...] = ()
    closed: tuple[Finding, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What forbids the run or is to be weighed: clocks, pods, closed ways, who is absent."""
        absent = tuple(
            Finding(Severity.WARNING, name, f"is left out: {why}")
            for name, why in self.absent.items()
        )
        clocks = clock_findings(tuple(self.observed.values()))
        return (*clocks, *find_reasons(self.nodes), *self.closed, *absent)


class CertificateRecipe(Recipe[Sight]):
    """What certificate runbooks share: every pair is seen, every member measured."""

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> Sight:
        """See every pair that can be reached; raises NotSeen when none can."""
        sight = await look(run, unlocked)
        if not sight.observed:
            raise_unseen(run, sight)
        return sight

    @override
    def findings(self, seen: Sight) -> tuple[Finding, ...]:
        """Tell clocks that differ, and who is absent."""
        return seen.findings

    @override
    def obstructions(self, run: Run, seen: Sight, plan: Plan) -> tuple[Finding, ...]:
        """Refuse where who gets files has no place for them, or nothing would start a pod again."""
        restarted = plan.hosts_of(RestartMember) | plan.hosts_of(RestartApiserver)
        unable = find_unable(run.inventory, seen.nodes, restarted)
        clients = {step.name for step in plan.steps if isinstance(step, StageLeaves)}
        names = plan.hosts_of(Step) | clients
        full = (
            finding
            for name, each in seen.observed.items()
            if name in names
            for finding in unwritable(name, each.rooms)
        )
        return (*unable, *full)

    @override
    def trial(self, run: Run, seen: Sight, plan: Plan) -> Trial:
        """Try what clients' notes and manifests need, and the ways between members that serve."""
        return Trial(find_places(plan, run.inventory), self.needed_ways(seen))

    def needed_ways(self, seen: Sight) -> tuple[DesiredMember, ...]:
        """Name the members that must reach each other; here: all that were seen to serve."""
        return find_serving(seen)

    @override
    def measured(self, seen: Sight) -> tuple[DesiredMember, ...]:
        """Measure all members' service."""
        return seen.members


async def look(run: Run, unlocked: Unlocked) -> Sight:
    """See the pairs of every host and client at once; who cannot be reached is left out."""
    members = await location.locate_members(run)
    by_name = {member.name: member for member in members}
    absent = dict(unlocked)
    observed: dict[str, PairsObservation] = {}
    inventory = run.inventory

    async def see(name: str, host: HostConnection, pairs: Iterable[Pair]) -> None:
        client = next((c for c in inventory.clients if c.name == name), None)
        trusted = (client and client.trusted) or inventory.layout(host.name).trusted
        try:
            observed[name] = await certificates.observe_pairs(
                run, host, name, tuple(pairs), trusted, by_name.get(name)
            )
        except Transient as error:
            absent[name] = error.message

    hosts = [host for host in run.hosts.values() if host.name not in absent]
    clients = {
        client.name: client_targets(inventory, client)
        for client in inventory.clients
        if client.managed and (client.host or client.name) not in absent
    }
    await together(
        [
            *(see(host.name, host, inventory.layout(host.name).pairs) for host in hosts),
            *(
                see(name, run.clients[name], [target.pair for target in targets.values()])
                for name, targets in clients.items()
            ),
        ]
    )
    outside = {client.name: client for client in inventory.clients}
    targets: Targets = {
        name: client_targets(inventory, outside[name], seen)
        if name in clients
        else member_targets(inventory, by_name[name], seen.group, seen)
        for name, seen in observed.items()
    }
    pods, _ = await nodes.observe_nodes(run, frozenset(absent))
    return Sight(members, dict(sorted(observed.items())), absent, targets, pods)


async def with_ways(run: Run, sight: Sight) -> Sight:
    """Ask every node for its ways to the others, too: before the first change, and once."""
    ways = await nodes.observe_ways(run, sight.nodes, sight.members)
    return replace(sight, closed=find_closed(run.inventory, ways))


async def read_health(run: Run, sight: Sight) -> ClusterHealth:
    """Ask every member for its health; what is wrong is in the answer.

    Raises Refused when they let nobody of this runner's in, and serve under another authority.
    """
    async with health.etcd_client(run, sight.members) as client:
        found = await health.read_health(run, client)
    if not any(e.is_up for e in found.endpoints):
        await onhosts.refuse_foreign(run, sight.members)
    return found


def raise_unseen(run: Run, sight: Sight) -> None:
    """Raise NotSeen when a host or client was left out: nothing is known of its certificates."""
    if sight.absent:
        raise NotSeen(
            f"{len(sight.absent)} host(s) or client(s) of {run.inventory.name} were not seen, and "
            "nothing is known of their certificates:\n  - "
            + "\n  - ".join(f"{name}: {why}" for name, why in sight.absent.items())
            + f"\nrun {run.runbook} again when they can be reached; what could be seen is done"
        )


def refuse_distrust(run: Run, sight: Sight, authority: bytes) -> None:
    """Raise Refused when a node does not trust the authority that another node's key is of.

    Its peers would not let a member in whose pair that one has signed.
    """
    if not run.inventory.authority.on_hosts:
        return
    signer = read_certificate(authority).fingerprint
    strangers = []
    for name, seen in sight.observed.items():
        text = (seen.trusted.text if seen.trusted else None) or ""
        if name in run.hosts and signer not in fingerprints(text):
            strangers.append(name)
    if strangers:
        raise Refused(
            f"{', '.join(strangers)}: etcd/ca.crt there lacks the authority that would sign, "
            f"{signer[:16]}; the nodes must trust each other's authorities first. Nothing was "
            "changed"
        )


def refuse_absent(run: Run, sight: Sight) -> None:
    """Raise Refused when a host or client that must take part cannot be reached."""
    if sight.absent:
        raise Refused(
            f"{run.runbook} needs every host and client of {run.inventory.name}:\n  - "
            + "\n  - ".join(f"{name}: {why}" for name, why in sight.absent.items())
        )


async def swap_and_verify(
    run: Run,
    host: HostConnection,
    planned: SwapLeaves,
    *,
    sight: Sight,
) -> None:
    """Swap a host's or client's pairs; a member must then serve them, and reach and be reached."""
    await certificates.swap_leaves(run, host, planned, targets=sight.targets)
    member = next((m for m in sight.members if m.name == planned.name), None)
    if member is None:
        return
    seen = sight.observed[planned.name]
    if seen.served and all(seen.served.values()):
        await certificates.verify_served(run, host, member)
        await verify_ways(run, sight)


async def swap(run: Run, host: HostConnection, planned: SwapLeaves, *, sight: Sight) -> None:
    """Swap a host's or client's pairs; what is served is looked at later."""
    await certificates.swap_leaves(run, host, planned, targets=sight.targets)


async def revive(run: Run, host: HostConnection, _step: ReviveMember, *, sight: Sight) -> None:
    """Start a member anew unless it runs and lets the authority's clients in."""
    member = next(m for m in sight.members if m.name == host.name)
    await services.revive_member(run, host, accepts=await health.accepts_clients(run, member))


async def assess(run: Run, sight: Sight) -> Damage:
    """Say what keeps a cluster from working: authority, trusted files, pairs, services."""
    inventory = run.inventory
    authority = known_authorities(run)[Generation.CURRENT]
    current = read_certificate(authority).fingerprint
    return Damage(
        has_expired_authority=await expired_authority(run) is not None,
        distrusting=tuple(
            name
            for name, seen in sight.observed.items()
            if current not in trust.view_trust(run, seen, None).trusted or seen.has_pending_change
        ),
        work={
            name: {
                label: certificates.pair_differences(
                    inventory, target, sight.observed[name].pairs[label], authority, early=False
                )
                for label, target in targets.items()
            }
            for name, targets in sight.targets.items()
        },
        down=tuple(
            name
            for name, seen in sight.observed.items()
            if name in run.hosts
            and (seen.service is None or seen.service.state is not ServiceState.ACTIVE)
        ),
    )


async def stage(run: Run, host: HostConnection, planned: StageLeaves, *, sight: Sight) -> None:
    """Make, sign and stage a host's or client's pairs."""
    await certificates.stage_leaves(run, host, planned, targets=sight.targets)


async def verify_ways(run: Run, sight: Sight) -> None:
    """See every member that can be reached let in by all the others that serve."""
    serving = find_serving(sight)
    await together(
        certificates.verify_peers(run, run.hosts[member.name], serving) for member in serving
    )


def find_serving(sight: Sight) -> tuple[DesiredMember, ...]:
    """List the members that were seen to answer on both ports."""
    return tuple(
        m
        for m in sight.members
        if m.name in sight.observed and all(sight.observed[m.name].served.values())
    )


async def wait_until_healthy(
    run: Run,
    members: tuple[DesiredMember, ...],
    without: frozenset[str] = frozenset(),
    seconds: float = HEALTHY_SECONDS,
) -> ClusterHealth:
    """Wait for full health; raises MemberFailed with what etcd logged on each host."""
    async with health.etcd_client(run, members) as client:
        try:
            return await health.verify_cluster(run, client, members, seconds, without)
        except MemberFailed as error:
            raise await services.with_journals(run, error) from error


async def wait_for_start(
    run: Run,
    host: HostConnection,
    members: tuple[DesiredMember, ...],
    without: frozenset[str] = frozenset(),
) -> ClusterHealth:
    """Wait for full health after a member was started; raises MemberFailed once it has ended."""
    watching = services.watch_start(run, (host,))
    return await unless(watching, wait_until_healthy(run, members, without))


def pair_changes(before: Sight, after: Sight) -> Table:
    """Make the report's table of every pair, before and after."""
    rows = []
    for name, seen in after.observed.items():
        earlier = before.observed.get(name)
        for label, pair in seen.pairs.items():
            old = earlier.pairs.get(label, NO_PAIR) if earlier else NO_PAIR
            rows.append((name, label, *_describe(old), *_describe(pair)))
    columns = ("host", "pair", "serial before", "valid until", "serial after", "valid until")
    return Table(columns, tuple(rows))


def _describe(pair: LeafFiles) -> tuple[str, str]:
    if pair.certificate is None or not pair.certificate.text:
        return "none", ""
    try:
        facts = read_certificate(pair.certificate.text)
    except CertificateRefused:
        return "unreadable", ""
    return f"{facts.serial:x}"[:16], f"{facts.not_after:%Y-%m-%d %H:%M}"
