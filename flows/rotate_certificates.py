"""Rotate leaf certificates: new keys and certificates for every pair that is due, no restart."""

from __future__ import annotations

from functools import partial
from typing import Literal

from tasks.engine.authority import opened_authority
from tasks.engine.frame import runbook
from tasks.engine.run import Run, open_run, perform
from tasks.model.plan import Plan, Step
from tasks.plans import leaves
from tasks.plans.rotation import VerifyLeaves, plan_rotation
from tasks.procedures import rotation
from tasks.procedures.rotation import Sight
from tasks.steps import certificates, health, reports


@runbook(flow_run_name="rotate {cluster}")
async def rotate_certificates(
    cluster: str,
    which: Literal["due", "all"] = "due",
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Replace the leaf certificates of a cluster that are due, or all of them.

    Due is what ends within the inventory's warning, and what is not as the inventory wants it:
    names and addresses that changed, usages, keys, a pair that does not match. Etcd reads its pairs
    at each handshake, so nothing is restarted.

    Stages, and what is true when the runner dies in one:

    1. Lock: the lock is gone with the runner's SSH sessions.
    2. Observe, plan: nothing has been changed.
    3. Make and sign (all hosts at once): new pairs lie beside the live ones as *.new; nothing live
       has been changed, and the next run makes them anew.
    4. Swap (one host at a time): each pair is the old one or the new one; the next run goes on
       with those that are left. What was replaced is kept aside on the host.
    5. Verify: all is done; the next run finds nothing due.

    A host that cannot be reached is left out and picked up by the next run, if the cluster can do
    without its member; otherwise the run is refused, with the count.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        which: `due`, or `all` pairs
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    async with open_run(cluster, "rotate_certificates", reason=reason) as run:
        await opened_authority(run.inventory)
        unlocked = await rotation.lock(run, dry_run=dry_run)
        sight = await rotation.look(run, unlocked)
        if not sight.observed:
            rotation.raise_unseen(run, sight)
        await reports.refuse_on_findings(run, sight.findings)
        plan = await _plan(run, sight, which)
        await reports.publish_plan(run, plan, sight.findings)
        if dry_run:
            rotation.raise_unseen(run, sight)
            return
        async with health.measured_service(run, sight.members) as probe:
            await perform(
                run,
                plan,
                {
                    leaves.StageLeaves: partial(rotation.stage, sight=sight),
                    leaves.SwapLeaves: partial(rotation.swap_and_verify, sight=sight),
                    VerifyLeaves: partial(_verify, sight=sight),
                },
                gate=partial(_gate, run, sight),
                mark=probe.mark,
            )
            after = await rotation.look(run, sight.absent) if plan.steps else sight
            found = await rotation.read_health(run, sight)
        changes = rotation.pair_changes(sight, after)
        await reports.publish_report(
            run, plan, sight.findings, found, reason, gaps=probe.results(), pairs=changes
        )
        rotation.raise_unseen(run, sight)


async def _plan(run: Run, sight: Sight, which: str) -> Plan:
    leaves.refuse_reinstalled(run.inventory, sight.observed)
    authority = (await opened_authority(run.inventory)).certificate_pem
    work = {
        name: {
            label: certificates.pair_differences(
                run.inventory, target, sight.observed[name].pairs[label], authority, early=True
            )
            or (("asked for",) if which == "all" else ())
            for label, target in targets.items()
        }
        for name, targets in sight.targets.items()
    }
    found = await rotation.read_health(run, sight)
    return plan_rotation(run.inventory, sight.members, found, work, sight.absent)


async def _gate(run: Run, sight: Sight, step: Step) -> None:
    if step.host is None:
        return
    await health.pass_gate(run, sight.members, step.host, restarts=False)


async def _verify(run: Run, _step: VerifyLeaves, *, sight: Sight) -> None:
    await rotation.verify_ways(run, sight)
