"""The gate before a step that touches a member: what the cluster must be able to lose."""

from __future__ import annotations

from tasks.model.cluster import ClusterHealth
from tasks.model.histories import find_newcomers
from tasks.model.members import DesiredMember, format_id, quorum
from tasks.plans.health import corrupt_names, corrupt_sentence


def find_obstacles(
    expected: tuple[DesiredMember, ...],
    health: ClusterHealth,
    host: str,
    *,
    restarts: bool,
    healed: frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """List what forbids to touch a host's member now; empty when the gate is open.

    NOSPACE does not: what is done to certificates and members needs no write. Data that differs
    (CORRUPT) forbids restarts. The cluster must keep a quorum of healthy voters without that
    member. Where all members are healthy and the step does not restart etcd, no member is lost by
    it and the gate is open. A plan counts those as healthy that earlier steps have `healed`.
    """
    healthy = healed | {
        e.name
        for e in health.endpoints
        if e.is_healthy and not e.error and e.status and not e.status.is_learner
    }
    if health.rbac:
        return (health.rbac,)
    corrupt = corrupt_names(health) if restarts else ()
    wrong = tuple(find_newcomers(health.endpoints).values())
    if corrupt:
        wrong = (*wrong, corrupt_sentence(corrupt))
    if wrong:
        return wrong
    names = [member.name for member in expected]
    obstacles = [
        f"{e.name}: {e.error or 'is unhealthy'}"
        for e in health.endpoints
        if e.name in names and e.name not in healthy
    ]
    clusters = {format_id(e.status.cluster_id) for e in health.endpoints if e.status}
    if len(clusters) > 1:
        return (f"members answer for different clusters: {', '.join(sorted(clusters))}",)
    if not restarts and not obstacles and healthy == set(names):
        return ()
    left, needed = len(healthy - {host}), quorum(len(names))
    if left >= needed:
        return ()
    return (
        f"without {host}, {left} of {len(names)} members would be healthy, and {needed} are needed "
        "for a quorum",
        *obstacles,
    )
