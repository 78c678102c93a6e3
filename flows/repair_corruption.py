"""Find the member whose data are wrong, replace it from the others, and take CORRUPT back."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Literal

from typing_extensions import override

from tasks.engine.frame import runbook
from tasks.engine.run import Run, open_run
from tasks.etcd.client import EtcdClient
from tasks.etcd.probe import Probe
from tasks.hosts.connection import HostConnection
from tasks.model.errors import MemberFailed, Refused
from tasks.model.inventory_file import load_inventory
from tasks.model.plan import Finding, Plan
from tasks.model.pointers import pointer
from tasks.plans.corruption import (
    DisarmCorrupt,
    Verdict,
    disarm_step,
    plan_disarm,
    tell_hashes,
)
from tasks.plans.member_changes import RetireHost
from tasks.procedures import location
from tasks.procedures.changes import MemberRecipe
from tasks.procedures.corruption import examine
from tasks.procedures.course import Actions, Choices, Recipe, Unlocked, Verified, follow
from tasks.procedures.drafting import Draft
from tasks.procedures.wishes import Wish
from tasks.steps import corruption, health


@runbook(flow_run_name="repair corruption of {cluster}")
async def repair_corruption(
    cluster: str,
    snapshot: Literal["take", "skip"] = "take",
    approval: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Find whose data differ from a majority's, let that member join anew, take the alarm back.

    Every voter's data are hashed at one revision, whether or not etcd has raised CORRUPT. Who is
    down since etcd's own comparison ends it at its start is guilty where all others that answer
    have the same. Without a majority that has the same data it is refused, with the hashes. An
    alarm that outlived its reason is taken back.

    Stages, and what is true when the runner dies in one:

    1. Compare, lock, observe, plan; a snapshot is taken from a member of the majority: nothing has
       been changed.
    2. The guilty member hands leadership over, its etcd is stopped, its data are set aside; it is
       removed, and joins anew as a learner, from the others' data. The next run goes on from what
       is in the member list.
    3. When all voters have the same data, the alarm is taken back; verify.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        snapshot: `skip` needs a reason
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    choices = Choices(snapshot=snapshot, approval=approval, dry_run=dry_run, reason=reason)
    async with open_run(load_inventory(cluster), "repair_corruption", reason=reason) as run:
        await health.open_login(run)
        verdict = await examine(run)
    if verdict.hosts:
        await _Repair(cluster, verdict).follow(choices)
    else:
        lesser = Choices(approval=approval, dry_run=dry_run, reason=reason)
        await follow(_Disarming(), cluster, lesser)


class _Repair(MemberRecipe):
    runbook = "repair_corruption"

    def __init__(self, cluster: str, verdict: Verdict) -> None:
        super().__init__(cluster, Wish(leaving=verdict.hosts, returns=True))
        self.verdict = verdict

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> Draft:
        verdict = await examine(run)
        if verdict.hosts != self.verdict.hosts:
            raise Refused(
                "the members' data are others than a moment ago:\n  - "
                + "\n  - ".join(tell_hashes(verdict.comparison))
                + "\nrun this again. Nothing was changed"
            )
        self.verdict = verdict
        self.roster.condemn(frozenset(row.member_id for row in verdict.guilty))
        return await super().look(run, unlocked)

    @override
    async def plan(self, run: Run, seen: Draft) -> Plan:
        plan = await super().plan(run, seen)
        steps = (*plan.steps, disarm_step(self.verdict.comparison))
        names = ", ".join(self.verdict.hosts)
        return Plan(
            plan.runbook,
            plan.cluster,
            f"{names} has the data that the majority has",
            steps,
            (*tell_hashes(self.verdict.comparison), *plan.warnings),
        )

    @override
    def client(self, run: Run, seen: Draft) -> AbstractAsyncContextManager[EtcdClient]:
        sound = tuple(m for m in seen.goal if m.name not in self.verdict.hosts)
        return health.etcd_client(run, sound)  # a snapshot of the wrong data would be worse

    @override
    def actions(self, seen: Draft, probe: Probe | None) -> Actions:
        leaving = self.leaving(seen)
        retire = leaving[RetireHost]

        async def retire_guilty(run: Run, host: HostConnection, step: RetireHost) -> None:
            live = tuple(m.as_desired for m in seen.live if m.member.client_urls)
            sound = next(row for row in self.verdict.comparison.groups[0])
            if any(row.host == host.name for row in self.verdict.guilty):
                await health.move_leader_away(run, host, live, sound.host)
            await retire(run, host, step)

        async def disarm(run: Run, _step: DisarmCorrupt) -> None:
            async with health.etcd_client(run, seen.goal) as client:
                await corruption.disarm_corrupt(run, client, [m.name for m in seen.goal])

        changing = self.preparing(seen) | self.joining(seen) | leaving | self.telling(seen)
        return changing | {RetireHost: retire_guilty, DisarmCorrupt: disarm}

    @override
    async def verify(self, run: Run, seen: Draft) -> Verified:
        verified = await super().verify(run, seen)
        async with seen.roster.open(run) as client:
            # One that joins replays the log, and may reach its quota before its last compaction.
            alarms = (await client.observe_cluster()).find_alarms()
        if not alarms or verified.complaint:
            return verified
        told = "\n  - ".join(alarms)
        way = pointer("reclaim_space", cluster=run.inventory.name)
        complaint = MemberFailed(
            f"the data are the same, and alarms are left:\n  - {told}\n{way} leads out of NOSPACE"
        )
        return replace(verified, complaint=complaint)


class _Disarming(Recipe[Verdict]):
    """All voters have the same data; an alarm may have outlived its reason."""

    runbook = "repair_corruption"

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> Verdict:
        verdict = await examine(run)
        if verdict.hosts:
            raise Refused("the members' data differ by now; run this again. Nothing was changed")
        return verdict

    @override
    def findings(self, seen: Verdict) -> tuple[Finding, ...]:
        return ()

    @override
    async def plan(self, run: Run, seen: Verdict) -> Plan:
        return plan_disarm(run.inventory, seen)

    @override
    def actions(self, seen: Verdict, probe: Probe | None) -> Actions:
        async def disarm(run: Run, _step: DisarmCorrupt) -> None:
            hosts = [row.host for row in seen.comparison.rows]
            async with health.etcd_client(run, await location.locate_members(run)) as client:
                await corruption.disarm_corrupt(run, client, hosts)

        return {DisarmCorrupt: disarm}

    @override
    async def verify(self, run: Run, seen: Verdict) -> Verified:
        async with health.etcd_client(run, await location.locate_members(run)) as client:
            return Verified(await health.read_health(run, client))
