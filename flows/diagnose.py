"""What an expert would ask for in the first five minutes, on one page: read-only."""

from __future__ import annotations

from tasks.engine.frame import runbook
from tasks.engine.run import open_run
from tasks.procedures.diagnosing import see_and_tell
from tasks.steps import health


@runbook(flow_run_name="diagnose {cluster}")
async def diagnose(cluster: str, reason: str | None = None) -> None:
    """Tell everything of a cluster that an expert asks for first, with what is normal for each.

    Read-only, also where half of the cluster is dead: what cannot be seen is a line of its own.
    Members, versions, leader changes, round trips between members, how fast log and database are
    written, reads from here, slow applies and other sayings of the last hour's log, clocks,
    certificates, sizes, alarms, and what the next restart would change. The worst comes first. It
    takes some seconds, puts no load on the cluster, and does not fail for what it finds;
    check_health does.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        reason: why, for the record
    """
    async with open_run(cluster, "diagnose", reason=reason) as run:
        await health.open_login(run)
        await see_and_tell(run)
