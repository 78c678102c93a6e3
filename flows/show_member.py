"""Show members: their files beside what runs and what the cluster reports; read-only."""

from __future__ import annotations

from tasks.engine.frame import runbook
from tasks.engine.run import open_run
from tasks.procedures import showing


@runbook(flow_run_name="show members of {cluster}")
async def show_member(
    cluster: str, member: list[str] | None = None, reason: str | None = None
) -> None:
    """Show every setting of members three ways, and mark what differs.

    What the member's files say (its unit with what that names, or its static pod's manifest), what
    its process was started with, and what the cluster reports of it. Paths in a pod are shown with
    those on the host. Members are asked on their hosts, with their own pairs.

    Read-only; dying at any point leaves nothing behind.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        member: members by name, host or address; without them, all
        reason: why, for the record
    """
    async with open_run(cluster, "show_member", reason=reason) as run:
        await showing.show(run, member)
