"""Carrying out a change of the members, from the lock over the approval to the report.

Composes steps; owns none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import PurePosixPath
from time import monotonic
from typing import Any

from tasks.config.rendering import InitialState
from tasks.engine.authority import opened_authority
from tasks.engine.run import Run, open_run, perform, together, unless
from tasks.hosts.connection import HostConnection
from tasks.model.cluster import ClusterHealth, label_members
from tasks.model.errors import InventoryEdited, LockHeld, LockLost, MemberFailed, Refused
from tasks.model.inventory import Inventory
from tasks.model.inventory_file import find_inventory, load_inventory
from tasks.model.plan import Plan, Step
from tasks.plans import agreement, bootstrap, member_changes, obstacles
from tasks.plans import reconfiguration as plans
from tasks.plans.dependents import TellHook, UpdateApiserver, UpdateHaproxy
from tasks.plans.restarts import ADDRESSES
from tasks.plans.voters import refuse_without_members
from tasks.procedures import location, restarting, rotation
from tasks.procedures.drafting import Draft, draft_plan
from tasks.procedures.roster import Roster, known_roster
from tasks.procedures.wishes import Wish, leaving_hosts, wished_inventory
from tasks.steps import (
    approvals,
    certificates,
    configuration,
    dependents,
    health,
    installation,
    locks,
    onhosts,
    reconfiguration,
    reports,
    restarts,
    services,
    snapshots,
)

GATE_SECONDS = 25.0


async def change_members(
    runbook: str,
    cluster: str,
    wish: Wish,
    *,
    snapshot: str,
    approval: bool,
    dry_run: bool,
    reason: str | None,
) -> None:
    """Run a change of the members from the lock to the report; raises Refused and others.

    Where a person must approve, the plan is made and shown without a lock first.
    """
    snapshots.check_skip(snapshot, reason)
    if not (wish.leaving or wish.joining or wish.moving):
        raise Refused("name at least one member")
    if wish.leaving and wish.joining and len(wish.leaving) != len(wish.joining):
        raise Refused(
            f"{len(wish.leaving)} member(s) to replace and {len(wish.joining)} replacement(s): "
            "name one for each, or none (each host joins again)"
        )
    inventory = wished_inventory(cluster, wish)
    shown, decision = None, None
    if not dry_run and approvals.is_required(inventory, asked=approval):
        async with open_run(inventory, runbook, reason=reason) as run:
            roster = known_roster(run)
            draft = await _draft_and_publish(run, cluster, wish, {}, roster)
            shown = draft.plan
            if shown.steps:
                await approvals.prepare(run, shown)
            else:
                await _verify(run, draft)
        if not shown.steps:
            return
        decision = await approvals.wait(shown)
    async with open_run(inventory, runbook, reason=reason) as run:
        await opened_authority(run.inventory)
        roster = known_roster(run)
        # While the lock waits for a dead host, the cluster is asked who is silent: the look that
        # counts comes after, and waits less for those.
        looking = asyncio.ensure_future(roster.look(run))
        try:
            # An approved plan must be the one that was shown, which has waited for everyone.
            original = load_inventory(cluster)
            patient = leaving_hosts(original, wish) if shown is None else frozenset()
            unlocked, late = await lock(run, original, dry_run=dry_run, patient=patient)
        finally:
            await looking
        draft = await _draft_and_publish(run, cluster, wish, unlocked, roster, late)
        if shown is not None and decision is not None:
            approvals.check(run, decision, shown, draft.plan)
        if not dry_run and draft.plan.steps:
            await carry_out(
                run,
                cluster,
                draft,
                reason,
                late,
                snapshot=snapshot,
                approved=decision.by if decision else None,
            )
        elif not dry_run:
            # Nothing to do is said of what was looked at: an earlier run may have died before.
            await _verify(run, draft)


async def _draft_and_publish(
    run: Run,
    cluster: str,
    wish: Wish,
    unlocked: dict[str, str],
    roster: Roster,
    late: locks.Late | None = None,
) -> Draft:
    draft = await draft_plan(run, cluster, wish, unlocked, roster, frozenset(late or {}))
    await reports.refuse_on_findings(run, draft.findings)
    moved = {s.member.name for s in draft.plan.steps if isinstance(s, plans.ReaddressMember)}
    for name in moved:
        written = ADDRESSES | frozenset(map(str, run.inventory.layout(name).credentials))
        await restarts.refuse_surprises(run, [name], written=written)
    await reports.publish_plan(run, draft.plan, draft.findings)
    return draft


async def carry_out(
    run: Run,
    cluster: str,
    draft: Draft,
    reason: str | None,
    late: locks.Late,
    *,
    snapshot: str,
    approved: str | None = None,
) -> None:
    """Take the snapshot, do the steps with the gate before each, verify and report."""
    roster, began = draft.roster, monotonic()
    if snapshot == "take":
        async with roster.open(run) as client:
            await snapshots.take_snapshot(run, client, draft.health)
    removed = {m.member.id: m.client_url for m in draft.live}
    unwritten: list[InventoryEdited] = []

    async def write_inventory(run: Run, step: member_changes.WriteInventory) -> None:
        try:
            await reconfiguration.write_inventory(run, step, find_inventory(cluster))
        except InventoryEdited as error:
            unwritten.append(error)  # told at the end: the members are verified first

    async def remove(run: Run, step: plans.RemoveMember) -> None:
        await _on_client(roster, reconfiguration.remove_member)(run, step)
        roster.drop(removed.get(step.member_id))

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

    kept = tuple(
        m for m in draft.goal if m.client_url in {s.client_url for s in draft.live if s.is_healthy}
    )
    async with health.measured_service(run, kept) as probe:
        await perform(
            run,
            draft.plan,
            {
                member_changes.RetireHost: partial(_retire, draft=draft),
                member_changes.AwaitHost: partial(_await_host, draft=draft, late=late),
                member_changes.DiscardData: reconfiguration.discard_data,
                member_changes.DropConnections: reconfiguration.drop_connections,
                bootstrap.MakeAccount: installation.make_account,
                bootstrap.InstallPrograms: partial(
                    installation.install_programs, programs=draft.programs
                ),
                bootstrap.MakeDirectories: installation.make_directories,
                bootstrap.IssueCertificates: partial(
                    certificates.issue_certificates,
                    members={member.name: member for member in draft.joining},
                ),
                plans.RemoveMember: remove,
                plans.AddLearner: _on_client(roster, reconfiguration.add_learner),
                plans.JoinMember: partial(_join, draft=draft),
                plans.PromoteMember: promote,
                plans.AwaitMember: promote,
                plans.MoveLeader: _on_client(roster, reconfiguration.move_leader),
                plans.UpdateMember: _on_client(roster, reconfiguration.update_member),
                plans.ReaddressMember: partial(_readdress, draft=draft),
                member_changes.RefreshConfiguration: partial(
                    configuration.refresh_configuration, members=draft.goal
                ),
                UpdateApiserver: dependents.update_apiserver,
                UpdateHaproxy: dependents.update_haproxy,
                TellHook: dependents.tell_hook,
                member_changes.WriteInventory: write_inventory,
            },
            gate=partial(pass_gate, run, roster),
            mark=probe.mark,
        )
        found = await _verify(run, draft)
    await reports.publish_report(
        run,
        draft.plan,
        draft.findings,
        found,
        reason,
        gaps=probe.results(),
        facts={
            "approved by": approved or "not asked for",
            "members before": label_members(draft.live),
            "members after": label_members(found.seen_members()),
            "time to full health": f"{monotonic() - began:.1f} s after the plan",
        }
        | ({"inventory": unwritten[0].message} if unwritten else {}),
    )
    if unwritten:
        raise unwritten[0]


async def _verify(run: Run, draft: Draft) -> ClusterHealth:
    found = await rotation.wait_until_healthy(run, draft.goal, draft.down)
    await verify_ways(run, draft)
    return found


async def lock(
    run: Run, original: Inventory, *, dry_run: bool, patient: frozenset[str] = frozenset()
) -> tuple[dict[str, str], locks.Late]:
    """Lock every host that can be reached, a majority of the inventory's among them."""
    if dry_run:
        return {}, {}
    names = frozenset(host.name for host in original.hosts)
    return await locks.lock_cluster(run, majority=True, among=names, patient=patient)


