"""What restore_cluster and recover_quorum share: seeing the hosts, the restore, its verification.

Composes steps; a runbook has of its own where its snapshot comes from.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

from typing_extensions import override

from tasks.engine.journal import read_journal
from tasks.engine.remembered import recall
from tasks.engine.run import Run, together, unless
from tasks.etcd.probe import Probe
from tasks.hosts.connection import HostConnection
from tasks.hosts.restores import TOOLS
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import MemberFailed, Transient
from tasks.model.members import DesiredMember, format_id
from tasks.model.plan import Finding, Plan, Severity
from tasks.model.record import Event
from tasks.model.restores import Mark, RestoreHost, RestoreSource, RestoreTools
from tasks.plans import restoration as plans
from tasks.plans import restore_consent as consents
from tasks.plans.fences import find_fenced
from tasks.plans.recovery import ReviveApiserver
from tasks.plans.rehearsal import find_unlike
from tasks.plans.restore_marks import Wanted, choose_mark
from tasks.plans.survivors import fence_loss, may_elect
from tasks.plans.trials import Trial, find_places
from tasks.procedures import fetching, location
from tasks.procedures.course import Actions, Recipe, Unlocked, Verified
from tasks.procedures.isolation import isolated_client
from tasks.report.runs import stage_facts
from tasks.steps import apiservers, health, locks, restoration, revisions, services, snapshots
from tasks.store.places import Unstorable

LOOK_SECONDS = 2.0
"""Etcd without a leader lets reads hang; the run asks again where one may be elected."""
SERVE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen: the members that are to be, their hosts, and what the cluster still answers.

    `absent` are hosts that cannot be reached, with the reason; `left` those that are left out, of
    which `reached` can be. `highest` is the highest revision that anybody has recorded. `unheard`
    says of each API server outside why this run cannot stop it; empty: it can.
    """

    members: tuple[DesiredMember, ...]
    hosts: tuple[RestoreHost, ...]
    absent: dict[str, str]
    left: frozenset[str]
    health: ClusterHealth
    highest: int
    reached: tuple[str, ...] = ()
    unheard: dict[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> frozenset[str]:
        """The ids of the clusters that members answer for."""
        return frozenset(format_id(e.status.cluster_id) for e in self.health.endpoints if e.status)

    def host(self, name: str) -> RestoreHost:
        """Get one host by its name."""
        return next(host for host in self.hosts if host.host == name)

    def member(self, name: str) -> DesiredMember:
        """Get the member on a host."""
        return next(member for member in self.members if member.name == name)


class RestorationRecipe(Recipe[Sight]):
    """A restore: `source` is the snapshot, once there is one; `mark` says as which cluster.

    `waits`: whether an election that may be under way is waited for.
    """

    waits: ClassVar[bool] = False

    def __init__(
        self,
        consent: str | None,
        without: tuple[str, ...],
        accept: frozenset[str],
        *,
        dry_run: bool,
    ) -> None:
        self.consent = consent
        self.left = frozenset(without)
        self.accept = accept
        self.is_dry = dry_run
        self.source: RestoreSource | None = None
        self.has_programs = False
        self.mark: Mark | None = None
        self.drafted: Plan | None = None

    @abstractmethod
    def wanted(self, run: Run, seen: Sight) -> Wanted:
        """Say what is asked for, and what is known of it."""

    @override
    async def lock(self, run: Run, *, approved: bool) -> Unlocked:
        unlocked, _ = await locks.lock_cluster(run, majority=False)
        return unlocked

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> Sight:
        members = await location.locate_members(run)
        absent, hosts = dict(unlocked), dict[str, RestoreHost]()

        async def see(host: HostConnection) -> None:
            try:
                hosts[host.name] = await restoration.see_host(run, host)
            except Transient as error:
                absent[host.name] = error.message

        reachable = [host for host in run.hosts.values() if host.name not in absent]
        (found, highest), _, unheard = await asyncio.gather(
            self._ask(run, members),
            together(map(see, reachable)),
            apiservers.find_unheard(run),
        )
        consents.check_hosts(run.inventory, absent, self.left)
        self.has_programs = await fetching.find_programs(run) is not None
        return Sight(
            tuple(m for m in members if m.name not in self.left),
            tuple(hosts[n] for n in run.hosts if n in hosts and n not in self.left),
            absent,
            self.left,
            found,
            highest,
            tuple(name for name in run.hosts if name in hosts and name in self.left),
            unheard,
        )

    async def _ask(self, run: Run, members: tuple[DesiredMember, ...]) -> tuple[ClusterHealth, int]:
        """Ask what is left of the cluster, and for the highest revision that was recorded."""
        try:
            endpoints = await health.reach_endpoints(run, members)
            quick = tuple(replace(each, patience_seconds=LOOK_SECONDS) for each in endpoints)
            async with await health.make_client(run, quick) as client:
                found = await client.observe_cluster()
            if self.waits and may_elect(found):
                async with await health.make_client(run, endpoints) as client:
                    found = await health.read_health(run, client, fenced=True)
        except Transient:
            found = ClusterHealth((), reads_linearizable=False)
        store, saved = snapshots.open_snapshots(run.inventory), 0
        try:
            saved = max((m.revision for m in await snapshots.read_manifests(store)), default=0)
        except Unstorable as error:
            run.journal.append(Event.PROGRESS, text=f"snapshots are not looked at: {error}")
        return found, max(revisions.read_revision(run), revisions.highest_answer(found), saved)

    @override
    def findings(self, seen: Sight) -> tuple[Finding, ...]:
        return tuple(
            Finding(Severity.WARNING, name, f"is left out: {why}")
            for name, why in seen.absent.items()
        )

    def wants(
        self,
        run: Run,
        seen: Sight,
        *,
        told: str,
        size: int,
        sha256: str = "",
        revision: int = 0,
        is_rehearsed: bool = False,
    ) -> Wanted:
        """Say what is asked for of this snapshot, with all that is the same for every one."""
        # Whoever leaves a host out keeps what is on it from starting.
        gone = {one.name for one in run.inventory.kube_apiservers if one.host in seen.left}
        fenced = find_fenced(run.inventory, seen.health, recall(run.inventory.name).fenced)
        return Wanted(
            runbook=self.runbook,
            told=told,
            token=f"{run.inventory.name}-{run.backup}",
            sha256=sha256,
            size=size,
            revision=revision,
            highest=seen.highest,
            left=seen.left,
            reached=seen.reached,
            fenced=tuple(name for name in seen.reached if name in fenced),
            apiservers=tuple(name for name, why in seen.unheard.items() if not why),
            unheard=tuple(
                (name, why) for name, why in seen.unheard.items() if why and name not in gone
            ),
            is_rehearsed=is_rehearsed,
            has_programs=self.has_programs,
            accepts_old_revisions="old-revisions" in self.accept,
            accepts_apiservers="stopped-apiservers" in self.accept,
        )

    def fence(self, run: Run, seen: Sight) -> Plan | None:
        """Plan how old members that came back are stopped, with consent; None where none did."""
        plan = plans.plan_fence(run.inventory, self.wanted(run, seen), seen.hosts)
        if plan is not None:
            back = tuple(sorted(plan.hosts_of(plans.StopMember)))
            self.agree(run, fence_loss(run.inventory, back))
        return plan

    def draft(
        self, run: Run, seen: Sight, survivor: str | None, warnings: tuple[str, ...], loss: str
    ) -> Plan:
        """Plan, with consent; raises Refused."""
        wanted = self.wanted(run, seen)
        mark, is_begun = choose_mark(run.inventory, wanted, seen.hosts)
        consents.refuse_unable(run.inventory, wanted, seen.hosts, is_new=not is_begun)
        consents.check_apiservers(run.inventory, wanted)
        self.mark = mark
        plan = plans.plan_restoration(run.inventory, wanted, seen.hosts, mark, survivor, warnings)
        self.agree(run, loss)
        if self.is_dry:
            plan = replace(plan, warnings=(loss, *plan.warnings))
        else:
            revisions.note_pending(run, seen.ids | self.ended_ids())
        self.drafted = plan
        return plan

    def agree(self, run: Run, loss: str) -> None:
        """Raise Refused without the operator's word, with what is lost; a dry run needs none."""
        if not self.is_dry:
            consents.check_consent(run.inventory, self.consent, loss)

    def ended_ids(self) -> frozenset[str]:
        """Say which clusters' data this restore replaces, beside those that answer."""
        manifest = self.source.manifest if self.source else None
        return frozenset({manifest.cluster_id} if manifest else ())

    @override
    def trial(self, run: Run, seen: Sight, plan: Plan) -> Trial:
        return Trial(find_places(plan, run.inventory))

    def tools(self, run: Run, host: RestoreHost) -> RestoreTools:
        """Say with what a host restores, once it has been provided with it."""
        version = run.inventory.etcd.version
        found = host.best_tools(version)
        if found is not None and not found.is_inside:
            return found
        tool = found.tool if found else "etcdutl" if not version.startswith("3.4.") else "etcdctl"
        return RestoreTools(TOOLS, version, tool, bumps=tool == "etcdutl")

    @override
    def actions(self, seen: Sight, probe: Probe | None) -> Actions:
        async def rehearse(run: Run, _step: plans.RehearseSource) -> None:
            await self.rehearse(run)

        async def store(run: Run, _step: plans.StoreSource) -> None:
            await self.store(run)

        async def prove(run: Run, _step: plans.ProveData) -> None:
            await self.prove(run, seen)

        async def verify(run: Run, _step: plans.VerifyOpened) -> None:
            await wait_until_served(run, seen)

        return {
            plans.StopMember: restoration.stop_member,
            plans.ReplaySurvivor: partial(self.replay, seen=seen),
            plans.RehearseSource: rehearse,
            plans.ProvideTools: partial(self._provide, seen=seen),
            plans.ReadyData: partial(self._ready, seen=seen),
            plans.PlaceData: partial(self._place, seen=seen),
            plans.IsolateMember: partial(self._isolate, seen=seen),
            plans.ProveData: prove,
            plans.OpenMember: restoration.open_member,
            plans.VerifyOpened: verify,
            plans.MarkOpened: self._mark,
            plans.SilenceApiserver: apiservers.silence_apiserver,
            plans.ResumeApiserver: apiservers.resume_apiserver,
            plans.StoreSource: store,
            ReviveApiserver: services.revive_apiserver,
        }

    async def _provide(
        self, run: Run, host: HostConnection, step: plans.ProvideTools, *, seen: Sight
    ) -> None:
        found = seen.host(host.name).best_tools(run.inventory.etcd.version)
        lent = {} if found else await fetching.lend_programs(run)
        await restoration.provide_tools(run, host, step, found, lent)

    async def _ready(
        self, run: Run, host: HostConnection, _step: plans.ReadyData, *, seen: Sight
    ) -> None:
        own = seen.host(host.name)
        await restoration.ready_data(
            run,
            host,
            seen=own,
            tools=self.tools(run, own),
            source=fetching.known(self.source),
            mark=fetching.known(self.mark),
            members=seen.members,
        )

    async def _place(
        self, run: Run, host: HostConnection, step: plans.PlaceData, *, seen: Sight
    ) -> None:
        await restoration.place_data(run, host, step, stage=seen.host(host.name).stage)

    async def _isolate(
        self, run: Run, host: HostConnection, _step: plans.IsolateMember, *, seen: Sight
    ) -> None:
        own = seen.host(host.name)
        await restoration.isolate_member(
            run, host, seen=own, tools=self.tools(run, own), own=seen.member(host.name)
        )

    async def _mark(self, run: Run, host: HostConnection, step: plans.MarkOpened) -> None:
        await restoration.mark_opened(run, host, step, mark=fetching.known(self.mark))

    async def rehearse(self, run: Run) -> None:
        """Restore the snapshot on the runner; here: there is none that was not taken just now."""

    async def replay(
        self, run: Run, host: HostConnection, _step: plans.ReplaySurvivor, *, seen: Sight
    ) -> None:
        """Take the snapshot of a survivor; here: there is a snapshot already."""

    async def store(self, run: Run) -> None:
        """Put the survivor's snapshot into the store; here: it came from there."""

    async def prove(self, run: Run, seen: Sight) -> None:
        """See, before clients are let in, that all members have what the snapshot has.

        Raises MemberFailed; the data that were in place before lie beside them.
        """
        hosts = tuple(run.hosts[member.name] for member in seen.members)
        async with isolated_client(run, seen.members) as client:
            told, clusters = await restoration.read_restored(run, client, seen.members, hosts)
        problems = find_unlike(self.mark, self.source, told, clusters)
        if problems:
            raise MemberFailed(
                "what was restored is not what the snapshot has, and no client was let in:\n  - "
                + "\n  - ".join(problems)
                + f"\nWhat was in place before lies beside the data on each host, as "
                f"*.replaced-{run.backup}"
            )

    @override
    async def verify(self, run: Run, seen: Sight) -> Verified:
        found = await wait_until_served(run, seen)
        revisions.note_revision(run, revisions.highest_answer(found))
        own = {format_id(e.status.cluster_id) for e in found.endpoints if e.status}
        fenced = revisions.note_fenced(run, seen.ids | self.ended_ids(), own)
        await snapshots.share_fenced(run, fenced)
        facts = {}
        if self.drafted is not None:
            facts = stage_facts(self.drafted, read_journal(run.journal.path))
        facts |= {"cluster id": ", ".join(sorted(own))}
        if fenced:
            facts["ended with it"] = f"cluster id {', '.join(sorted(fenced))}"
        return Verified(found, facts=facts | self.facts(run))

    def facts(self, run: Run) -> dict[str, str]:
        """Say what else belongs into the report; here: nothing."""
        del run
        return {}

    @override
    async def confirm(self, run: Run, seen: Sight) -> Verified:
        return Verified(seen.health)


async def wait_until_served(run: Run, seen: Sight) -> ClusterHealth:
    """Wait until all restored members serve; raises MemberFailed with what etcd logged."""
    hosts = tuple(run.hosts[member.name] for member in seen.members)
    async with health.etcd_client(run, seen.members) as client:
        try:
            return await unless(
                services.watch_start(run, hosts),
                health.verify_cluster(run, client, seen.members, SERVE_SECONDS),
            )
        except MemberFailed as error:
            raise await services.with_journals(run, error, hosts) from error
