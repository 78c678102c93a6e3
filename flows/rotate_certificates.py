"""Rotate leaf certificates: new keys and certificates for every pair that is due, no restart."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

from typing_extensions import override

from tasks.engine.authority import signing_authority
from tasks.engine.frame import runbook
from tasks.engine.run import Run
from tasks.etcd.probe import Probe
from tasks.model.plan import Plan, Step
from tasks.plans import leaves, sharing
from tasks.plans.apiservers import name_kubeconfigs
from tasks.plans.rotation import VerifyLeaves, plan_rotation
from tasks.procedures import rotation
from tasks.procedures.course import Actions, Choices, Unlocked, Verified, follow
from tasks.procedures.rotation import CertificateRecipe, Sight
from tasks.steps import certificates, health
from tasks.steps import sharing as see_sharing


@runbook(flow_run_name="rotate {which} certificates of {cluster}")
async def rotate_certificates(
    cluster: str,
    which: Literal["due", "all"] = "due",
    approval: bool = False,
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
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    choices = Choices(approval=approval, dry_run=dry_run, reason=reason)
    await follow(_Rotation(which), cluster, choices)


class _Rotation(CertificateRecipe):
    runbook = "rotate_certificates"

    def __init__(self, which: str) -> None:
        self.which = which

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> Sight:
        return await rotation.with_ways(run, await super().look(run, unlocked))

    @override
    async def plan(self, run: Run, seen: Sight) -> Plan:
        leaves.refuse_reinstalled(run.inventory, seen.observed)
        authority = (await signing_authority(run)).certificate_pem
        rotation.refuse_distrust(run, seen, authority)
        work = {
            name: {
                label: certificates.pair_differences(
                    run.inventory, target, seen.observed[name].pairs[label], authority, early=True
                )
                or (("asked for",) if self.which == "all" else ())
                for label, target in targets.items()
            }
            for name, targets in seen.targets.items()
        }
        found = await rotation.read_health(run, seen)
        plan = plan_rotation(run.inventory, seen.members, found, work, seen.absent)
        if not plan.steps:
            return plan
        others = await see_sharing.see_all(run, plan.hosts_of(leaves.SwapLeaves))
        users = sharing.find_users(run.inventory, others, pairs_only=True)
        return replace(plan, warnings=(*plan.warnings, *name_kubeconfigs(seen.nodes), *users))

    @override
    def actions(self, seen: Sight, probe: Probe | None) -> Actions:
        async def verify_leaves(run: Run, _step: VerifyLeaves) -> None:
            await rotation.verify_ways(run, seen)

        return {
            leaves.StageLeaves: partial(rotation.stage, sight=seen),
            leaves.SwapLeaves: partial(rotation.swap_and_verify, sight=seen),
            VerifyLeaves: verify_leaves,
        }

    @override
    async def gate(self, run: Run, seen: Sight, step: Step) -> None:
        if step.host is not None:
            await health.pass_gate(run, seen.members, step.host, restarts=False)

    @override
    async def verify(self, run: Run, seen: Sight) -> Verified:
        after = await rotation.look(run, seen.absent)
        found = await rotation.read_health(run, seen)
        return Verified(found, rotation.pair_changes(seen, after))

    @override
    def conclude(self, run: Run, seen: Sight) -> None:
        rotation.raise_unseen(run, seen)
