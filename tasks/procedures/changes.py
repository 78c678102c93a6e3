"""What the runbooks that change members share: how they see and plan, and what each step does.

Composes steps; owns none.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import PurePosixPath
from time import monotonic

from typing_extensions import override

from tasks.config.rendering import InitialState
from tasks.engine.run import Run, together, unless
from tasks.etcd.client import EtcdClient
from tasks.hosts.connection import HostConnection
from tasks.model.errors import InventoryEdited, LockHeld, LockLost, MemberFailed, Refused
from tasks.model.inventory_file import read_inventory
from tasks.model.members import DesiredMember, label_members
from tasks.model.observation import Likeness
from tasks.model.plan import Finding, Plan, Stage, Step
from tasks.plans import bootstrap, member_changes
from tasks.plans import reconfiguration as plans
from tasks.plans.dependents import (
    TellHook,
    UpdateApiserver,
    UpdateHaproxy,
    UpdateNodeApiserver,
)
from tasks.plans.leaves import StageLeaves, SwapLeaves
from tasks.plans.restarts import ADDRESSES
from tasks.plans.rooms import member_findings
from tasks.plans.trials import Trial, find_places
from tasks.procedures import hardening, restarting, rotation
from tasks.procedures.course import Actions, Choices, Recipe, Unlocked, Verified, follow
from tasks.procedures.drafting import Draft, draft_plan
from tasks.procedures.likeness import make_files, to_write
from tasks.procedures.roster import known_roster, on_client, pass_gate
from tasks.procedures.wishes import Wish, completed, leaving_hosts, wished_inventory
from tasks.steps import (
    certificates,
    configuration,
    dependents,
    installation,
    locks,
    pods,
    reconfiguration,
    restarts,
    services,
)


class MemberRecipe(Recipe[Draft]):
    """A change of the members; which kinds of steps there are is for the runbook to say."""

    def __init__(self, cluster: str, wish: Wish) -> None:
        self.cluster = cluster
        self.file = read_inventory(cluster)
        self.wish = wish
        self.late: locks.Late = {}
        self.unwritten: InventoryEdited | None = None

    async def follow(self, choices: Choices) -> None:
        """Run the change from the lock to the report; raises Refused and others."""
        wish = self.wish
        if not (wish.leaving or wish.joining or wish.moving):
            raise Refused("name at least one member")
        if wish.leaving and wish.joining and len(wish.leaving) != len(wish.joining):
            raise Refused(
                f"{len(wish.leaving)} member(s) to replace and {len(wish.joining)} "
                "replacement(s): name one for each, or none (each host joins again)"
            )
        self.wish = completed(wish, self.file.inventory)
        await follow(self, wished_inventory(self.file.inventory, self.wish), choices)

    @override
    async def open(self, run: Run) -> None:
        self.roster = known_roster(run)
        await self.roster.connect(run)

    @override
    async def lock(self, run: Run, *, approved: bool) -> Unlocked:
        if approved:  # the answer may have taken days
            self.file = read_inventory(self.cluster)
        original = self.file.inventory
        # An approved plan must be the one that was shown, which has waited for everyone.
        patient = frozenset() if approved else leaving_hosts(original, self.wish)
        self.roster.suspect(run, frozenset() if self.wish.planned else patient)
        names = frozenset(host.name for host in original.hosts)
        unlocked, self.late = await locks.lock_cluster(
            run, majority=True, among=names, patient=patient
        )
        return unlocked

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> Draft:
        draft = await draft_plan(
            run, self.file, self.wish, self.roster, unlocked=unlocked, late=self.late
        )
        self.planned_at = monotonic()
        return draft

    @override
    def findings(self, seen: Draft) -> tuple[Finding, ...]:
        return seen.findings

    @override
    async def plan(self, run: Run, seen: Draft) -> Plan:
        moved = {s.member.name for s in seen.plan.steps if isinstance(s, plans.ReaddressMember)}
        for name in moved:
            written = ADDRESSES | frozenset(map(str, run.inventory.layout(name).credentials))
            await restarts.refuse_surprises(run, [name], written=written)
        return seen.plan

    @override
    def obstructions(self, run: Run, seen: Draft, plan: Plan) -> tuple[Finding, ...]:
        inventory = run.inventory
        return tuple(
            finding
            for name, each in seen.observed.items()
            for finding in member_findings(
                each,
                inventory.layout(name),
                inventory.paths.backups,
                {type(step) for step in plan.steps if step.host == name},
            )
        )

    @override
    def trial(self, run: Run, seen: Draft, plan: Plan) -> Trial:
        # The ways of who joins or moves are in the findings.
        tried = {name: {room.path for room in host.rooms} for name, host in seen.observed.items()}
        edited = {
            name: [path for path in paths if path not in tried.get(name, ())]
            for name, paths in seen.edited.items()
        }
        return Trial(find_places(plan, run.inventory, edited))

    @override
    def unsaved_until(self, plan: Plan) -> Stage | None:
        # Data that is set aside waits for the snapshot, as a change of the members does.
        moves = member_changes.RetireHost | member_changes.DiscardData
        first = next((step for step in plan.in_order() if isinstance(step, moves)), None)
        return None if first is not None and first.stage < plans.CHANGE else plans.CHANGE

    @override
    def client(self, run: Run, seen: Draft) -> AbstractAsyncContextManager[EtcdClient]:
        return seen.roster.open(run)

    @override
    def measured(self, seen: Draft) -> tuple[DesiredMember, ...]:
        healthy = {m.client_url for m in seen.live if m.is_healthy}
        return tuple(m for m in seen.goal if m.client_url in healthy)

    @override
    async def gate(self, run: Run, seen: Draft, step: Step) -> None:
        await pass_gate(run, seen.roster, step)

    @override
    async def verify(self, run: Run, seen: Draft) -> Verified:
        found = await rotation.wait_until_healthy(run, seen.goal, seen.down)
        await _verify_ways(run, seen)
        facts = {
            "members before": label_members(seen.live),
            "members after": label_members(found.seen_members()),
            "time to full health": f"{monotonic() - self.planned_at:.1f} s after the plan",
        }
        if self.unwritten is not None:
            facts["inventory"] = self.unwritten.message
        return Verified(found, facts=facts, complaint=self.unwritten)

    def preparing(self, seen: Draft) -> Actions:
        """Say what makes a host ready to run a member."""
        joining = {member.name: member for member in seen.joining}
        return {
            bootstrap.MakeAccount: installation.make_account,
            bootstrap.InstallPrograms: partial(
                installation.install_programs, programs=seen.programs
            ),
            bootstrap.MakeDirectories: installation.make_directories,
            bootstrap.IssueCertificates: partial(certificates.issue_certificates, members=joining),
            member_changes.DiscardData: reconfiguration.discard_data,
        }

    def joining(self, seen: Draft) -> Actions:
        """Say what makes a member of a host: a learner first, a voter when it has the log."""
        roster = seen.roster

        async def promote(run: Run, step: plans.PromoteMember | plans.AwaitMember) -> None:
            host = run.hosts[step.member.name]
            roster.add(step.member)
            try:
                async with roster.open(run) as client:
                    waiting = (
                        reconfiguration.promote_member(run, client, step)
                        if isinstance(step, plans.PromoteMember)
                        else reconfiguration.await_member(run, client, step)
                    )
                    await unless(services.watch_start(run, (host,)), waiting)
            except MemberFailed as error:
                raise await services.with_journals(run, error, (host,)) from error

        return {
            plans.RemoveMember: partial(_remove, draft=seen),  # what an earlier join left
            plans.AddLearner: on_client(roster, reconfiguration.add_learner),
            plans.JoinMember: partial(_join, draft=seen),
            plans.SettleMember: partial(
                hardening.settle_member, members=seen.goal, without=seen.down
            ),
            plans.PromoteMember: promote,
            plans.AwaitMember: promote,
        }

    def leaving(self, seen: Draft) -> Actions:
        """Say what takes a member out, and its host's service and data out of the way."""
        return {
            member_changes.RetireHost: partial(_retire, draft=seen),
            member_changes.AwaitHost: partial(_await_host, draft=seen, late=self.late),
            member_changes.DropConnections: reconfiguration.drop_connections,
            plans.MoveLeader: on_client(seen.roster, reconfiguration.move_leader),
            plans.RemoveMember: partial(_remove, draft=seen),
        }

    def readdressing(self, seen: Draft) -> Actions:
        """Say what gives a member another address."""
        return {
            plans.MoveLeader: on_client(seen.roster, reconfiguration.move_leader),
            StageLeaves: partial(certificates.stage_leaves, targets=seen.leaves.targets),
            SwapLeaves: partial(certificates.swap_leaves, targets=seen.leaves.targets),
            plans.UpdateMember: on_client(seen.roster, reconfiguration.update_member),
            plans.ReaddressMember: partial(_readdress, draft=seen),
        }

    def telling(self, seen: Draft) -> Actions:
        """Say what brings everything that lists the members up to date."""

        async def write_inventory(run: Run, step: member_changes.WriteInventory) -> None:
            try:
                await reconfiguration.write_inventory(run, step, self.file.path)
            except InventoryEdited as error:
                self.unwritten = error  # told at the end: the members are verified first

        return {
            member_changes.ResumeApiserver: _resume,
            member_changes.RefreshConfiguration: partial(
                configuration.refresh_configuration, members=seen.goal
            ),
            UpdateApiserver: dependents.update_apiserver,
            UpdateNodeApiserver: pods.rewrite_apiserver,
            UpdateHaproxy: dependents.update_haproxy,
            TellHook: dependents.tell_hook,
            member_changes.WriteInventory: write_inventory,
        }


