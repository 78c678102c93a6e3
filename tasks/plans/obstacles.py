"""What must hold before each step of a reconfiguration; the gate asks it of the live members."""

from __future__ import annotations

from tasks.model.errors import Refused
from tasks.model.members import SeenMember
from tasks.model.plan import Step
from tasks.plans.reconfiguration import (
    MembershipStep,
    MoveLeader,
    ReaddressMember,
    RemoveMember,
    SettleMember,
    UpdateMember,
    remove_from,
)
from tasks.plans.voters import (
    Cluster,
    refuse_corrupt_members,
    refuse_to_lose,
    refuse_without_quorum,
)


def find_obstacles(
    step: Step, live: tuple[SeenMember, ...], alive: frozenset[int] = frozenset()
) -> tuple[str, ...]:
    """List what forbids a step of `order_changes` now; empty when the gate is open.

    The members must be exactly those that the plan expects at this point, and a quorum of
    healthy voters must be there before and after. `alive` are the ids of members that are healthy
    by a look that waited longer for them.
    """
    if not isinstance(step, MembershipStep):
        return ()
    cluster = Cluster(list(live))
    added, gone = cluster.urls - step.before, step.before - cluster.urls
    if added or gone:
        told = [f"{url} is a member, which the plan does not know" for url in sorted(added)]
        told += [f"{url} is no member any more" for url in sorted(gone)]
        return (f"the plan is stale: {'; '.join(told)}",)
    try:
        refuse_without_quorum(live)
        if not isinstance(step, MoveLeader):
            refuse_corrupt_members(live)
        if isinstance(step, RemoveMember):
            entry = next((m for m in live if m.member.id == step.member_id), None)
            if entry is None:
                return (f"the plan is stale: {step.name} has another id now",)
            is_back = entry.is_healthy or entry.member.id in alive
            if is_back and not step.was_healthy and not entry.member.is_learner:
                return (f"the plan is stale: {entry.label} is back and healthy",)
            remove_from(cluster, entry)
        if isinstance(step, UpdateMember | ReaddressMember | SettleMember):
            refuse_to_lose(cluster, cluster.on(step.member.name))
    except Refused as error:
        return (error.message,)
    return ()


def is_stale(obstacles: tuple[str, ...]) -> bool:
    """Whether waiting does not help: the cluster is not the one that was planned for."""
    return any(text.startswith("the plan is stale") for text in obstacles)
