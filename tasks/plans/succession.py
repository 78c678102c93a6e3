"""One authority follows another without an outage: both trusted, leaves swapped, one trusted.

Every stage is derived from what the hosts hold and what their running etcd accepts, so that the
plan of an interrupted or stopped run is what is left to do. Going back is the same plan with the
two authorities exchanged. Source: etcd re-reads pairs at each handshake but its trusted file only
at start, so two rolling restarts are the least that does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tasks.model.certificates import Generation
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.layout import Layout
from tasks.model.members import DesiredMember
from tasks.model.plan import Plan, Stage, Step
from tasks.model.pointers import parameter
from tasks.model.trust import UNMADE, TrustView
from tasks.plans.apiservers import RESTARTED
from tasks.plans.barriers import name_authority
from tasks.plans.gate import find_obstacles
from tasks.plans.health import refuse_corrupt, refuse_unseen
from tasks.plans.leaves import Work, leaf_steps

MAKE = Stage(1, "the next authority")
TRUST_FILES = Stage(2, "trust both authorities: files, all members at once")
TRUST_RESTARTS = Stage(3, "trust both authorities: one at a time", is_serial=True)
TRUST_BARRIER = Stage(4, "barrier: everyone trusts both")
EXCHANGE = Stage(5, "the new one signs")
ISSUE = Stage(6, "new pairs, all hosts at once")
SWAP = Stage(7, "swap, one host at a time", is_serial=True)
LEAF_BARRIER = Stage(8, "barrier: every pair is the new one's")
FINAL_FILES = Stage(9, "trust the new authority alone: files, all members at once")
FINAL_RESTARTS = Stage(10, "trust the new authority alone: one at a time", is_serial=True)
FINAL_BARRIER = Stage(11, "verify")
RETIRE = Stage(12, "the old one ends")


SPARES_NONE = 2
"""A cluster of so many members cannot lose one."""


class Until(StrEnum):
    """The barrier at which a run stops; it can be resumed days later."""

    TRUST = "trust"
    CERTIFICATES = "certificates"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSuccessor(Step):
    """Make the next authority where the cluster's lies: on the runner, or on its hosts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteTrust(Step):
    """Write the trusted file of a host or a client: both authorities, or the target alone."""

    name: str
    both: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartMember(Step):
    """Move leadership away if need be, restart etcd, and wait for full health.

    The `successor` takes the leadership: one that is not restarted after it in this round.
    """

    successor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartApiserver(Step):
    """Restart the API server that lives on a member alone and trusts the same file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyTrust(Step):
    """See that every member accepts, and every client trusts, exactly these authorities."""

    both: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeAuthorities(Step):
    """Let the incoming authority sign; the one that signed until now is kept as `outgoing`."""

    incoming: Generation
    outgoing: Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyIssuers(Step):
    """See that every pair, on disk and served, is signed by the authority that signs now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireAuthority(Step):
    """Keep the files of the authority that nobody trusts any more under another name."""

    generation: Generation


@dataclass(frozen=True, slots=True)
class Direction:
    """Which authority is to be the only one, and which is to go; fingerprints.

    `incoming` is the target's place on the runner while it does not sign yet, else None.
    """

    target: str
    other: str
    incoming: Generation | None
    going: Generation

    @property
    def target_name(self) -> str:
        """What sentences call the target."""
        return "the new authority" if self.target == UNMADE else f"authority {self.target[:12]}"


def choose_direction(fingerprints: dict[Generation, str], *, reverse: bool) -> Direction | None:
    """Choose the target from the authorities on the runner; None when reversing has nothing to do.

    With a successor, the current one is to go; with a predecessor, the exchange is done and that
    one is to go; with neither, a successor is to be made.
    """
    current = fingerprints[Generation.CURRENT]
    after, before = fingerprints.get(Generation.NEXT), fingerprints.get(Generation.PREVIOUS)
    if reverse:
        if before is not None:
            return Direction(before, current, Generation.PREVIOUS, Generation.NEXT)
        return Direction(current, after, None, Generation.NEXT) if after is not None else None
    if after is None and before is not None:
        return Direction(current, before, None, Generation.PREVIOUS)
    return Direction(after or UNMADE, current, Generation.NEXT, Generation.PREVIOUS)


