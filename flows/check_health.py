"""Check a cluster's health, and what restarts would change: read-only, beside any other run."""

from __future__ import annotations

import asyncio

from tasks.engine import metrics
from tasks.engine.frame import runbook
from tasks.engine.run import open_run
from tasks.model.errors import MemberFailed
from tasks.model.plan import Severity
from tasks.plans.nodes import judge_nodes
from tasks.plans.ways import find_closed
from tasks.procedures import checkup, location
from tasks.report.health import unseen_sentences
from tasks.report.metrics import of_health
from tasks.steps import nodes, reports, restarts, snapshots


@runbook(flow_run_name="check health of {cluster}")
async def check_health(cluster: str, reason: str | None = None) -> None:
    """Show every member of a cluster, and fail when anything keeps it from full health.

    Read-only; dying at any point leaves nothing behind. Members are asked over HTTPS with a
    certificate of this run's. Where the authority's key does not open, or lets nobody in, they are
    asked on their hosts with their own pairs; the result says which way. Over SSH, clocks are
    compared, and each host is asked what the next restart of its member and its next boot would
    change (the program, the settings, whether it would start at all). Of a stacked member its
    node is seen: the static pods' files, what really runs, the kubelet. A host that SSH cannot
    reach is a remark. How old the last proven snapshot is, is told, and by an event
    (`etcd.snapshot.stale`) where it is older than `snapshots.proven_within_hours`.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        reason: why, for the record
    """
    async with open_run(cluster, "check_health", reason=reason) as run:
        members = await location.locate_members(run)
        seen, (surprises, silent), (pods, unseen), proven = await asyncio.gather(
            checkup.examine(run, members),
            restarts.find_surprises(run),
            nodes.observe_nodes(run),
            snapshots.tell_proven(run),
        )
        found = judge_nodes(run.inventory, pods, seen.health)
        closed = find_closed(run.inventory, await nodes.observe_ways(run, pods, members))
        problems = (*seen.problems, *restarts.problems(surprises), *found.problems)
        problems += tuple(str(f) for f in closed if f.severity is Severity.REFUSAL)
        unheard = unseen_sentences(seen.silent, silent | unseen)
        lesser = tuple(str(f) for f in closed if f.severity is Severity.WARNING)
        heard = (*seen.remarks, *restarts.remarks(surprises), *found.remarks, *lesser)
        remarks = (*heard, *unheard, proven)
        metrics.write(run.inventory.name, "health", len(problems), of_health(seen.health))
        await reports.publish_health(run, seen.health, problems, remarks)
        if problems:
            raise MemberFailed(
                f"{run.inventory.name} is not healthy:\n  - " + "\n  - ".join(problems)
            )
