"""Restore a whole cluster from a snapshot: its data are lost, or it is to go back in time."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from typing_extensions import override

from tasks.engine.frame import runbook
from tasks.engine.run import Run, both
from tasks.model.plan import Plan
from tasks.model.snapshots import EncryptionFile
from tasks.plans import restoration as plans
from tasks.plans.restore_consent import encryption_warnings, restore_loss, unrehearsed
from tasks.plans.restore_marks import Wanted, find_done
from tasks.procedures import fetching
from tasks.procedures.course import Choices, Unlocked, follow
from tasks.procedures.restoration import RestorationRecipe, Sight
from tasks.steps import snapshots


@runbook(flow_run_name="restore {cluster}")
async def restore_cluster(
    cluster: str,
    consent: str | None = None,
    snapshot: str | None = None,
    file: str | None = None,
    without: list[str] | None = None,
    accept: list[Literal["no-checksum", "other-cluster", "old-revisions", "stopped-apiservers"]]
    | None = None,
    again: bool = False,
    approval: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Put what a snapshot has in the place of a cluster's data, on all hosts at once.

    For a cluster that lost its data, or most of its members and no survivor is to be taken
    (`recover_quorum` takes one), or that is to go back in time. What was written since the snapshot
    is lost. The data that are in place are set aside on each host, never deleted. The cluster gets
    ids of its own, and its revision is raised far above all that was recorded, so that every watch
    of an old one is cancelled.

    Stages, and what is true when the runner dies in one; the same command goes on from there:

    1. Lock, look, check the snapshot, plan: nothing has been changed.
    2. Make ready: restored beside the data on each host, and on the runner; what runs is not
       touched.
    3. Stop API servers, then members, put in place: each host has the old data or the restored
       ones, and the old ones under another name.
    4. Start where no client is, verify: nobody was let in. After a failure the old data are beside.
    5. Open, verify, API servers: clients may be served already; the next run opens the others, and
       restores nothing again.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        consent: the cluster's name, typed: what was written since the snapshot may be lost
        snapshot: the file's name in the store; without it, the newest
        file: a file on the runner in place of one in the store
        without: hosts that are gone for good, and kept from starting
        accept: a file without a checksum, of another cluster, revisions that are not raised, or
            that API servers which this run cannot stop are stopped
        again: restore a snapshot once more that the cluster was restored from
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    recipe = _Restore(
        consent,
        tuple(without or ()),
        dry_run=dry_run,
        request=fetching.Request(snapshot, Path(file) if file else None, frozenset(accept or ())),
        again=again,
    )
    await follow(recipe, cluster, Choices(approval=approval, dry_run=dry_run, reason=reason))


class _Restore(RestorationRecipe):
    runbook = "restore_cluster"

    def __init__(
        self,
        consent: str | None,
        without: tuple[str, ...],
        *,
        dry_run: bool,
        request: fetching.Request,
        again: bool,
    ) -> None:
        super().__init__(consent, without, request.accept, dry_run=dry_run)
        self.request = request
        self.again = again

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> Sight:
        seen, source = await both(super().look(run, unlocked), fetching.fetch(run, self.request))
        fetching.refuse_other_cluster(run.inventory, source, seen.members, self.request)
        self.source = source
        return seen

    @override
    def wanted(self, run: Run, seen: Sight) -> Wanted:
        source = fetching.known(self.source)
        return self.wants(
            run,
            seen,
            told=source.told,
            size=source.size,
            sha256=source.sha256,
            revision=source.revision,
            is_rehearsed=source.is_proven or not self.has_programs,
        )

    @override
    async def plan(self, run: Run, seen: Sight) -> Plan:
        source = fetching.known(self.source)
        if not self.again and (done := find_done(source.sha256, seen.hosts)):
            if fence := self.fence(run, seen):
                return fence
            return plans.plan_nothing(run.inventory, self.runbook, source.told, done)
        present: tuple[EncryptionFile, ...] = ()
        if source.manifest and source.manifest.encryption:
            present, _ = await snapshots.see_encryption(run)
        warnings = encryption_warnings(source.manifest, present)
        if not self.has_programs and not source.is_proven:
            warnings += unrehearsed(run.inventory, source)
        serves = seen.health.reads_linearizable
        loss = restore_loss(run.inventory, source, seen.highest, seen.hosts, serves=serves)
        return self.draft(run, seen, None, warnings, loss)

    @override
    async def rehearse(self, run: Run) -> None:
        self.source = await fetching.rehearse(run, fetching.known(self.source))