def plan_succession(
    inventory: Inventory,
    members: tuple[TrustView, ...],
    clients: tuple[TrustView, ...],
    direction: Direction,
    leader: str | None,
    until: Until = Until.END,
    *,
    trusting: frozenset[str] = frozenset(),
    renewed: frozenset[str] = frozenset(),
) -> Plan:
    """Plan what is left until every member and client trusts and uses the target alone.

    `trusting` and `renewed` are the unmanaged clients of which the operator says that they trust
    the target, and that they use its certificates; without their word the plan ends at the
    barrier that needs it. Raises Refused for a pair that neither authority has signed.
    """
    unmanaged = [client.name for client in inventory.clients if not client.managed]
    _check(inventory, members, direction)
    target, both = direction.target, frozenset({direction.target, direction.other})
    order = tuple(sorted(members, key=lambda view: view.name == leader))
    everyone = (*order, *clients)
    connections = {view.name: view.name for view in members}
    connections |= {client.name: client.host or client.name for client in inventory.clients}
    waiting = {
        Until.TRUST: [name for name in unmanaged if name not in trusting | renewed],
        Until.CERTIFICATES: [name for name in unmanaged if name not in renewed],
    }
    is_dual = any(_is_foreign(view, target) for view in everyone) or direction.incoming is not None
    steps: list[Step] = []
    goal, stop = f"everyone trusts and uses {direction.target_name} alone", Until.END
    if direction.target == UNMADE:
        steps.append(MakeSuccessor(stage=MAKE, host=None, sentence=f"make {direction.target_name}"))
    if is_dual:
        steps += _trust_steps(inventory, order, clients, connections, both)
        steps.append(_verify_trust(TRUST_BARRIER, both=True))
        if waiting[Until.TRUST] or until is Until.TRUST:
            stop, goal = Until.TRUST, "everyone trusts both authorities"
    if stop is Until.END:
        if direction.incoming is not None:
            steps.append(
                ExchangeAuthorities(
                    stage=EXCHANGE,
                    host=None,
                    incoming=direction.incoming,
                    outgoing=direction.going,
                    sentence=f"let {direction.target_name} sign from now on",
                )
            )
        work: Work = {
            view.name: {
                label: (f"signed by {name_authority(issuer)}",) if issuer != target else ()
                for label, issuer in view.issuers.items()
            }
            for view in everyone
        }
        steps += leaf_steps(work, work, connections, ISSUE, SWAP)
        steps.append(
            VerifyIssuers(
                stage=LEAF_BARRIER,
                host=None,
                sentence=f"see every pair signed by {direction.target_name}, on disk and served",
            )
        )
        if waiting[Until.CERTIFICATES] or until is Until.CERTIFICATES:
            stop, goal = Until.CERTIFICATES, f"every pair is signed by {direction.target_name}"
    if stop is Until.END:
        alone = frozenset({target})
        hands_over = any(isinstance(s, RestartMember) and s.host == leader for s in steps)
        last = (*order[1:], *order[:1]) if hands_over else order  # who leads since then, last again
        steps += _trust_steps(inventory, last, clients, connections, alone)
        steps.append(_verify_trust(FINAL_BARRIER, both=False))
        steps.append(
            RetireAuthority(
                stage=RETIRE,
                host=None,
                generation=direction.going,
                sentence=f"keep authority {direction.other[:12]} aside: nobody trusts it any more",
            )
        )
    warnings = _waiting_sentences(waiting, stop)
    return Plan("rotate_authority", inventory.name, goal, tuple(steps), warnings)


def refuse_ill(
    inventory: Inventory, members: tuple[DesiredMember, ...], health: ClusterHealth
) -> None:
    """Raise Refused unless every member is healthy: the barriers need them all.

    A full database (NOSPACE) is no obstacle: an authority is exchanged without a write.
    """
    refuse_unseen(health)
    refuse_corrupt(health)
    if problems := health.find_faults(members):
        raise Refused(
            f"the authority of {inventory.name} is rotated in full health only:\n  - "
            + "\n  - ".join(problems)
        )


