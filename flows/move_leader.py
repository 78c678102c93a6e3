"""Hand a cluster's leadership to another member."""

from __future__ import annotations

from tasks.engine.frame import runbook
from tasks.procedures.changes import hand_over


@runbook(flow_run_name="move leader of {cluster}")
async def move_leader(
    cluster: str, to: str | None = None, dry_run: bool = False, reason: str | None = None
) -> None:
    """Hand leadership over, before a host is worked on by hand; nothing else is changed.

    The leader itself hands it over, without an election. When the runner dies, one of the two
    leads.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        to: the voter that shall lead, by name or id; without it the one that is furthest
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    await hand_over(cluster, to, dry_run=dry_run, reason=reason)
