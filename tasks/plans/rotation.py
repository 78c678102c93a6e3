"""Rotation of leaf certificates: which are replaced, and whether the cluster can be touched."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.cluster import ClusterHealth
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.members import DesiredMember
from tasks.model.plan import Plan, Stage, Step
from tasks.plans.agreement import refuse_gone
from tasks.plans.gate import find_obstacles
from tasks.plans.health import refuse_unseen
from tasks.plans.leaves import Work, leaf_steps

ISSUE = Stage(1, "make and sign, all hosts at once")
SWAP = Stage(2, "swap, one host at a time", is_serial=True)
VERIFY = Stage(3, "verify")


KUBERNETES = (
    "Kubernetes' own certificates (the API server's, kubelets', those in kubeconfig files) are not "
    "etcd's and stay as they are; `kubeadm certs check-expiration` lists them"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyLeaves(Step):
    """See that every member serves what is on its disk and reaches every other."""


def plan_rotation(
    inventory: Inventory,
    members: tuple[DesiredMember, ...],
    health: ClusterHealth,
    work: Work,
    absent: dict[str, str],
) -> Plan:
    """Plan the replacement of the pairs in `work`; raises Refused with the count that forbids it.

    `absent` names the hosts and clients that cannot be reached, with the reason: they keep what
    they have, and the next run does them.
    """
    refuse_unseen(health)
    leader = health.leader_name
    # Those first that are ill, for their certificates may be why; the leader last.
    ill = {e.name for e in health.endpoints if e.error or not e.is_healthy}
    order = sorted(
        (m.name for m in members if m.name not in absent),
        key=lambda name: (name not in ill, name == leader),
    )
    touched = [name for name in order if any(work.get(name, {}).values())]
    if touched:
        refuse_gone(members, health.seen_members())  # no new pair makes it a member again
    shut = (
        find_obstacles(members, health, name, restarts=False, healed=frozenset(touched[:number]))
        for number, name in enumerate(touched)
    )
    if obstacles := next(filter(None, shut), ()):
        raise Refused(
            f"{inventory.name} is not to be touched now:\n  - " + "\n  - ".join(obstacles) + "\n"
            "bring its members back first, check_health says how; recover_certificates is for a "
            "cluster whose certificates keep it from working"
        )
    clients = [c for c in inventory.clients if c.managed and c.name not in absent]
    connections = {name: name for name in order} | {c.name: c.host or c.name for c in clients}
    steps = leaf_steps(work, [*order, *(c.name for c in clients)], connections, ISSUE, SWAP)
    count = sum(bool(why) for pairs in work.values() for why in pairs.values())
    goal = f"{count} new pair(s), served by every member, without a restart"
    if not steps:
        return Plan("rotate_certificates", inventory.name, "no pair is due", ())
    verify = VerifyLeaves(
        stage=VERIFY, host=None, sentence="see every member serve its pairs and reach every other"
    )
    warnings = (KUBERNETES,) if inventory.has_pods else ()
    return Plan("rotate_certificates", inventory.name, goal, (*steps, verify), warnings)
