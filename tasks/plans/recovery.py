"""Recovery of a cluster whose certificates keep it from working: over SSH, all hosts at once.

HTTPS may be dead, so nothing is gated on health: what is broken is made right on every disk, and
only a member that is down, or has loaded other authorities, is started anew. Etcd that runs reads
new pairs at its next handshake.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tasks.model.cluster import ClusterHealth
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.member_settings import TextFile
from tasks.model.members import quorum
from tasks.model.plan import Plan, Stage, Step
from tasks.model.pointers import parameter
from tasks.plans.apiservers import RESTARTED
from tasks.plans.kubeadm import certificates_left
from tasks.plans.leaves import Work, leaf_steps
from tasks.plans.succession import WriteTrust

RENEW = Stage(1, "on the runner")
TRUST = Stage(2, "trust the authority: files, all hosts at once")
ISSUE = Stage(3, "make and sign, all hosts at once")
SWAP = Stage(4, "swap, all hosts at once")
REVIVE = Stage(5, "start what is down, all hosts at once")
VERIFY = Stage(6, "verify")
SERVE = Stage(7, "bring the API servers back, all at once")


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewAuthority(Step):
    """Give the expired authority a new life with the same key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviveMember(Step):
    """Start etcd if it is down; restart it if it does not accept the authority's clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviveApiserver(Step):
    """Start the API server that lives on a host's member, if it is not ready.

    `restarts`: it must read its trusted file again, which it does at its start alone.
    """

    restarts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreManifest(Step):
    """Write a static pod's manifest that is lost; `file` is where it is staged."""

    file: TextFile


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRecovery(Step):
    """Wait until the members have found each other, and serve."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong: with the authority, trusted files, pairs, and services, by host or client.

    `distrusting` do not have the authority in their trusted file, or were changed and not told.
    """

    has_expired_authority: bool
    distrusting: tuple[str, ...]
    work: Work
    down: tuple[str, ...]


def plan_recovery(
    inventory: Inventory,
    damage: Damage,
    health: ClusterHealth | None,
    absent: dict[str, str],
    *,
    consent: bool,
) -> Plan:
    """Plan how every reachable host gets sound pairs of the runner's authority.

    `health` is None where HTTPS could not even be tried. Raises Refused without `consent` when
    the cluster still serves and a restart would interrupt it, or when a majority is out of reach.
    """
    hosts = [host.name for host in inventory.hosts if host.name not in absent]
    clients = {c.name: c.host or c.name for c in inventory.clients if c.name not in absent}
    connections = {name: name for name in hosts} | clients
    steps: list[Step] = []
    if damage.has_expired_authority:
        steps.append(
            RenewAuthority(
                stage=RENEW, host=None, sentence="renew the expired authority, with the same key"
            )
        )
    distrusting = [
        name for name in connections if damage.has_expired_authority or name in damage.distrusting
    ]
    steps += [
        WriteTrust(
            stage=TRUST,
            host=connections[name],
            name=name,
            both=True,
            sentence=f"write the trusted file of {name}",
        )
        for name in distrusting
    ]
    steps += leaf_steps(damage.work, connections, connections, ISSUE, SWAP)
    is_broken = bool(steps or damage.down)
    if is_broken:
        steps += [
            ReviveMember(
                stage=REVIVE,
                host=name,
                sentence="start etcd if it is down, restart it if it trusts another authority",
            )
            for name in hosts
        ]
        steps.append(
            VerifyRecovery(stage=VERIFY, host=None, sentence="see the members find each other")
        )
        steps += [
            ReviveApiserver(
                stage=SERVE,
                host=name,
                restarts=name in distrusting,
                sentence="let its API server run and be ready"
                + (f", started anew for what it trusts: {RESTARTED}" * (name in distrusting)),
            )
            for name in hosts
            if inventory.layout(name).has_apiserver
        ]
    interrupts = [name for name in distrusting if name in hosts]
    _check_consent(inventory, hosts, interrupts, health, absent, consent=consent)
    goal = "members that serve, with sound pairs of the runner's authority"
    return Plan(
        "recover_certificates",
        inventory.name,
        goal if is_broken else "the pairs are sound, and etcd runs: nothing to recover",
        tuple(steps),
        certificates_left(inventory) if is_broken else (),
    )


def leave_out(plan: Plan, stuck: dict[str, str]) -> Plan:
    """Take those out of the restarts that would not start, whatever certificates they have."""
    return replace(
        plan,
        steps=tuple(
            s
            for s in plan.steps
            if not (isinstance(s, ReviveMember | ReviveApiserver) and s.host in stuck)
        ),
        warnings=(*plan.warnings, *(f"{why}; it is left as it is" for why in stuck.values())),
    )


def refuse_obstacles(message: str) -> None:
    """Raise Refused because members would not come back as they were, with the way on."""
    raise Refused(
        f"{message}\nwith {parameter(consent=True)} a member that would not start is left as it "
        "is, the others are recovered, and what a restart changes is taken"
    )


def _check_consent(
    inventory: Inventory,
    hosts: list[str],
    interrupts: list[str],
    health: ClusterHealth | None,
    absent: dict[str, str],
    *,
    consent: bool,
) -> None:
    if consent:
        return
    needed = quorum(len(inventory.hosts))
    if len(hosts) < needed:
        lost = "\n  - ".join(f"{name}: {why}" for name, why in absent.items())
        raise Refused(
            f"only {len(hosts)} of {len(inventory.hosts)} hosts can be reached, and {needed} are "
            f"a quorum:\n  - {lost}\nwith {parameter(consent=True)} "
            "those that can be reached are made right"
        )
    if interrupts and health is not None and health.reads_linearizable:
        raise Refused(
            f"{inventory.name} still serves, and {', '.join(interrupts)} would be restarted at "
            "once: rotate_authority does it one by one where the authorities are its own; with "
            f"{parameter(consent=True)} the interruption is taken"
        )