async def pass_gate(run: Run, roster: Roster, step: Step) -> None:
    """See that a step of the plan may be done now; waits some seconds for members to come back.

    Raises MemberFailed when the cluster does not allow it in time, at once for a stale plan.
    """
    deadline = monotonic() + GATE_SECONDS
    while True:
        live = (await roster.look(run)).seen_members()
        found = obstacles.find_obstacles(step, live)
        if not found:
            return
        if obstacles.is_stale(found) or monotonic() > deadline:
            raise MemberFailed(
                f"not done: {step.sentence}\n  - "
                + "\n  - ".join(found)
                + "\nrun it again: it observes and plans anew from what is there"
            )
        await asyncio.sleep(0.5)


async def verify_ways(run: Run, draft: Draft) -> None:
    """See every member let in by all the others, asked from each host that can be reached."""
    up = tuple(m for m in draft.goal if m.name not in draft.down)
    here = [m for m in up if m.name in draft.observed]
    await together(certificates.verify_peers(run, run.hosts[member.name], up) for member in here)


def _on_client(
    roster: Roster, action: Callable[..., Awaitable[Any]]
) -> Callable[[Run, Any], Awaitable[None]]:
    """Give a step of `members` a client of all members for as long as it runs."""

    async def do(run: Run, step: Step) -> None:
        async with roster.open(run) as client:
            await action(run, client, step)

    return do


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
    own = next(member for member in draft.joining if member.name == host.name)
    target = configuration.new_member_target(
        run.inventory, own, initial, draft.observed[host.name], {}, {}, InitialState.EXISTING
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
    if any(m.is_healthy and m.host == host.name for m in live) and host.name not in planned:
        raise MemberFailed(
            "is back and healthy, so that its etcd is not stopped; the plan is stale: run it "
            "again, it observes and plans anew",
            host=host.name,
        )
    await reconfiguration.retire_host(run, host, step)


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
    await configuration.readdress(run, host, step.member, former)
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


async def hand_over(cluster: str, to: str | None, *, dry_run: bool, reason: str | None) -> None:
    """Hand leadership over, and see it settled; raises Refused and others."""
    inventory = wished_inventory(cluster, Wish())
    async with open_run(inventory, "move_leader", reason=reason) as run:
        await opened_authority(run.inventory)
        await lock(run, inventory, dry_run=dry_run)
        roster = Roster(await location.locate_members(run))
        live = (await roster.look(run, settled=True)).seen_members()
        if not live:
            await onhosts.refuse_foreign(run, roster.members)
        refuse_without_members(live)
        steps = plans.order_handover(live, to)
        goal = f"{to or 'another voter'} leads"
        gone = tuple(map(agreement.lead_back, agreement.find_gone(roster.members, live)))
        plan = Plan(run.runbook, inventory.name, goal, steps, gone)
        await reports.publish_plan(run, plan, ())
        if dry_run or not steps:
            return

        async with health.measured_service(run, roster.members) as probe:
            await perform(
                run,
                plan,
                {plans.MoveLeader: _on_client(roster, reconfiguration.move_leader)},
                gate=partial(pass_gate, run, roster),
                mark=probe.mark,
            )
            async with roster.open(run) as client:
                found = await health.read_health(run, client)
        gaps = probe.results()
        await reports.publish_report(run, plan, (), found, reason, gaps=gaps)
