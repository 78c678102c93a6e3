"""Let no member of a stacked cluster begin anything without its data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from typing_extensions import override

from tasks.engine.frame import runbook
from tasks.engine.run import Run
from tasks.etcd.probe import Probe
from tasks.model.cluster import ClusterHealth
from tasks.model.members import DesiredMember
from tasks.model.nodes import NodeObservation
from tasks.model.plan import Finding, Plan, Severity, Step
from tasks.plans.hardening import HardenMember, plan_hardening, refuse_external
from tasks.plans.nodes import find_even, find_unable
from tasks.plans.refilled import find_refilled
from tasks.plans.trials import Trial, find_places
from tasks.plans.ways import find_closed
from tasks.procedures import hardening, location, rotation
from tasks.procedures.course import Actions, Choices, Recipe, Unlocked, Verified, follow
from tasks.steps import health, nodes


@runbook(flow_run_name="harden members of {cluster}")
async def harden_members(
    cluster: str,
    snapshot: Literal["take", "skip"] = "take",
    approval: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Let a wiped member of a stacked cluster end at once, in place of beginning an empty cluster.

    kubeadm lets a member's manifest begin a cluster, or join with an empty log; it writes so again
    at each upgrade. Each manifest then names its own member alone and the state `existing`, which
    etcd reads only where there are no data. Nothing is to be done for external members, whose
    settings name all.

    Stages, and what is true when the runner dies in one:

    1. Lock, observe, plan, a verified snapshot: nothing has been changed.
    2. One member at a time, followers first, leadership moved before: the manifests of its API
       server and then its own are taken out, changed and put back. One that is out lies in
       etcd-runbooks beside its directory, and the next run begins with it.
    3. Verify.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        snapshot: `skip` needs a reason
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    choices = Choices(snapshot=snapshot, approval=approval, dry_run=dry_run, reason=reason)
    await follow(_Hardening(), cluster, choices)


@dataclass(frozen=True, slots=True)
class _Sight:
    members: tuple[DesiredMember, ...]
    health: ClusterHealth
    nodes: dict[str, NodeObservation]
    absent: dict[str, str]
    against: tuple[Finding, ...]

    @property
    def soft(self) -> tuple[str, ...]:
        return tuple(n.host for n in self.nodes.values() if not n.settings.begins_nothing)


class _Hardening(Recipe[_Sight]):
    runbook = "harden_members"

    @override
    async def open(self, run: Run) -> None:
        refuse_external(run.inventory)
        await super().open(run)

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> _Sight:
        members = await location.locate_members(run)
        async with health.etcd_client(run, members) as client:
            found = await health.read_health(run, client)
        seen, silent = await nodes.observe_nodes(run)
        by_name = {node.host: node for node in seen}
        hindered = find_unable(run.inventory, seen, by_name)
        closed = find_closed(run.inventory, await nodes.observe_ways(run, seen, members))
        return _Sight(members, found, by_name, silent | unlocked, (*hindered, *closed))

    @override
    def findings(self, seen: _Sight) -> tuple[Finding, ...]:
        absent = (
            Finding(Severity.REFUSAL, name, f"cannot be hardened: {why}")
            for name, why in seen.absent.items()
        )
        refilled = find_refilled(seen.nodes.values(), seen.health)
        return (*absent, *seen.against, *find_even(len(seen.members)), *refilled)

    @override
    async def plan(self, run: Run, seen: _Sight) -> Plan:
        soft = seen.soft if len(seen.members) > 1 else ()
        return plan_hardening(run.inventory, seen.members, seen.health, seen.nodes, soft)

    @override
    def trial(self, run: Run, seen: _Sight, plan: Plan) -> Trial:
        healthy = {m.host for m in seen.health.seen_members() if m.is_healthy}
        serving = tuple(member for member in seen.members if member.name in healthy)
        return Trial(find_places(plan, run.inventory), serving)

    @override
    def measured(self, seen: _Sight) -> tuple[DesiredMember, ...]:
        return seen.members

    @override
    def actions(self, seen: _Sight, probe: Probe | None) -> Actions:
        return {HardenMember: partial(hardening.harden_member, members=seen.members)}

    @override
    async def gate(self, run: Run, seen: _Sight, step: Step) -> None:
        if step.host is not None:
            await health.pass_gate(run, seen.members, step.host, restarts=True)

    @override
    async def verify(self, run: Run, seen: _Sight) -> Verified:
        return Verified(await rotation.wait_until_healthy(run, seen.members))
