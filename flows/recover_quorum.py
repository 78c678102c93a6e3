"""Recover a cluster whose majority is gone for good, from what a survivor has."""

from __future__ import annotations

from functools import partial
from typing import Literal

from typing_extensions import override

from tasks.engine.frame import runbook
from tasks.engine.run import Run, both, together, unless
from tasks.hosts.connection import HostConnection
from tasks.model.members import format_id
from tasks.model.plan import Plan
from tasks.model.record import Event
from tasks.model.restores import LogEnd
from tasks.plans import restoration as plans
from tasks.plans import restore_consent, survivors
from tasks.plans.restore_marks import Wanted, choose_mark, raise_above
from tasks.procedures.course import Choices, Unlocked, follow
from tasks.procedures.fetching import known
from tasks.procedures.isolation import isolated_client
from tasks.procedures.restoration import RestorationRecipe, Sight
from tasks.steps import replay, restoration, snapshots
from tasks.steps.snapshots import Encryption
from tasks.store.places import Unstorable
from tasks.store.temporary import temporary


@runbook(flow_run_name="recover the quorum of {cluster}")
async def recover_quorum(
    cluster: str,
    consent: str | None = None,
    without: list[str] | None = None,
    accept: list[Literal["old-revisions", "stopped-apiservers"]] | None = None,
    approval: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Bring a cluster back that has lost most of its members, with all that a survivor has.

    The survivor is the one whose log goes furthest, by its last term and index. A copy of its data
    runs alone until it has applied all of its log, a verified snapshot of that is restored on every
    host that can be reached, and the cluster gets ids of its own: dead members that come back
    cannot join it. Members' data are set aside on their hosts, never deleted, and the snapshot goes
    into the store. Old members that come back later are stopped by the same command.

    Stages, and what is true when the runner dies in one; the same command goes on from there:

    1. Lock, look, read the logs, plan: nothing has been changed.
    2. Stop API servers and what is left, which serves nobody; run the copy, take its snapshot: data
       are untouched.
    3. Make ready beside the data on each host, put in place: each host has the old data or the new
       ones, and the old ones under another name.
    4. Start where no client is, verify: nobody was let in.
    5. Open, verify, API servers: the next run opens the others, and restores nothing again.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        consent: the cluster's name, typed: what no survivor has is lost
        without: hosts that are gone for good, and kept from starting
        accept: that revisions are not raised, where etcd is too old for it, or that API servers
            which this run cannot stop are stopped
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    recipe = _Recovery(consent, tuple(without or ()), frozenset(accept or ()), dry_run=dry_run)
    await follow(recipe, cluster, Choices(approval=approval, dry_run=dry_run, reason=reason))


class _Recovery(RestorationRecipe):
    runbook = "recover_quorum"
    waits = True

    def __init__(
        self,
        consent: str | None,
        without: tuple[str, ...],
        accept: frozenset[str],
        *,
        dry_run: bool,
    ) -> None:
        super().__init__(consent, without, accept, dry_run=dry_run)
        self.ends: dict[str, LogEnd] = {}
        self.encryption: Encryption = ((), ())
        self.stored = ""

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> Sight:
        seen = await super().look(run, unlocked)

        async def read(host: HostConnection) -> None:
            if (end := await replay.read_log_end(run, host)) is not None:
                self.ends[host.name] = end

        self.ends = {}
        # Asked now, since API servers that are stopped cannot be.
        self.encryption, _ = await both(
            snapshots.see_encryption(run),
            together(read(run.hosts[each.host]) for each in seen.hosts if each.has_data),
        )
        return seen

    @override
    def wanted(self, run: Run, seen: Sight) -> Wanted:
        size = max((host.data_bytes for host in seen.hosts), default=0)
        return self.wants(run, seen, told="what the survivor has", size=size)

    @override
    def ended_ids(self) -> frozenset[str]:
        return frozenset(format_id(end.cluster_id) for end in self.ends.values())

    @override
    async def plan(self, run: Run, seen: Sight) -> Plan:
        _, is_begun = choose_mark(run.inventory, self.wanted(run, seen), seen.hosts)
        if is_begun:
            loss = f"{run.inventory.name} is in the middle of a recovery, which would go on."
            going_on = self.draft(run, seen, None, (), loss)
            restore_consent.refuse_sourceless(run.inventory, going_on)
            return going_on
        if fence := self.fence(run, seen):
            return fence
        survivors.refuse_quorum(run.inventory, seen.health)
        chosen = survivors.choose_survivor(run.inventory, self.ends)
        loss = survivors.recovery_loss(run.inventory, chosen, self.ends, seen.members)
        return self.draft(run, seen, chosen, (), loss)

    @override
    async def replay(
        self, run: Run, host: HostConnection, _step: plans.ReplaySurvivor, *, seen: Sight
    ) -> None:
        own, member = seen.host(host.name), seen.member(host.name)
        tools = self.tools(run, own)
        directory = run.on_exit.enter_context(temporary("restore"))
        await replay.replay(run, host, seen=own, tools=tools, own=member)
        async with isolated_client(run, (member,)) as client:
            found = await unless(
                restoration.watch_isolated(run, (host,)), replay.read_replayed(run, client)
            )
            manifest = await snapshots.describe_source(run, client, found, self.encryption)
        source = await replay.save_replayed(
            run, host, seen=own, found=found, manifest=manifest, directory=directory
        )
        await replay.end_replay(run, host, seen=own)
        self.source = source
        self.mark = raise_above(known(self.mark), source.sha256, source.revision)
        run.on_exit.push_async_exit(partial(self._keep, run))

    async def _keep(self, run: Run, kind: object, error: BaseException | None, _: object) -> None:
        """Let a run that fails after it took the snapshot leave that in the store all the same."""
        del kind
        if isinstance(error, Exception) and not self.stored:
            await self.store(run)

    @override
    async def store(self, run: Run) -> None:
        source = known(self.source)
        try:
            await snapshots.store_source(run, source, known(source.manifest))
            self.stored = run.snapshot or "stored"
        except Unstorable as error:
            self.stored = f"not in the store: {error}"
            run.journal.append(Event.PROGRESS, text=f"the survivor's snapshot is {self.stored}")

    @override
    def facts(self, run: Run) -> dict[str, str]:
        return {"the survivor's snapshot": self.stored} if self.stored else {}
