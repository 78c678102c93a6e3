"""The member table of check_health and of reports."""

from __future__ import annotations

from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth
from tasks.model.members import format_id
from tasks.report.tables import Table, format_bytes

COLUMNS = (
    "member",
    "id",
    "version",
    "role",
    "DB size",
    "raft lag",
    "alarms",
    "reachable",
    "healthy",
)


def health_table(health: ClusterHealth) -> Table:
    """One row a member; raft lag is in entries behind the furthest member seen."""
    furthest = max((e.status.raft_index for e in health.endpoints if e.status), default=0)
    return Table(COLUMNS, tuple(_row(endpoint, furthest) for endpoint in health.endpoints))


def _row(endpoint: EndpointHealth, furthest: int) -> tuple[str, ...]:
    status = endpoint.status
    healthy = "yes" if endpoint.is_healthy else f"no: {endpoint.error or 'unhealthy'}"
    if status is None:
        return (endpoint.label, "?", "?", "?", "?", "?", "?", "no", healthy)
    role = "follower"
    if status.leader == status.member_id:
        role = "leader"
    elif status.is_learner:
        role = "learner"
    alarms = [str(a.type) for a in endpoint.alarms if a.member_id == status.member_id]
    return (
        endpoint.label,
        format_id(status.member_id),
        status.version,
        role,
        format_bytes(status.db_size),
        str(furthest - status.raft_applied_index),
        ", ".join(alarms) or "none",
        "yes",
        healthy,
    )


def health_markdown(
    cluster: str, table: Table, problems: tuple[str, ...], remarks: tuple[str, ...] = ()
) -> str:
    """Write the health artifact: what is wrong first, then the members, then remarks."""
    verdict = [f"- {problem}" for problem in problems] or ["Every member is healthy."]
    notes = ["", *(f"- {remark}" for remark in remarks)] if remarks else []
    return "\n".join([f"# Health of {cluster}", "", *verdict, "", table.to_markdown(), *notes])


def unseen_sentences(clocks: dict[str, str], starts: dict[str, str]) -> tuple[str, ...]:
    """Say what is not known of a host that SSH did not reach, once; both by host, with the reason.

    `clocks` could not be read; of `starts` nothing is known of their next restart.
    """
    clock, start = "its clock", "what its next restart would change"
    both = [name for name, why in clocks.items() if starts.get(name) == why]
    return (
        *(f"{name}: {clock} and {start} are not known: {clocks[name]}" for name in both),
        *(
            f"{name}: {clock} is not known: {why}"
            for name, why in clocks.items()
            if name not in both
        ),
        *(
            f"{name}: {start} is not known: {why}"
            for name, why in starts.items()
            if name not in both
        ),
    )
