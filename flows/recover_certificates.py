"""Recover a cluster whose certificates keep it from working, over SSH."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from typing_extensions import override

from tasks.engine.authority import find_authorities
from tasks.engine.frame import runbook
from tasks.engine.run import Run
from tasks.etcd.probe import Probe
from tasks.model.errors import MemberFailed
from tasks.model.members import DesiredMember
from tasks.model.plan import Plan
from tasks.model.pointers import parameter
from tasks.plans import agreement, leaves, sharing
from tasks.plans import recovery as plans
from tasks.plans.nodes import find_lost_manifest
from tasks.plans.restarts import TRUST, Surprise
from tasks.plans.succession import WriteTrust
from tasks.procedures import barriers, restarting, restoring, rotation
from tasks.procedures.course import Actions, Choices, Unlocked, Verified, follow
from tasks.procedures.rotation import CertificateRecipe, Sight
from tasks.steps import locks, onhosts, pods, restarts, services, succession, trust
from tasks.steps import sharing as see_sharing


@runbook(flow_run_name="recover certificates of {cluster}")
async def recover_certificates(
    cluster: str,
    consent: bool = False,
    approval: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Bring back a cluster whose certificates have expired or do not fit, when HTTPS is dead.

    Expired pairs, an expired authority, pairs that do not match, pairs copied from another member,
    and a rotation that was left half-done by hand. All hosts end with sound pairs of the runner's
    authority, which is kubeadm's where it lies on the nodes; a manifest that a node has lost is
    written as on another one. Data is never touched.

    Stages, and what is true when the runner dies in one:

    1. Lock (every host that can be reached), observe, plan: nothing has been changed.
    2. Renew the authority (on the runner), only when it has expired: the old or the new one.
    3. Trusted files, then new pairs beside the live ones, then swapped: each file is whole, the
       old one is kept aside on its host, and the next run does what is left.
    4. Start what is down, restart what has loaded other authorities; the next run does the others.
    5. Verify: the cluster serves; the next run finds nothing to recover. Where API servers live on
       the members, these are let in and seen ready.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        consent: take an interruption of a cluster that still serves, go on without a majority of
            the hosts, leave out members that would not start, or overwrite files that others use
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    choices = Choices(approval=approval, dry_run=dry_run, reason=reason)
    await follow(_Recovery(consent=consent), cluster, choices)


class _Recovery(CertificateRecipe):
    runbook = "recover_certificates"
    unmeasured_until = plans.TRUST  # no certificate is valid before the authority is renewed

    def __init__(self, *, consent: bool) -> None:
        self.consent = consent
        self.stuck: dict[str, str] = {}
        self.patience = rotation.HEALTHY_SECONDS

    @override
    async def open(self, run: Run) -> None:
        # One that does not open is what this runbook may be for.
        await find_authorities(run)

    @override
    async def lock(self, run: Run, *, approved: bool) -> Unlocked:
        unlocked, _ = await locks.lock_cluster(run, majority=False)
        return unlocked

    @override
    async def plan(self, run: Run, seen: Sight) -> Plan:
        damage, found = await rotation.assess(run, seen), None
        if damage.has_expired_authority:
            await onhosts.refuse_foreign(run, seen.members)
        else:
            found = await rotation.read_health(run, seen)
            if found.has_mute_gateway:
                self.patience = rotation.GATEWAY_SECONDS
            agreement.refuse_gone(seen.members, found.seen_members())
        plan = plans.plan_recovery(run.inventory, damage, found, seen.absent, consent=self.consent)
        restored = tuple(
            step
            for manifest in {run.inventory.layout(node.host).manifest for node in seen.nodes}
            if manifest is not None
            for step in restoring.restore(seen, manifest)
        )
        plan = replace(plan, steps=(*plan.steps, *restored))
        self.stuck = await _find_stuck(run, plan, seen, consent=self.consent)
        plan = plans.leave_out(plan, self.stuck)
        if not (writing := plan.hosts_of(WriteTrust)):
            return plan
        others = await see_sharing.see_all(run, writing)
        accept = parameter(consent=True)
        strangers = barriers.find_strangers(run, seen, plan)
        users = sharing.refuse_users(
            run.inventory, others, strangers, accepted=self.consent, accept=accept
        )
        return replace(plan, warnings=(*plan.warnings, *users))

    @override
    def needed_ways(self, seen: Sight) -> tuple[DesiredMember, ...]:
        return ()  # what else keeps members apart must not keep them from sound pairs

    def left(self, seen: Sight) -> frozenset[str]:
        """Name the members that nobody waits for."""
        return frozenset({*seen.absent, *self.stuck})

    @override
    def actions(self, seen: Sight, probe: Probe | None) -> Actions:
        async def verify(run: Run, _step: plans.VerifyRecovery) -> None:
            left = self.left(seen)
            try:
                await rotation.wait_until_healthy(run, seen.members, left, self.patience)
            except MemberFailed as error:
                revived = tuple(host for name, host in run.hosts.items() if name not in left)
                raise await restarting.put_back_where_ended(run, error, revived) from error
            await rotation.verify_ways(run, await rotation.look(run, seen.absent))

        return {
            plans.RenewAuthority: succession.renew_authority,
            WriteTrust: trust.write_trust,
            leaves.StageLeaves: partial(rotation.stage, sight=seen),
            leaves.SwapLeaves: partial(rotation.swap, sight=seen),
            plans.RestoreManifest: pods.restore_manifest,
            plans.ReviveMember: partial(rotation.revive, sight=seen),
            plans.ReviveApiserver: services.revive_apiserver,
            plans.VerifyRecovery: verify,
        }

    @override
    async def verify(self, run: Run, seen: Sight) -> Verified:
        after = await rotation.look(run, seen.absent)
        found = await rotation.wait_until_healthy(run, seen.members, self.left(seen), self.patience)
        complaint = None
        if self.stuck:
            complaint = MemberFailed(
                "the others are recovered, and these were left as they are:\n  - "
                + "\n  - ".join(self.stuck.values())
                + f"\nput that right, and run {run.runbook} again"
            )
        return Verified(found, rotation.pair_changes(seen, after), complaint=complaint)

    @override
    async def confirm(self, run: Run, seen: Sight) -> Verified:
        # What else may keep the cluster from full health is not this runbook's.
        return Verified(await rotation.read_health(run, seen))

    @override
    def conclude(self, run: Run, seen: Sight) -> None:
        rotation.raise_unseen(run, seen)


async def _find_stuck(run: Run, plan: Plan, seen: Sight, *, consent: bool) -> dict[str, str]:
    """Say why members would not start whatever their certificates are, by host.

    Raises Refused without `consent` for these, and where a restart would change more than meant.
    """
    revived = [s.host for s in plan.steps if isinstance(s, plans.ReviveMember) and s.host]
    own = (path for name in revived for path in run.inventory.layout(name).credentials)
    against = await restarts.find_obstacles(
        run, revived, written=frozenset((TRUST, *map(str, own)))
    )
    restored = plan.hosts_of(plans.RestoreManifest)
    bare = {
        node.host: lost
        for node in seen.nodes
        if node.host not in restored and (lost := find_lost_manifest(node))
    }
    if bare and not consent:
        plans.refuse_obstacles("\n".join(f"{name}: {why}" for name, why in bare.items()))
    if against and not consent:
        plans.refuse_obstacles(restarts.describe_obstacles(run, against))
    stuck = {each.host: each.sentence for each in against if each.kind is Surprise.NO_START}
    return stuck | {name: f"{name}: {why}" for name, why in bare.items() if name in revived}
