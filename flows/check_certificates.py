"""Check the certificates of any number of clusters: served, on disk, and as desired; read-only."""

from __future__ import annotations

from tasks.engine.frame import runbook
from tasks.model.inventory_file import choose_clusters
from tasks.procedures import expiry


@runbook(flow_run_name="check certificates of {clusters}")
async def check_certificates(
    clusters: list[str] | None = None,
    json_path: str | None = None,
    reason: str | None = None,
) -> None:
    """Show every certificate of clusters, the worst first, and fail on what is critical.

    For each host and each client that the inventories name: what is served on both ports, what is
    on disk, and how it differs from what is desired. A host or an inventory that cannot be read is
    a finding and keeps nothing else from being checked. Each finding is a Prefect event, too.

    Read-only, without a lock; dying at any point leaves nothing behind.

    Args:
        clusters: names under deployments/clusters, or paths; without them, every cluster there
        json_path: write all facts and findings to this file on the runner, as JSON
        reason: why, for the record
    """
    checks = await expiry.check_clusters(choose_clusters(clusters), reason)
    await expiry.publish_fleet(checks, json_path)
    expiry.raise_on_critical(checks)
