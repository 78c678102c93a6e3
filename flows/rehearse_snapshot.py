"""Prove snapshots: restore each on the runner, compare it with its manifest, throw it away."""

from __future__ import annotations

from tasks.engine.frame import runbook
from tasks.model.inventory_file import choose_clusters
from tasks.procedures import rehearsing


@runbook(flow_run_name="rehearse snapshots of {clusters}")
async def rehearse_snapshot(
    clusters: list[str] | None = None, snapshot: str | None = None, reason: str | None = None
) -> None:
    """Restore the newest snapshot of each cluster where no client is, and compare it.

    Restored by etcd's own tool into a temporary directory of the runner, started on sockets that
    only its account reaches, and compared with the manifest: revision, number of keys, etcd's hash.
    Only a snapshot that passes is marked as proven. No host of the cluster is asked.

    Read-only but for that mark; a run that dies leaves the snapshot as it was, and perhaps a
    directory etcd-runbooks-rehearsal-* in the place for temporary files, until the next one.

    Args:
        clusters: names under deployments/clusters, or paths; without them, every cluster there
        snapshot: the file's name in the store; without it, the newest
        reason: why, for the record
    """
    await rehearsing.rehearse_clusters(choose_clusters(clusters), snapshot, reason)
