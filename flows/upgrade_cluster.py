"""Bring every member to the inventory's version of etcd, one minor version at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from typing_extensions import override

from tasks.engine.frame import runbook
from tasks.engine.run import Run
from tasks.etcd.probe import Probe
from tasks.model.members import DesiredMember
from tasks.model.plan import Finding, Plan, Step
from tasks.model.upgrades import Accept
from tasks.plans import upgrades as plans
from tasks.plans.apiservers import warn_of_clients
from tasks.plans.trials import Trial
from tasks.plans.upgrade_findings import Weighed, find_down, find_findings
from tasks.procedures import upgrade_sight, upgrades
from tasks.procedures.course import Actions, Choices, Recipe, Unlocked, Verified, follow
from tasks.steps import health


@runbook(flow_run_name="upgrade {cluster}")
async def upgrade_cluster(
    cluster: str,
    accept: list[Literal["settings", "package", "v2-clients", "outage"]] | None = None,
    snapshot: Literal["take", "skip"] = "take",
    approval: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Bring every member to `etcd.version` of the inventory, up or down, patch or minor.

    What runs is read from the hosts; the way is one minor version at a time, over releases that may
    be left (from 3.5.26 and 3.6.11 on), for each of which the inventory has programs
    (`etcd.binaries`, `etcd.versions`). A cluster whose members run several versions, as a run that
    died left it, is gone on with. With the lower version in the inventory the same runbook goes
    back: at any time while the cluster's own version has not risen, and from 3.7 to 3.6 and 3.6 to
    3.5 by etcd's downgrade; from 3.5 to 3.4 there is the snapshot alone, without the writes since.

    Stages, and what is true when the runner dies in one:

    1. Lock, observe, compare all members' data, plan, a verified snapshot: nothing has been
       changed.
    2. Programs of all versions are put beside those that run: nothing starts them.
    3. Each hop, one member at a time, followers first, leadership moved before: settings that the
       next version does not know are written in words that both know, then the program is
       exchanged, then etcd restarted. Whatever starts it in between, it starts. Before the first
       one without a v2 API, members that serve it are restarted without. Where a member's
       log holds what 3.6 ends for, it saves a snapshot of the log first; its settings as they were
       lie in /var/lib/etcd-runbooks/forced-snapshot meanwhile, and the next run puts them back.
    4. The cluster's version rises, and all members' data are compared, before the next hop.
    5. Verify; what was put beside is removed.

    On stacked clusters the image of each manifest is changed instead, by the kubelet's laws, where
    kubeadm leaves it: its ClusterConfiguration pins `etcd.local.imageTag` to the version, or there
    is none. Where kubeadm owns the version all is looked at, and its commands are said.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        accept: `settings` (write those that a version does not know in the next one's words, or
            take them out), `package` (replace a program that a package owns), `v2-clients` (whom
            3.6 does not serve), `outage` (restart one or two members, which cannot lose one)
        snapshot: `skip` needs a reason
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    recipe = _Upgrade(frozenset(map(Accept, accept or ())))
    choices = Choices(snapshot=snapshot, approval=approval, dry_run=dry_run, reason=reason)
    await follow(recipe, cluster, choices)


@dataclass(slots=True)
class _Upgrade(Recipe[Weighed]):
    accept: frozenset[Accept]
    progress: upgrades.Progress = field(default_factory=upgrades.Progress)
    probe: Probe | None = None

    runbook = "upgrade_cluster"
    measures_writes = True

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> Weighed:
        return await upgrade_sight.look(run, unlocked)

    @override
    def findings(self, seen: Weighed) -> tuple[Finding, ...]:
        return find_findings(seen, self.accept)

    @override
    async def plan(self, run: Run, seen: Weighed) -> Plan:
        await upgrades.load(run, seen, self.progress)
        if seen.work.route.hops and not self.progress.data:
            await upgrades.compare_data(run, None, seen=seen, progress=self.progress)
        leader, down = seen.health.leader_name, find_down(seen)
        told = warn_of_clients(seen.nodes) if seen.nodes else ()
        return plans.plan_upgrade(
            run.inventory, seen.hosts, seen.work, seen.cluster, leader, down, told
        )

    @override
    def trial(self, run: Run, seen: Weighed, plan: Plan) -> Trial:
        serving = {m.host for m in seen.health.seen_members() if m.is_healthy}
        moved = plan.hosts_of(plans.UpgradeMember)
        places = {
            name: frozenset(
                {
                    sight.real.parent,
                    *plans.kept_places(sight),
                    run.inventory.paths.backups,
                    *plans.written_places(sight, seen.work),
                }
            )
            for name, sight in seen.hosts.items()
            if name in moved
        }
        return Trial(places, tuple(m for m in seen.members if m.name in serving))

    @override
    def measured(self, seen: Weighed) -> tuple[DesiredMember, ...]:
        return seen.members

    @override
    def actions(self, seen: Weighed, probe: Probe | None) -> Actions:
        self.probe = probe
        return {
            plans.StagePrograms: partial(upgrades.stage, seen=seen, progress=self.progress),
            plans.FetchImage: upgrades.fetch_image,
            plans.CancelDowngrade: partial(upgrades.cancel_downgrade, seen=seen),
            plans.EnableDowngrade: partial(upgrades.enable_downgrade, seen=seen),
            plans.EndV2Api: partial(upgrades.end_v2_api, seen=seen),
            plans.UpgradeMember: partial(
                upgrades.upgrade_member, seen=seen, progress=self.progress
            ),
            plans.AwaitVersion: partial(upgrades.await_version, seen=seen),
            plans.CompareData: partial(upgrades.compare_data, seen=seen, progress=self.progress),
            plans.ClearPrograms: partial(upgrades.clear, seen=seen),
        }

    @override
    async def gate(self, run: Run, seen: Weighed, step: Step) -> None:
        if not self.progress.data:
            await upgrades.compare_data(run, None, seen=seen, progress=self.progress)
        if step.host is not None:
            restarts = Accept.OUTAGE not in self.accept
            await health.pass_gate(run, seen.members, step.host, restarts=restarts)

    @override
    async def confirm(self, run: Run, seen: Weighed) -> Verified:
        await upgrades.compare_data(run, None, seen=seen, progress=self.progress)
        return await self.verify(run, seen)

    @override
    async def verify(self, run: Run, seen: Weighed) -> Verified:
        found = await upgrades.verify(run, seen)
        facts = upgrades.tell_gaps(
            self.probe.results() if self.probe else (), seen.work.route.versions
        )
        data = {"data": upgrades.tell_data(self.progress)} if self.progress.data else {}
        return Verified(found, facts=facts | data)
