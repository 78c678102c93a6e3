"""Look at every cluster at once: one line each, the worst first; read-only."""

from __future__ import annotations

from tasks.engine.frame import runbook
from tasks.model.inventory_file import choose_clusters
from tasks.procedures import fleet


@runbook(flow_run_name="check the fleet")
async def check_fleet(clusters: list[str] | None = None, reason: str | None = None) -> None:
    """Show all clusters on one page, the worst first, and fail where one needs somebody.

    Of each: what is wrong, the versions that run, members, leader, the size of the database and its
    share of the quota (where etcd tells it: 3.6), the certificate that ends first, the last proven
    snapshot, and, from Prefect's record, the last change with who made it and the runs that wait
    for approval. A cluster that cannot be read is a line, and keeps no other from being seen.

    Read-only, without a lock; dying at any point leaves nothing behind.

    Args:
        clusters: names under deployments/clusters, or paths; without them, every cluster there
        reason: why, for the record
    """
    await fleet.look_at_fleet(choose_clusters(clusters), reason)
