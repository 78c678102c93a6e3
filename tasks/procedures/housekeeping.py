"""The rules of retention carried out, cluster by cluster, under each one's lock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

from typing_extensions import override

from tasks.engine.run import Run, settle
from tasks.etcd.probe import Probe
from tasks.model.errors import NotSeen, RunbookError
from tasks.model.inventory import Approval
from tasks.model.inventory_file import load_inventory
from tasks.model.plan import Finding, Plan
from tasks.model.retention import Backup
from tasks.plans.housekeeping import (
    ArchiveJournals,
    Leavings,
    RemoveBackups,
    RemoveSnapshots,
    plan_housekeeping,
)
from tasks.procedures.course import Actions, Choices, Recipe, Unlocked, Verified, follow
from tasks.steps import housekeeping, locks, snapshots


async def apply_rules(clusters: Iterable[str], choices: Choices) -> None:
    """Tidy up after each cluster's runs; one that fails stops no other, and is raised at the end.

    No person is asked: the rules are the inventory's, which somebody has reviewed.
    """
    outcomes: list[BaseException | None] = []
    for cluster in clusters:
        try:
            inventory = load_inventory(cluster)
            unasked = inventory.model_copy(update={"approval": Approval.NONE})
            await follow(_Housekeeping(), unasked, choices)
        except RunbookError as error:
            outcomes.append(error)
    settle(outcomes)


class _Housekeeping(Recipe[Leavings]):
    runbook = "apply_retention"

    @override
    async def open(self, run: Run) -> None:
        """Do nothing: nothing is signed."""

    @override
    async def lock(self, run: Run, *, approved: bool) -> Unlocked:
        if run.inventory.retention.backups_days is None:
            return {}  # no host is touched, nor asked
        unlocked, _ = await locks.lock_cluster(run)
        return unlocked

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> Leavings:
        unseen, backups = dict(unlocked), dict[str, tuple[Backup, ...]]()

        async def look_at(name: str) -> None:
            try:
                backups[name] = await housekeeping.list_backups(run, run.hosts[name])
            except RunbookError as error:
                unseen[name] = error.message

        if run.inventory.retention.backups_days is not None:
            await asyncio.gather(*(look_at(name) for name in run.hosts if name not in unlocked))
        journals, settled = await housekeeping.read_past(run)
        return Leavings(journals, await snapshots.find_expired(run), backups, settled, unseen)

    @override
    def findings(self, seen: Leavings) -> tuple[Finding, ...]:
        return ()

    @override
    async def plan(self, run: Run, seen: Leavings) -> Plan:
        return plan_housekeeping(run.inventory, seen, datetime.now(UTC))

    @override
    def actions(self, seen: Leavings, probe: Probe | None) -> Actions:
        async def remove_snapshots(run: Run, _step: RemoveSnapshots) -> bool:
            return bool(await snapshots.remove_expired(run))

        return {
            ArchiveJournals: housekeeping.archive_journals,
            RemoveSnapshots: remove_snapshots,
            RemoveBackups: housekeeping.remove_backups,
        }

    @override
    async def verify(self, run: Run, seen: Leavings) -> Verified:
        left = await self.plan(run, await self.look(run, dict(seen.unseen)))
        facts = {"left": "; ".join(step.sentence for step in left.steps) or "nothing"}
        return Verified(None, facts=facts)

    @override
    def conclude(self, run: Run, seen: Leavings) -> None:
        if seen.unseen:
            told = "\n".join(f"  - {host}: {why}" for host, why in seen.unseen.items())
            raise NotSeen(
                f"what runs have replaced is not known of {len(seen.unseen)} host(s):\n{told}"
            )
