"""Save verified snapshots of any number of clusters; nothing of them is changed."""

from __future__ import annotations

from tasks.engine.frame import runbook
from tasks.model.inventory_file import choose_clusters
from tasks.procedures import saving


@runbook(flow_run_name="take snapshots of {clusters}")
async def take_snapshot(clusters: list[str] | None = None, reason: str | None = None) -> None:
    """Save a verified snapshot of each cluster where its inventory says, and remove old ones.

    Taken from the healthy follower that is furthest; where that one fails, from the next. Streamed
    to a directory or an S3 server with its checksum compared on the way, encrypted where the
    inventory names recipients, and with a manifest beside it. Snapshots that `snapshots.keep` does
    not keep are removed. A cluster that fails keeps no other from being saved.

    Read-only, without a lock; a run that dies leaves no half snapshot under a snapshot's name, and
    the next run begins anew.

    Args:
        clusters: names under deployments/clusters, or paths; without them, every cluster there
        reason: why, for the record
    """
    await saving.save_clusters(choose_clusters(clusters), reason)
