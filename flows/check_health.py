"""Check a cluster's health over HTTPS: read-only, also while a mutating run is under way."""

from __future__ import annotations

from tasks import health, location, reports
from tasks.engine import open_run
from tasks.frame import runbook
from tasks.model.errors import MemberFailed


@runbook(flow_run_name="check health of {cluster}")
async def check_health(cluster: str, reason: str | None = None) -> None:
    """Show every member of a cluster, and fail when anything keeps it from full health.

    Read-only; dying at any point leaves nothing behind. SSH is used only to detect addresses that
    the inventory leaves out; the rest is HTTPS with the run's own client certificate.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        reason: why, for the record
    """
    async with open_run(cluster, "check_health", reason=reason) as run:
        members = await location.locate_members(run)
        async with health.etcd_client(run, members) as client:
            found = await health.read_health(run, client)
        problems = found.find_problems(members)
        await reports.publish_health(run, found, problems)
        if problems:
            raise MemberFailed(
                f"{run.inventory.name} is not healthy:\n  - " + "\n  - ".join(problems)
            )
