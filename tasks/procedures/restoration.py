"""What restore_cluster and recover_quorum share: seeing the hosts, the restore, its verification.

Composes steps; a runbook has of its own where its snapshot comes from.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from typing_extensions import override

from tasks.engine.journal import read_journal
from tasks.engine.run import Run, together, unless
from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.etcd.probe import Probe
from tasks.hosts.connection import HostConnection
from tasks.hosts.restores import TOOLS, isolated_port
from tasks.model.cluster import ClusterHealth, DesiredMember, format_id
from tasks.model.errors import MemberFailed, Transient
from tasks.model.plan import Finding, Plan, Severity
from tasks.model.record import Event
from tasks.model.restores import Mark, RestoreHost, RestoreSource, RestoreTools
from tasks.plans import restoration as plans
from tasks.plans import restore_consent as consents
from tasks.plans.recovery import ReviveApiserver
from tasks.plans.rehearsal import Restored, find_disagreement
from tasks.plans.restore_marks import Wanted, choose_mark
from tasks.plans.survivors import may_elect
from tasks.procedures import fetching, location
from tasks.procedures.course import Actions, Recipe, Unlocked, Verified
from tasks.report.runs import stage_facts
from tasks.steps import health, locks, restoration, revisions, services, snapshots
from tasks.store.places import Unstorable

LOOK_SECONDS = 2.0
"""Etcd without a leader lets reads hang; the run asks again where one may be elected."""
SERVE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen: the members that are to be, their hosts, and what the cluster still answers.

    `absent` are hosts that cannot be reached, with the reason; `left` those that are left out, of
    which `reached` can be. `highest` is the highest revision that anybody has recorded.
    """

    members: tuple[DesiredMember, ...]
    hosts: tuple[RestoreHost, ...]
    absent: dict[str, str]
    left: frozenset[str]
    health: ClusterHealth
    highest: int
    reached: tuple[str, ...] = ()

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

    def __init__(self, consent: str | None, without: tuple[str, ...], *, dry_run: bool) -> None:
        self.consent = consent
        self.left = frozenset(without)
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
        (found, highest), _ = await asyncio.gather(
            self._ask(run, members), together(map(see, reachable))
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
                    found = await health.read_health(run, client)
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

    def draft(
        self, run: Run, seen: Sight, survivor: str | None, warnings: tuple[str, ...], loss: str
    ) -> Plan:
        """Plan, with consent; raises Refused."""
        wanted = self.wanted(run, seen)
        mark, is_begun = choose_mark(run.inventory, wanted, seen.hosts)
        consents.refuse_unable(run.inventory, wanted, seen.hosts, is_new=not is_begun)
        self.mark = mark
        plan = plans.plan_restoration(run.inventory, wanted, seen.hosts, mark, survivor, warnings)
        self.agree(run, loss)
        if self.is_dry:
            plan = replace(plan, warnings=(loss, *plan.warnings))
        self.drafted = plan
        return plan

    def agree(self, run: Run, loss: str) -> None:
        """Raise Refused without the operator's word, with what is lost; a dry run needs none."""
        if not self.is_dry:
            consents.check_consent(run.inventory, self.consent, loss)

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

    async def prove(self, run: Run, seen: Sight) -> None:
        """See, before clients are let in, that all members have what the snapshot has.

        Raises MemberFailed; the data that were in place before lie beside them.
        """
        hosts = tuple(run.hosts[member.name] for member in seen.members)
        async with isolated_client(run, seen.members) as client:
            told, clusters = await restoration.read_restored(run, client, seen.members, hosts)
        problems = self._differences(told, clusters)
        if problems:
            raise MemberFailed(
                "what was restored is not what the snapshot has, and no client was let in:\n  - "
                + "\n  - ".join(problems)
                + f"\nWhat was in place before lies beside the data on each host, as "
                f"*.replaced-{run.backup}"
            )

    def _differences(self, told: tuple[Restored, ...], clusters: frozenset[str]) -> list[str]:
        mark, source, head = self.mark, self.source, told[0].revision
        problems = []
        if mark is not None and head < mark.revision:
            problems.append(f"the revision is {head}, and {mark.revision} was to be reached")
        if differs := find_disagreement(told):
            problems.append(differs)
        if source is not None and source.keys is not None and told[0].keys != source.keys:
            problems.append(f"there are {told[0].keys} keys, and the snapshot has {source.keys}")
        manifest = source.manifest if source else None
        if manifest is not None and manifest.cluster_id in clusters:
            problems.append(f"the cluster's id is still {manifest.cluster_id}")
        return problems

    @override
    async def verify(self, run: Run, seen: Sight) -> Verified:
        found = await wait_until_served(run, seen)
        revisions.note_revision(run, revisions.highest_answer(found))
        facts = {}
        if self.drafted is not None:
            facts = stage_facts(self.drafted, read_journal(run.journal.path))
        ids = {format_id(e.status.cluster_id) for e in found.endpoints if e.status}
        return Verified(found, facts=facts | {"cluster id": ", ".join(sorted(ids))})

    @override
    async def confirm(self, run: Run, seen: Sight) -> Verified:
        return Verified(seen.health)


@asynccontextmanager
async def isolated_client(
    run: Run, members: tuple[DesiredMember, ...]
) -> AsyncIterator[EtcdClient]:
    """Open a client of etcds that only this run reaches: through SSH, on their hosts' loopbacks."""

    async def reach(member: DesiredMember) -> Endpoint:
        port = isolated_port(run.inventory.layout(member.name))
        way = ("127.0.0.1", await run.hosts[member.name].forward("127.0.0.1", port))
        return Endpoint(member.name, member.client_url, way, member=member.member)

    async with await health.make_client(run, await together(map(reach, members))) as client:
        yield client


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
