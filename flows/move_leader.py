"""Hand a cluster's leadership to another member."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from tasks.engine.frame import runbook
from tasks.engine.run import Run
from tasks.etcd.probe import Probe
from tasks.model.inventory_file import load_inventory
from tasks.model.members import DesiredMember, SeenMember
from tasks.model.plan import Finding, Plan, Step
from tasks.plans import agreement
from tasks.plans.reconfiguration import MoveLeader, order_handover
from tasks.plans.voters import refuse_without_members
from tasks.procedures import location
from tasks.procedures.course import Actions, Choices, Recipe, Unlocked, Verified, follow
from tasks.procedures.roster import Roster, on_client, pass_gate
from tasks.procedures.wishes import Wish, wished_inventory
from tasks.steps import health, onhosts, reconfiguration


@runbook(flow_run_name="move leader of {cluster}")
async def move_leader(
    cluster: str,
    to: str | None = None,
    approval: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Hand leadership over, before a host is worked on by hand; nothing else is changed.

    The leader itself hands it over, without an election. When the runner dies, one of the two
    leads.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        to: the voter that shall lead, by name or id; without it the one that is furthest
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    choices = Choices(approval=approval, dry_run=dry_run, reason=reason)
    await follow(_Handover(to), wished_inventory(load_inventory(cluster), Wish()), choices)


@dataclass(frozen=True, slots=True)
class _Sight:
    roster: Roster
    live: tuple[SeenMember, ...]


class _Handover(Recipe[_Sight]):
    runbook = "move_leader"

    def __init__(self, to: str | None) -> None:
        self.to = to

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> _Sight:
        roster = Roster(await location.locate_members(run))
        live = (await roster.look(run, settled=True)).seen_members()
        if not live:
            await onhosts.refuse_foreign(run, roster.members)
        refuse_without_members(live)
        return _Sight(roster, live)

    @override
    def findings(self, seen: _Sight) -> tuple[Finding, ...]:
        return ()

    @override
    async def plan(self, run: Run, seen: _Sight) -> Plan:
        host = run.inventory.called(self.to) if self.to else None
        steps = order_handover(seen.live, host.name if host else self.to)
        gone = agreement.find_gone(seen.roster.members, seen.live)
        goal = f"{self.to or 'another voter'} leads"
        warnings = tuple(map(agreement.lead_back, gone))
        return Plan(run.runbook, run.inventory.name, goal, steps, warnings)

    @override
    def measured(self, seen: _Sight) -> tuple[DesiredMember, ...]:
        return seen.roster.members

    @override
    def actions(self, seen: _Sight, probe: Probe | None) -> Actions:
        return {MoveLeader: on_client(seen.roster, reconfiguration.move_leader)}

    @override
    async def gate(self, run: Run, seen: _Sight, step: Step) -> None:
        await pass_gate(run, seen.roster, step)

    @override
    async def verify(self, run: Run, seen: _Sight) -> Verified:
        async with seen.roster.open(run) as client:
            return Verified(await health.read_health(run, client))
