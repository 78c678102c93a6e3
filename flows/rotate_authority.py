"""Rotate the certificate authority of a running cluster, with both trusted in between."""

from __future__ import annotations

from functools import partial
from typing import Literal

from tasks.engine.authority import opened_authority
from tasks.engine.frame import runbook
from tasks.engine.run import Run, open_run, perform
from tasks.hosts.connection import HostConnection
from tasks.model.plan import Plan, Step
from tasks.plans import leaves
from tasks.plans import succession as plans
from tasks.procedures import barriers, restarting, rotation
from tasks.procedures.rotation import Sight
from tasks.steps import health, reports, restarts, snapshots, succession, trust


@runbook(flow_run_name="rotate authority of {cluster}")
async def rotate_authority(
    cluster: str,
    replace: str | None = None,
    until: Literal["trust", "certificates", "end"] = "end",
    reverse: bool = False,
    clients_trusting: list[str] | None = None,
    clients_renewed: list[str] | None = None,
    snapshot: Literal["take", "skip"] = "take",
    accept_outage: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Put a new authority in the place of the one that signs, without an outage.

    The stages are derived from the certificates and trusted files of the hosts and from what their
    running etcd accepts, so a run that died, or was stopped at a barrier days ago, goes on from
    there. No stage starts before the one before is verified on every member and client.

    Stages, and what is true when the runner dies in one:

    1. Lock, observe, plan, snapshot: nothing has been changed.
    2. The next authority (on the runner): none, or whole; nobody trusts it yet.
    3. Trust both: files on all members, then a restart of one member at a time, the leader last and
       not while it leads. Every certificate that is in use is trusted by everyone.
    4. Barrier, and then the new authority signs (on the runner).
    5. New pairs, staged everywhere and swapped one host at a time; both authorities are trusted.
    6. Barrier, and then trust the new one alone: files, a restart of one member at a time. Every
       certificate in use is the new one's.
    7. Verify; the old authority's files are kept aside on the runner.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        replace: fingerprint (its first digits) of the authority that is to go; needed unless it
            is due. With it, running the same command again after the end does nothing
        until: the barrier to stop at
        reverse: go back to the old authority; possible until it has been retired
        clients_trusting: unmanaged clients of which you know that they trust both authorities
        clients_renewed: unmanaged clients of which you know that they use new certificates
        snapshot: `skip` needs a reason
        accept_outage: restart members although the cluster cannot lose one (one or two members)
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    async with open_run(cluster, "rotate_authority", reason=reason) as run:
        snapshots.check_skip(snapshot, reason)
        await opened_authority(run.inventory)
        unlocked = await rotation.lock(run, dry_run=dry_run)
        sight = await rotation.look(run, unlocked)
        await reports.refuse_on_findings(run, sight.findings)
        rotation.refuse_absent(run, sight)
        leaves.refuse_reinstalled(run.inventory, sight.observed)
        found = await rotation.read_health(run, sight)
        direction = trust.choose(run.inventory, replace, reverse=reverse)
        if direction is None:
            plan = Plan(run.runbook, run.inventory.name, trust.settled(run.inventory), ())
        else:
            plans.refuse_ill(run.inventory, sight.members, found)
            members, clients = await barriers.view(run, sight)
            plan = plans.plan_succession(
                run.inventory,
                members,
                clients,
                direction,
                found.leader_name,
                plans.Until(until),
                trusting=frozenset(clients_trusting or ()),
                renewed=frozenset(clients_renewed or ()),
            )
            plans.refuse_unless_safe(plan, sight.members, found, accept_outage=accept_outage)
        if any(isinstance(step, plans.RestartMember) for step in plan.steps):
            await restarts.refuse_surprises(run, run.hosts)
        await reports.publish_plan(run, plan, sight.findings)
        if dry_run or not plan.steps:
            return
        if snapshot == "take":
            async with health.etcd_client(run, sight.members) as client:
                await snapshots.take_snapshot(run, client, found)
        async with health.measured_service(run, sight.members) as probe:

            async def exchange(run: Run, step: plans.ExchangeAuthorities) -> None:
                await succession.exchange_authorities(run, step)
                probe.use(await health.client_tls(run.inventory))

            await perform(
                run,
                plan,
                {
                    plans.MakeSuccessor: succession.make_successor,
                    plans.WriteTrust: trust.write_trust,
                    plans.RestartMember: partial(_restart, sight=sight),
                    plans.VerifyTrust: barriers.verify_trust,
                    plans.ExchangeAuthorities: exchange,
                    leaves.StageLeaves: partial(rotation.stage, sight=sight),
                    leaves.SwapLeaves: partial(rotation.swap_and_verify, sight=sight),
                    plans.VerifyIssuers: barriers.verify_issuers,
                    plans.RetireAuthority: succession.retire_authority,
                },
                gate=partial(_gate, run, sight, accept_outage),
                mark=probe.mark,
            )
            after = await rotation.look(run, {})
            found = await rotation.wait_until_healthy(run, sight.members)
        changes = rotation.pair_changes(sight, after)
        await reports.publish_report(
            run, plan, sight.findings, found, reason, gaps=probe.results(), pairs=changes
        )


async def _gate(run: Run, sight: Sight, accept_outage: bool, step: Step) -> None:
    restarts = isinstance(step, plans.RestartMember) and not accept_outage
    if step.host is None:
        return
    await health.pass_gate(run, sight.members, step.host, restarts=restarts)


async def _restart(
    run: Run, host: HostConnection, _step: plans.RestartMember, *, sight: Sight
) -> None:
    await restarting.restart_and_verify(run, host, sight=sight)