async def _verify_ways(run: Run, draft: Draft) -> None:
    """See every member let in by all the others, asked from each host that can be reached."""
    up = tuple(m for m in draft.goal if m.name not in draft.down)
    here = [m for m in up if m.name in draft.observed]
    await together(certificates.verify_peers(run, run.hosts[member.name], up) for member in here)


async def _remove(run: Run, step: plans.RemoveMember, *, draft: Draft) -> None:
    left = (m.client_url for m in draft.live if m.member.id == step.member_id)
    # Not even the removal itself waits for the answer of whom it removes.
    draft.roster.drop(next(left, None))
    await on_client(draft.roster, reconfiguration.remove_member)(run, step)


async def _join(run: Run, host: HostConnection, step: plans.JoinMember, *, draft: Draft) -> None:
    live = (await draft.roster.look(run)).seen_members()
    joining = {member.peer_url: member for member in draft.joining}
    # In the inventory's order, as bootstrap_cluster would write it.
    order = {member.peer_url: number for number, member in enumerate(draft.goal)}
    initial = tuple(
        sorted(
            (joining.get(m.peer_url) or m.as_desired for m in live),
            key=lambda member: order.get(member.peer_url, len(order)),
        )
    )
    if run.inventory.layout(host.name).is_pod:
        sizes = [e.status.db_size for e in draft.health.endpoints if e.status]
        await hardening.join_member(run, host, initial, max(sizes, default=0))
        return
    own = next(member for member in draft.joining if member.name == host.name)
    seen, like = draft.observed[host.name], None
    if draft.pattern is not None:
        files = to_write(make_files(run, draft.pattern, own, initial, seen))
        like = Likeness(draft.pattern.model.layout.host, "", files)
    target = configuration.new_member_target(
        run.inventory, own, initial, seen, {}, {}, InitialState.EXISTING, like
    )
    written = bootstrap.WriteConfiguration(stage=step.stage, host=step.host, sentence=step.sentence)
    changed = await configuration.write_configuration(run, host, written, {host.name: target})
    await services.start_joiner(run, host, changed=changed)