def refuse_unless_safe(
    plan: Plan,
    members: tuple[DesiredMember, ...],
    health: ClusterHealth,
    *,
    accept_outage: bool,
) -> None:
    """Raise Refused when a member that the plan restarts cannot be spared."""
    reasons: dict[str, None] = {}
    restarts = {step.host for step in plan.steps if isinstance(step, RestartMember)}
    for host in restarts if not accept_outage else ():
        reasons |= dict.fromkeys(find_obstacles(members, health, str(host), restarts=True))
    if reasons:
        hint = (
            ""
            if accept_outage or len(members) > SPARES_NONE
            else "\nwith one or two members every restart is an outage, which is taken with "
            + parameter(accept_outage=True)
        )
        raise Refused(
            f"{plan.cluster} is not to be touched now:\n  - " + "\n  - ".join(reasons) + hint
        )


def _waiting_sentences(waiting: dict[Until, list[str]], stop: Until) -> tuple[str, ...]:
    names = ", ".join(waiting.get(stop, ()))
    if not names:
        return ()
    if stop is Until.TRUST:
        return (
            f"stops at the barrier until the operator has made {names} trust both authorities "
            f"(ca.bundle.pem beside the authority on the runner); then run again with "
            f"{parameter(clients_trusting=waiting[stop])}",
        )
    return (
        f"stops at the barrier until the operator has given {names} certificates of the new "
        f"authority; then run again with {parameter(clients_renewed=waiting[stop])}",
    )


def _check(inventory: Inventory, members: tuple[TrustView, ...], direction: Direction) -> None:
    known = {direction.target, direction.other}
    reasons = [
        f"{view.name}: its {label} pair is signed by neither of the cluster's authorities"
        for view in members
        for label, issuer in view.issuers.items()
        if issuer not in known
    ]
    reasons += [
        f"{view.name}: serves a certificate that neither of the cluster's authorities has signed"
        for view in members
        if view.served - known
    ]
    if reasons:
        raise Refused(
            f"the authority of {inventory.name} cannot be rotated from here:\n  - "
            + "\n  - ".join(reasons)
            + "\nrotate_certificates or recover_certificates brings them to one authority first"
        )


def _is_foreign(view: TrustView, target: str) -> bool:
    return any(issuer != target for issuer in (*view.issuers.values(), *view.served))


def _trust_steps(
    inventory: Inventory,
    members: tuple[TrustView, ...],
    clients: tuple[TrustView, ...],
    connections: dict[str, str],
    wanted: frozenset[str],
) -> list[Step]:
    both = len(wanted) > 1
    files, restarts = (TRUST_FILES, TRUST_RESTARTS) if both else (FINAL_FILES, FINAL_RESTARTS)
    what = "both authorities" if both else "the target alone"
    steps: list[Step] = [
        WriteTrust(
            stage=files if view in members else restarts,
            host=connections[view.name],
            name=view.name,
            both=both,
            sentence=f"write the trusted file of {view.name}: {what}",
        )
        for view in (*clients, *members)
        if view.trusted != wanted or view.has_pending_change
    ]
    for view in members:
        name = view.name
        waits = _wait(inventory.layout(name), both=both)
        if view.accepted != wanted:
            said = f"restart etcd on {name}, not while it leads; wait for full health{waits}"
            after = members[-1] if view is members[0] else members[0]
            steps.append(
                RestartMember(stage=restarts, host=name, sentence=said, successor=after.name)
            )
        is_told = view.trusted == wanted and not view.has_pending_change
        if inventory.layout(name).has_apiserver and not is_told:
            said = f"restart the API server of {name}, which trusts the same file: {RESTARTED}"
            said += waits
            steps.append(RestartApiserver(stage=restarts, host=name, sentence=said))
    return steps


def _wait(layout: Layout, *, both: bool) -> str:
    """Say for how long a node waits for its kubelet, where that may not be restarted."""
    if not layout.is_pod or layout.restarts_kubelet:
        return ""
    number, seconds = (1, 1) if both else (2, 15)
    return (
        f" (restart {number} of 2 there, and the kubelet is not restarted: {seconds} s more, "
        "longer where that container has ended within the last ten minutes)"
    )


def _verify_trust(stage: Stage, *, both: bool) -> VerifyTrust:
    what = "both authorities" if both else "the one that signs, and no other"
    return VerifyTrust(
        stage=stage, host=None, both=both, sentence=f"see every member and client trust {what}"
    )
