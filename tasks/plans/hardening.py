"""Hardening: no member of a stacked cluster begins anything without its data. Pure.

kubeadm lets the first member begin a cluster (its own name alone, no state: a wiped disk comes up
as a healthy empty cluster with the same ids), and later ones join with a list of all (without a
leader a wiped one votes with an empty log, so that a quorum may lack what was acknowledged).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tasks.model.cluster import ClusterHealth
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.members import DesiredMember
from tasks.model.nodes import NodeObservation
from tasks.model.plan import Plan, Stage, Step
from tasks.plans.apiservers import CHANGED, warn_of_clients
from tasks.plans.gate import find_obstacles

HARDEN = Stage(1, "harden, one member at a time", is_serial=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class HardenMember(Step):
    """Change a member's manifest by the kubelet's laws, with its API server out."""


def refuse_external(inventory: Inventory) -> None:
    """Raise Refused where no member has a manifest of kubeadm's."""
    if not inventory.has_pods:
        raise Refused(
            f"{inventory.name} is external: its members' settings name all of them and are no "
            "manifests of kubeadm's; there is nothing to harden. Nothing was changed"
        )


def plan_hardening(
    inventory: Inventory,
    members: tuple[DesiredMember, ...],
    health: ClusterHealth,
    nodes: Mapping[str, NodeObservation],
    soft: Iterable[str],
) -> Plan:
    """Plan one member at a time, what an earlier run left first and the leader last.

    `soft` are the hosts whose manifests are to be changed. Raises Refused where the cluster cannot
    lose one of them.
    """
    unfinished = {name for name, node in nodes.items() if node.taken_out}
    work = [m.name for m in members if m.name in unfinished | set(soft)]
    work.sort(key=lambda name: (name not in unfinished, name == health.leader_name))
    healed: frozenset[str] = frozenset()
    reasons: list[str] = []
    for name in work:
        reasons += find_obstacles(members, health, name, restarts=True, healed=healed)
        healed |= {name}
    if reasons:
        raise Refused(
            f"{inventory.name} is not hardened now:\n  - " + "\n  - ".join(dict.fromkeys(reasons))
        )
    steps = tuple(
        HardenMember(
            stage=HARDEN,
            host=name,
            sentence=f"harden {name}: {_sentence(inventory, nodes[name])}",
        )
        for name in work
    )
    goal = "a member without its data ends at once, on every node"
    warnings = warn_of_clients(nodes.values()) if work else ()
    return Plan("harden_members", inventory.name, goal, steps, warnings)


def _sentence(inventory: Inventory, node: NodeObservation) -> str:
    if node.taken_out:
        names = ", ".join(path.name for path in node.taken_out)
        return f"end what a run has begun there: {names} is taken out and goes back in"
    stopping = inventory.layout(node.host).stopping
    return (
        f"not while it leads: {stopping}, let the manifest name this member alone and the state "
        f"existing, put both back; its API server is {CHANGED}"
    )
