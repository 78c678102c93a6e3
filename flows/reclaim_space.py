"""Give back what is free in a cluster's databases, and lead a full one out of NOSPACE."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial

from typing_extensions import override

from tasks.engine.frame import runbook
from tasks.engine.run import Run
from tasks.etcd.probe import Probe
from tasks.hosts.connection import HostConnection
from tasks.model.errors import MemberFailed
from tasks.model.members import DesiredMember
from tasks.model.plan import Finding, Plan, Step
from tasks.model.space import Freed
from tasks.plans.quotas import RaiseQuota, find_quota_findings, wanted_quota
from tasks.plans.space import (
    CompactHistory,
    DefragmentMember,
    DisarmAlarms,
    Rules,
    SpaceSight,
    choose_revision,
    find_space_findings,
    plan_space,
    refuse_stops,
)
from tasks.plans.trials import Trial
from tasks.procedures import location, quotas
from tasks.procedures import space as procedures
from tasks.procedures.course import Actions, Choices, Recipe, Unlocked, Verified, follow
from tasks.procedures.roster import Roster, on_client
from tasks.report.space import fillers_table, freed_fact
from tasks.steps import health, space


@runbook(flow_run_name="reclaim space of {cluster}")
async def reclaim_space(
    cluster: str,
    keep_minutes: int | None = None,
    keep_revisions: int | None = None,
    free_percent: int = 45,
    at_least_mb: int = 100,
    quota_percent: int = 80,
    stop_members: bool = False,
    raise_quota: bool = False,
    approval: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Compact, defragment one member at a time, and take NOSPACE back; safe to run every night.

    A member is touched only while every other one is there and up to date, and never while it
    leads. What the rules do not ask for is not done: a cluster with nothing to give back is only
    looked at. API servers compact their cluster by themselves; there that is done only when
    NOSPACE keeps them from it.

    Stages, and what is true when the runner dies in one:

    1. Lock, observe, see what fills the database, plan: nothing has been changed.
    2. Compact: history before a revision is gone, or not.
    3. Defragment, the leader last, which hands leadership over before: etcd, or the host of a
       member that was stopped for it, ends by itself what was begun, and the next run goes on with
       the members that are left.
    4. Raise the quota, only if asked for: a member has it in its settings, or not; the one that has
       it there and has not restarted is restarted by the next run that raises.
    5. The alarm is taken back when every database is below nine tenths of its quota; verify.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        keep_minutes: of history that stays, 5 without it; what is that old is known from earlier
            checks and runs. In NOSPACE all goes that no API server needs
        keep_revisions: of history that stays, by count, in place of minutes
        free_percent: defragment a member of whose database this share is free
        at_least_mb: smaller databases are left as they are, unless NOSPACE is raised or near
        quota_percent: defragment a member whose database has this share of its quota, whatever
            its size, if there is anything to give back
        stop_members: stop each member while its database is written anew, so that all its clients
            go to another one at once; no other member may be lost in that time
        raise_quota: give every member the quota that the inventory says
            (etcd.settings.quota_backend_bytes), where it is more, by one restart after the other
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan, which says what would be given back; nothing is changed
        reason: why, for the record
    """
    rules = Rules(free_percent, at_least_mb, quota_percent, stops=stop_members)
    choices = Choices(approval=approval, dry_run=dry_run, reason=reason)
    keep = None if keep_minutes is None else timedelta(minutes=max(keep_minutes, 0))
    recipe = _Reclaiming(rules, keep, keep_revisions, raises=raise_quota)
    await follow(recipe, cluster, choices)


class _Reclaiming(Recipe[SpaceSight]):
    runbook = "reclaim_space"

    def __init__(
        self, rules: Rules, keep: timedelta | None, keep_revisions: int | None, *, raises: bool
    ) -> None:
        self.rules = rules
        self.keep = keep
        self.keep_revisions = keep_revisions
        self.raises = raises
        self.against: tuple[Finding, ...] = ()
        self.freed: list[Freed] = []
        self.left: list[str] = []

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> SpaceSight:
        self.roster = Roster(await location.locate_members(run))
        seen = await procedures.see_space(run, self.roster)
        if self.rules.stops:
            self.against = refuse_stops(run.inventory, seen)
        if not self.raises:
            return seen
        sizes = {name: status.db_size for name, status in seen.statuses.items()}
        self.against += find_quota_findings(run.inventory, seen.quotas, sizes, seen.rooms)
        return replace(seen, raised=wanted_quota(run.inventory))

    @override
    def findings(self, seen: SpaceSight) -> tuple[Finding, ...]:
        return (*find_space_findings(seen), *self.against)

    @override
    async def plan(self, run: Run, seen: SpaceSight) -> Plan:
        history = choose_revision(seen, self.keep, self.keep_revisions)
        return plan_space(run.inventory, seen, self.rules, history)

    @override
    def trial(self, run: Run, seen: SpaceSight, plan: Plan) -> Trial:
        raised, stopped = plan.hosts_of(RaiseQuota), plan.hosts_of(DefragmentMember)
        backups, layout = run.inventory.paths.backups, run.inventory.layout
        places = {name: frozenset({backups, layout(name).configuration}) for name in raised}
        restarts = raised or (stopped and self.rules.stops)
        return Trial(places, seen.members if restarts else ())

    @override
    def measured(self, seen: SpaceSight) -> tuple[DesiredMember, ...]:
        return seen.members

    @override
    def actions(self, seen: SpaceSight, probe: Probe | None) -> Actions:
        async def defragment(run: Run, host: HostConnection, _step: DefragmentMember) -> None:
            done = await procedures.defragment_member(run, host, self.roster, seen, self.rules)
            if isinstance(done, Freed):
                self.freed.append(done)
            elif done is not None:
                self.left.append(done)

        disarm = partial(space.disarm_space, seen=seen)
        return {
            CompactHistory: on_client(self.roster, space.compact_history),
            DefragmentMember: defragment,
            RaiseQuota: partial(quotas.raise_quota, roster=self.roster),
            DisarmAlarms: on_client(self.roster, disarm),
        }

    @override
    async def gate(self, run: Run, seen: SpaceSight, step: Step) -> None:
        await procedures.pass_space_gate(run, self.roster, step.sentence.splitlines()[0])

    @override
    async def verify(self, run: Run, seen: SpaceSight) -> Verified:
        async with self.roster.open(run) as client:
            found = await client.wait_until_healthy(seen.members, health.GATE_SECONDS)
        space.note_space(run, found, seen.limits)
        alarms = found.find_alarms() if seen.is_alarmed else ()
        problems = [*self.left, *alarms]
        complaint = MemberFailed("not all was done:\n  - " + "\n  - ".join(problems))
        return Verified(
            found,
            facts=dict(map(freed_fact, self.freed)),
            tables={"What fills the database": fillers_table(seen.survey)},
            complaint=complaint if problems else None,
        )