async def _retire(
    run: Run,
    host: HostConnection,
    step: member_changes.RetireHost | member_changes.AwaitHost,
    *,
    draft: Draft,
) -> None:
    planned = {m.host for m in draft.live if m.is_healthy}
    live = (await draft.roster.look(run)).seen_members()
    alive = await draft.roster.find_alive()
    is_back = any((m.is_healthy or m.member.id in alive) and m.host == host.name for m in live)
    if is_back and host.name not in planned:
        raise MemberFailed(
            "is back and healthy, so that its etcd is not stopped; the plan is stale: run it "
            "again, it observes and plans anew",
            host=host.name,
        )
    await reconfiguration.retire_host(run, host, step)


async def _resume(run: Run, host: HostConnection, _step: member_changes.ResumeApiserver) -> None:
    await pods.resume(run, host)


async def _await_host(
    run: Run,
    host: HostConnection,
    step: member_changes.AwaitHost,
    *,
    draft: Draft,
    late: locks.Late,
) -> None:
    """Wait for a dead member's host; one that answers late is locked by now, and is retired."""
    try:
        why = await late[host.name]
    except LockHeld as error:
        # Others may have prepared their hosts by now: this is not a refusal any more.
        raise LockLost(error.message, host=host.name) from error
    if why is None:
        await _retire(run, host, step, draft=draft)


async def _readdress(
    run: Run, host: HostConnection, step: plans.ReaddressMember, *, draft: Draft
) -> None:
    entry = next(m.member for m in draft.live if m.host == step.member.name)
    former = (*entry.peer_urls, *entry.client_urls)
    if run.inventory.layout(host.name).is_pod:
        await hardening.readdress_member(
            run, host, step.member, former, members=draft.goal, without=draft.down
        )
        return
    await configuration.readdress(run, host, step.member, former, draft.listens)
    settings = draft.observed[host.name].settings
    places = (*settings.units, *settings.further) if settings else ()
    await restarting.restart_or_put_back(
        run,
        host,
        draft.goal,
        (
            *(PurePosixPath(file.path) for file in places),
            *run.inventory.layout(host.name).credentials,
        ),
        without=draft.down,
        besides=f"the member list names it at {step.member.peer_url} already",
    )
