"""Raising the quota of the members' databases, by consent: to what the inventory says.

Pure. What the inventory says is what members that join later are given, so that no other number is
asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tasks.model.inventory import Inventory
from tasks.model.plan import Finding, Severity, Stage, Step
from tasks.model.pointers import pointer
from tasks.model.space import DiskRoom, mebibytes

RAISE = Stage(3, "raise the quota, one member at a time, the leader last", is_serial=True)
QUOTA_SETTING = "quota-backend-bytes"
MOST = 8 << 30
"""What etcd's documents call the most that is sensible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseQuota(Step):
    """Write a member's quota, in bytes, into its settings; restart it while it does not lead."""

    size: int


def wanted_quota(inventory: Inventory) -> int:
    """Get the quota that the inventory says; 0 where it says none."""
    return inventory.etcd.settings.quota_backend_bytes or 0


def plan_raises(
    inventory: Inventory, order: Iterable[str], quotas: Mapping[str, int]
) -> tuple[Step, ...]:
    """Plan a restart with the inventory's quota for each member that has less, or tells none."""
    size = wanted_quota(inventory)
    return tuple(
        RaiseQuota(
            stage=RAISE,
            host=name,
            sentence=f"raise the quota of {name} from "
            f"{mebibytes(quotas[name]) if name in quotas else 'what is not known'} to "
            f"{mebibytes(size)}: written into its settings, then a restart, not while it leads",
            size=size,
        )
        for name in order
        if quotas.get(name, 0) < size
    )


def find_quota_findings(
    inventory: Inventory,
    quotas: Mapping[str, int],
    sizes: Mapping[str, int],
    rooms: Mapping[str, DiskRoom],
) -> tuple[Finding, ...]:
    """Refuse to raise where the inventory says no more, and warn of disks that are smaller."""
    if inventory.has_pods:
        said = f"the quota of a static pod is not raised by a run; {_by_hand(quotas.values())}"
        return (Finding(Severity.REFUSAL, None, said),)
    size, most = wanted_quota(inventory), max(quotas.values(), default=0)
    if size <= most:
        said = f"the inventory says {mebibytes(size)}" if size else "the inventory says none"
        said = f"the quota is not raised: {said}, and members have {mebibytes(most)} already. Write"
        text = f"{said} what it is to be into the inventory first, {_example(quotas.values())}"
        return () if size == most else (Finding(Severity.REFUSAL, None, text),)
    small = (
        Finding(
            Severity.WARNING,
            name,
            f"the disk of its database has {mebibytes(room.free)} left, and a database of "
            f"{mebibytes(size)} would need {mebibytes(size - sizes[name])} more",
        )
        for name, room in rooms.items()
        if name in sizes and room.free < size - sizes[name]
    )
    said = f"{mebibytes(size)} are more than the {mebibytes(MOST)} that etcd's documents advise"
    return (*small, *([Finding(Severity.WARNING, None, said)] if size > MOST else []))


def tell_raise(inventory: Inventory, quotas: Collection[int]) -> str:
    """Say how the quota is raised in this cluster, by which command."""
    if inventory.has_pods:
        return f"raise the quota: {_by_hand(quotas)}"
    way = pointer("reclaim_space", cluster=inventory.name, raise_quota=True)
    return f"raise the quota: write it into the inventory, {_example(quotas)}, and run {way}"


def _example(quotas: Collection[int]) -> str:
    if not quotas:
        return "as etcd.settings.quota_backend_bytes"
    return f"as etcd.settings.quota_backend_bytes (twice as much is {2 * max(quotas)})"


def _by_hand(quotas: Collection[int]) -> str:
    size = f"={2 * max(quotas)}" if quotas else ""
    return (
        f"add --quota-backend-bytes{size} to the command in one node's manifest after the other, "
        "each when the one before is healthy again (the kubelet restarts it), and to "
        "etcd.local.extraArgs of kubeadm's ClusterConfiguration, from which its next upgrade "
        "writes the manifests"
    )
