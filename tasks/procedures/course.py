"""The course of every runbook that changes something, from the lock to the report.

Lock, look, findings, plan, dry run, approval, snapshot, measured service, steps with the gate,
verification, report: they stand here once. What a runbook has of its own is a `Recipe`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from tasks.engine.authority import signing_authority
from tasks.engine.run import Run, both, open_run, perform
from tasks.etcd.client import EtcdClient
from tasks.etcd.probe import Probe
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import RunbookError
from tasks.model.inventory import Inventory
from tasks.model.inventory_file import load_inventory
from tasks.model.members import DesiredMember
from tasks.model.plan import Finding, Plan, Stage, Step
from tasks.plans.trials import Trial
from tasks.report.tables import Table
from tasks.steps import approvals, health, locks, reports, snapshots, trials

S = TypeVar("S")

Unlocked = dict[str, str]
"""Hosts that are not locked and so not to be touched, with the reason."""

Actions = dict[type[Step], Callable[..., Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the operator chose for a run, whatever its runbook.

    `snapshot` is `take`, `skip`, or none where the runbook changes nothing that one could restore.
    """

    snapshot: str | None = None
    approval: bool = False
    dry_run: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """What was seen at the end, for the report.

    `complaint` is raised after it: all is done and verified but for what it says.
    """

    health: ClusterHealth | None
    pairs: Table | None = None
    facts: dict[str, str] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    complaint: RunbookError | None = None


class Recipe(ABC, Generic[S]):
    """What a runbook has of its own; S is what it sees."""

    runbook: ClassVar[str]
    unmeasured_until: ClassVar[Stage | None] = None
    """The service is measured from this stage on; None: from the first."""
    measures_writes: ClassVar[bool] = False
    """Whether writes are measured, too, where a step may stop them alone."""

    async def open(self, run: Run) -> None:
        """Refuse before any host is asked what cannot be done at all; here: without authority."""
        await signing_authority(run)

    async def lock(self, run: Run, *, approved: bool) -> Unlocked:
        """Take the cluster's lock; here: a majority, and every host that can be reached.

        `approved`: a plan was shown before, and the one that is made now must be the same.
        """
        del approved
        unlocked, _ = await locks.lock_cluster(run, majority=True)
        return unlocked

    @abstractmethod
    async def look(self, run: Run, unlocked: Unlocked) -> S:
        """See hosts and members; raises Refused when what is needed cannot be seen."""

    @abstractmethod
    def findings(self, seen: S) -> tuple[Finding, ...]:
        """Say what forbids the run or is to be weighed."""

    @abstractmethod
    async def plan(self, run: Run, seen: S) -> Plan:
        """Decide, by a module of tasks/plans; raises Refused."""

    def obstructions(self, run: Run, seen: S, plan: Plan) -> tuple[Finding, ...]:
        """Say what of the hosts forbids this very plan, seen before; here: nothing."""
        del run, seen, plan
        return ()

    def trial(self, run: Run, seen: S, plan: Plan) -> Trial:
        """Say what this very plan writes and needs that no look has tried; here: nothing."""
        del run, seen, plan
        return Trial()

    def unsaved_until(self, plan: Plan) -> Stage | None:
        """Say beside what comes before which stage the snapshot is taken; here: before all."""
        del plan
        return None

    def client(self, run: Run, seen: S) -> AbstractAsyncContextManager[EtcdClient]:
        """Open a client of the members, for the snapshot."""
        return health.etcd_client(run, self.measured(seen))

    def measured(self, seen: S) -> tuple[DesiredMember, ...]:
        """Name the members whose service is measured; here: none."""
        del seen
        return ()

    @abstractmethod
    def actions(self, seen: S, probe: Probe | None) -> Actions:
        """Say what does each kind of step."""

    async def gate(self, run: Run, seen: S, step: Step) -> None:
        """Raise MemberFailed when a step of a serial stage may not be done; here: all may."""

    @abstractmethod
    async def verify(self, run: Run, seen: S) -> Verified:
        """Look again and compare with the plan's goal; raises MemberFailed."""

    async def confirm(self, run: Run, seen: S) -> Verified:
        """Verify where nothing was to do; here: the same as after the work."""
        return await self.verify(run, seen)

    def conclude(self, run: Run, seen: S) -> None:
        """Raise what is left to be said after the plan or the work, as that hosts were not seen."""


