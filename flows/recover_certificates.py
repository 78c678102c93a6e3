"""Recover a cluster whose certificates keep it from working, over SSH."""

from __future__ import annotations

from functools import partial

from tasks.engine.frame import runbook
from tasks.engine.run import Run, open_run, perform
from tasks.model.errors import MemberFailed
from tasks.model.plan import Plan
from tasks.plans import agreement, leaves
from tasks.plans import recovery as plans
from tasks.plans.restarts import Surprise
from tasks.plans.succession import WriteTrust
from tasks.procedures import rotation
from tasks.procedures.rotation import Sight
from tasks.steps import health, onhosts, reports, restarts, succession, trust


@runbook(flow_run_name="recover {cluster}")
async def recover_certificates(
    cluster: str,
    consent: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Bring back a cluster whose certificates have expired or do not fit, when HTTPS is dead.

    Expired pairs, an expired authority, pairs that do not match, pairs copied from another member,
    and a rotation that was left half-done by hand. All hosts end with sound pairs of the runner's
    authority. Data is never touched.

    Stages, and what is true when the runner dies in one:

    1. Lock (every host that can be reached), observe, plan: nothing has been changed.
    2. Renew the authority (on the runner), only when it has expired: the old or the new one.
    3. Trusted files, then new pairs beside the live ones, then swapped: each file is whole, the
       old one is kept aside on its host, and the next run does what is left.
    4. Start what is down, restart what has loaded other authorities; the next run does the others.
    5. Verify: the cluster serves; the next run finds nothing to recover.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        consent: take an interruption of a cluster that still serves, go on without a majority of
            the hosts, or leave out members that would not start
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    async with open_run(cluster, "recover_certificates", reason=reason) as run:
        unlocked = await rotation.lock(run, dry_run=dry_run, majority=False)
        sight = await rotation.look(run, unlocked)
        if not sight.observed:
            rotation.raise_unseen(run, sight)
        await reports.refuse_on_findings(run, sight.findings)
        damage, found = await rotation.assess(run, sight), None
        if not damage.has_expired_authority:
            found = await rotation.read_health(run, sight)
            agreement.refuse_gone(sight.members, found.seen_members())
        else:
            await onhosts.refuse_foreign(run, sight.members)
        plan = plans.plan_recovery(run.inventory, damage, found, sight.absent, consent=consent)
        stuck = await _find_stuck(run, plan, consent=consent)
        plan, left = plans.leave_out(plan, stuck), frozenset({*sight.absent, *stuck})
        await reports.publish_plan(run, plan, sight.findings)
        if dry_run or not plan.steps:
            rotation.raise_unseen(run, sight)
            return
        renewal, rest = plan.cut_before(plans.TRUST)
        await perform(run, renewal, {plans.RenewAuthority: succession.renew_authority})
        async with health.measured_service(run, sight.members) as probe:
            await perform(
                run,
                rest,
                {
                    WriteTrust: trust.write_trust,
                    leaves.StageLeaves: partial(rotation.stage, sight=sight),
                    leaves.SwapLeaves: partial(rotation.swap, sight=sight),
                    plans.ReviveMember: partial(rotation.revive, sight=sight),
                    plans.VerifyRecovery: partial(_verify, sight=sight, left=left),
                },
                mark=probe.mark,
            )
            after = await rotation.look(run, sight.absent)
            found = await rotation.wait_until_healthy(run, sight.members, left)
        await reports.publish_report(
            run,
            plan,
            sight.findings,
            found,
            reason,
            gaps=probe.results(),
            pairs=rotation.pair_changes(sight, after),
        )
        if stuck:
            raise MemberFailed(
                "the others are recovered, and these were left as they are:\n  - "
                + "\n  - ".join(stuck.values())
                + f"\nput that right, and run {run.runbook} again"
            )
        rotation.raise_unseen(run, sight)


async def _find_stuck(run: Run, plan: Plan, *, consent: bool) -> dict[str, str]:
    """Say why members would not start whatever their certificates are, by host.

    Raises Refused without `consent` for these, and where a restart would change more than meant.
    """
    revived = [s.host for s in plan.steps if isinstance(s, plans.ReviveMember) and s.host]
    own = (path for name in revived for path in run.inventory.layout(name).credentials)
    against = await restarts.find_obstacles(run, revived, written=frozenset(map(str, own)))
    if against and not consent:
        plans.refuse_obstacles(restarts.describe_obstacles(run, against))
    return {each.host: each.sentence for each in against if each.kind is Surprise.NO_START}


async def _verify(
    run: Run, _step: plans.VerifyRecovery, *, sight: Sight, left: frozenset[str]
) -> None:
    await rotation.wait_until_healthy(run, sight.members, left)
    await rotation.verify_ways(run, await rotation.look(run, sight.absent))
