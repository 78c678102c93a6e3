"""Let what runs leave behind stay as long as the inventories say, and no longer."""

from __future__ import annotations

from tasks.engine.frame import runbook
from tasks.model.inventory_file import choose_clusters
from tasks.procedures import housekeeping
from tasks.procedures.course import Choices


@runbook(flow_run_name="apply retention to {clusters}")
async def apply_retention(
    clusters: list[str] | None = None, dry_run: bool = False, reason: str | None = None
) -> None:
    """Compress old journals, and remove snapshots and replaced files that no rule keeps.

    Journals of this machine that are older than `retention.journals_days` are compressed where they
    lie, with their seals; history, show, export and verify read them as before, and none is ever
    deleted. Snapshots go by `snapshots.keep`, never the newest nor the newest proven one. What runs
    have replaced on the hosts goes after `retention.backups_days`, where the inventory sets it;
    never the newest `retention.backups_keep` of a host, nor what a run has replaced whose work is
    not known to be done. Data that was set aside is not touched.

    Nothing of etcd is changed. Each cluster's lock is held meanwhile; nobody is asked, since the
    rules are the inventory's. A run that dies leaves each thing there or gone, and the next one
    does what is left.

    Args:
        clusters: names under deployments/clusters, or paths; without them, every cluster there
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    choices = Choices(dry_run=dry_run, reason=reason)
    await housekeeping.apply_rules(choose_clusters(clusters), choices)