async def follow(recipe: Recipe[S], cluster: str | Inventory, choices: Choices) -> None:
    """Run a runbook from the lock to the report; raises Refused and others.

    Where a person must approve, the plan is made and shown without a lock first. The plan is
    published before anything is changed, and a dry run ends there.
    """
    snapshots.check_skip(choices.snapshot, choices.reason)
    inventory = cluster if isinstance(cluster, Inventory) else load_inventory(cluster)
    shown, decision = None, None
    if not choices.dry_run and approvals.is_required(inventory, asked=choices.approval):
        async with open_run(inventory, recipe.runbook, reason=choices.reason) as run:
            await health.open_login(run)
            await recipe.open(run)
            seen, shown = await _draft(recipe, run, {})
            # A run that was suspended begins anew: what it has published stands on its page.
            before = await approvals.recall(run) if shown.steps else None
            await _show(recipe, run, seen, shown, before)
            if not shown.steps:
                await _carry_out(recipe, run, seen, shown, choices)
                return
            await approvals.prepare(run, shown, before)
            request = approvals.request_markdown(
                shown,
                recipe.findings(seen),
                asked=run.operator,
                reason=choices.reason,
                approval=inventory.approval,
            )
        decision = await approvals.wait(inventory, shown, request)
    async with open_run(inventory, recipe.runbook, reason=choices.reason) as run:
        await health.open_login(run)
        await recipe.open(run)
        locked = not choices.dry_run
        unlocked = await recipe.lock(run, approved=shown is not None) if locked else {}
        seen, plan = await _draft(recipe, run, unlocked)
        await _show(recipe, run, seen, plan, shown.digest if shown else None)
        if shown is not None and decision is not None:
            approvals.check(run, decision, shown, plan)
        if not choices.dry_run:
            by = decision.by if decision else None
            await _carry_out(recipe, run, seen, plan, choices, approved=by)
        recipe.conclude(run, seen)


async def _draft(recipe: Recipe[S], run: Run, unlocked: Unlocked) -> tuple[S, Plan]:
    seen = await recipe.look(run, unlocked)
    await reports.refuse_on_findings(run, recipe.findings(seen))
    plan = await recipe.plan(run, seen)
    against = recipe.obstructions(run, seen, plan)
    if plan.steps:
        # A second round: which files and ports are meant is known by the plan alone.
        against = (*against, *await trials.try_all(run, recipe.trial(run, seen, plan)))
    await reports.refuse_on_findings(run, against)
    return seen, plan


async def _show(recipe: Recipe[S], run: Run, seen: S, plan: Plan, published: str | None) -> None:
    """Publish the plan, unless it is the one of this digest, which the run has published."""
    is_known = plan.digest == published
    await reports.publish_plan(run, plan, recipe.findings(seen), is_known=is_known)


async def _carry_out(
    recipe: Recipe[S],
    run: Run,
    seen: S,
    plan: Plan,
    choices: Choices,
    *,
    approved: str | None = None,
) -> None:
    """Take the snapshot, do the steps with the gate before each, verify and report."""
    probe = None
    async with AsyncExitStack() as measuring:
        if plan.steps:

            async def save() -> None:
                if choices.snapshot == "take":
                    async with recipe.client(run, seen) as client:
                        await snapshots.save_snapshot(run, client)

            async def gate(step: Step) -> None:
                await recipe.gate(run, seen, step)

            rest = plan
            unsaved_until = recipe.unsaved_until(plan)
            if unsaved_until is None:
                await save()
            if (stage := recipe.unmeasured_until) is not None:
                before, rest = plan.cut_before(stage)
                await perform(run, before, recipe.actions(seen, None), gate=gate)
            if members := recipe.measured(seen):
                service = health.measured_service(run, members, writes=recipe.measures_writes)
                probe = await measuring.enter_async_context(service)
            mark = probe.mark if probe else lambda _: None
            actions = recipe.actions(seen, probe)
            if unsaved_until is not None:
                before, rest = rest.cut_before(unsaved_until)
                await both(save(), perform(run, before, actions, gate=gate, mark=mark))
            await perform(run, rest, actions, gate=gate, mark=mark)
        found = await (recipe.verify(run, seen) if plan.steps else recipe.confirm(run, seen))
    await reports.publish_report(
        run,
        plan,
        recipe.findings(seen),
        found.health,
        choices.reason,
        gaps=probe.results() if probe else (),
        tables={"Certificates": found.pairs} if found.pairs else found.tables,
        facts={"approved by": approved or "not asked for"} | found.facts,
    )
    if found.complaint is not None:
        raise found.complaint
