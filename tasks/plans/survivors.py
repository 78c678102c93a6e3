"""A majority is gone for good: whose log is taken, and what may be lost with the others."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.model.cluster import ClusterHealth
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.members import DesiredMember, format_id, quorum
from tasks.model.restores import LogEnd


def may_elect(health: ClusterHealth) -> bool:
    """Whether so many members answer that they may be electing a leader at this moment."""
    voters = [m for m in health.seen_members() if not m.member.is_learner]
    return bool(voters) and sum(m.is_up for m in voters) >= quorum(len(voters))


def refuse_quorum(inventory: Inventory, health: ClusterHealth) -> None:
    """Raise Refused where the cluster has its quorum: members are replaced there, one by one."""
    if health.reads_linearizable:
        raise Refused(
            f"{inventory.name} has its quorum, so nothing is to be recovered: "
            "replace_member replaces members that are gone, and restore_cluster goes back to a "
            "snapshot. Nothing was changed"
        )


def choose_survivor(inventory: Inventory, ends: Mapping[str, LogEnd]) -> str:
    """Choose the host whose log has most: the highest last term, then the highest index.

    What a majority has acknowledged is on the furthest of any majority; of fewer, the furthest has
    the most of it. Raises Refused where there is none, or where the logs are of several clusters.
    """
    if not ends:
        raise Refused(
            f"no host of {inventory.name} that can be reached has a member's log: nothing is left "
            "to recover from. restore_cluster takes a snapshot. Nothing was changed"
        )
    clusters = {end.cluster_id for end in ends.values()}
    if len(clusters) > 1:
        told = ", ".join(f"{n}: {format_id(end.cluster_id)}" for n, end in ends.items())
        raise Refused(
            f"the data of {inventory.name}'s hosts are of several clusters ({told}), and none may "
            "be taken for the others'. Set the wrong ones aside on their hosts, and run this again"
        )
    return max(ends, key=lambda name: ends[name].rank)


def recovery_loss(
    inventory: Inventory,
    survivor: str,
    ends: Mapping[str, LogEnd],
    members: tuple[DesiredMember, ...],
) -> str:
    """Say from whom the cluster is recovered, and what may be lost."""
    lost = [host.name for host in inventory.hosts if host.name not in ends]
    seen = "; ".join(f"{n}: term {e.term}, index {e.index}" for n, e in ends.items())
    gone = (
        f"A write that was acknowledged by {', '.join(lost)} alone, before it reached {survivor}, "
        "is lost, and nobody can tell whether there was one"
        if lost
        else "All members' logs are there"
    )
    return (
        f"{inventory.name} would be recovered from {survivor}, whose log goes furthest ({seen}), "
        f"as a new cluster of {', '.join(m.name for m in members)}. Nothing is lost that "
        f"{survivor} has. {gone}."
    )


def fence_loss(inventory: Inventory, back: tuple[str, ...]) -> str:
    """Say what is lost when old members that came back are stopped."""
    return (
        f"{', '.join(back)} came back with the data of before {inventory.name} was recovered, and "
        "would be stopped. What clients wrote to them since is not in the recovered cluster; their "
        "data stay where they are"
    )
