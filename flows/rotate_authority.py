"""Rotate the certificate authority of a running cluster, with both trusted in between."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Literal

from typing_extensions import override

from tasks.engine.frame import runbook
from tasks.engine.run import Run
from tasks.etcd.probe import Probe
from tasks.model.plan import Plan, Step
from tasks.model.pointers import parameter
from tasks.plans import leaves, sharing
from tasks.plans import succession as plans
from tasks.plans.apiservers import warn_of_clients
from tasks.plans.restarts import TRUST
from tasks.procedures import barriers, restarting, rotation
from tasks.procedures.course import Actions, Choices, Unlocked, Verified, follow
from tasks.procedures.rotation import CertificateRecipe, Sight
from tasks.steps import health, restarts, services, succession, trust
from tasks.steps import sharing as see_sharing


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
    accept_shared: bool = False,
    approval: bool = False,
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
        accept_shared: change files that others use too; without it the run is refused with a list
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    recipe = _Succession(
        old=replace,
        until=plans.Until(until),
        reverse=reverse,
        trusting=frozenset(clients_trusting or ()),
        renewed=frozenset(clients_renewed or ()),
        accept_outage=accept_outage,
        accept_shared=accept_shared,
    )
    choices = Choices(snapshot=snapshot, approval=approval, dry_run=dry_run, reason=reason)
    await follow(recipe, cluster, choices)


@dataclass(frozen=True, slots=True)
class _Succession(CertificateRecipe):
    old: str | None
    until: plans.Until
    reverse: bool
    trusting: frozenset[str]
    renewed: frozenset[str]
    accept_outage: bool
    accept_shared: bool

    runbook = "rotate_authority"

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> Sight:
        # Who is absent is refused by the plan.
        return await rotation.with_ways(run, await rotation.look(run, unlocked))

    @override
    async def plan(self, run: Run, seen: Sight) -> Plan:
        rotation.refuse_absent(run, seen)
        leaves.refuse_reinstalled(run.inventory, seen.observed)
        found = await rotation.read_health(run, seen)
        direction = trust.choose(run, self.old, reverse=self.reverse)
        if direction is None:
            return Plan(run.runbook, run.inventory.name, trust.settled(run), ())
        plans.refuse_ill(run.inventory, seen.members, found)
        members, clients = await barriers.view(run, seen)
        plan = plans.plan_succession(
            run.inventory,
            members,
            clients,
            direction,
            found.leader_name,
            self.until,
            trusting=self.trusting,
            renewed=self.renewed,
        )
        plans.refuse_unless_safe(plan, seen.members, found, accept_outage=self.accept_outage)
        if any(isinstance(step, plans.RestartMember) for step in plan.steps):
            await restarts.refuse_surprises(run, run.hosts, written=frozenset({TRUST}))
        return await self._weigh_others(run, seen, plan, direction)

    async def _weigh_others(
        self, run: Run, seen: Sight, plan: Plan, direction: plans.Direction
    ) -> Plan:
        """Refuse to take files or trust from others in silence; returns the plan with warnings."""
        inventory, others = run.inventory, await see_sharing.see_all(run, run.hosts)
        users: tuple[str, ...] = ()
        if any(isinstance(step, plans.WriteTrust | leaves.SwapLeaves) for step in plan.steps):
            users = sharing.refuse_users(
                inventory,
                others,
                barriers.find_strangers(run, seen, plan),
                accepted=self.accept_shared,
                accept=parameter(accept_shared=True),
            )
        if any(isinstance(step, plans.RetireAuthority) for step in plan.steps):
            sharing.refuse_strays(inventory, others, direction.other)
        unused = sharing.find_strays(inventory, others, direction.other, used=False)
        restarts_apiservers = bool(plan.hosts_of(plans.RestartApiserver))
        told = (
            *(warn_of_clients(seen.nodes) if restarts_apiservers else ()),
            *users,
            *(f"{each} is the old authority's and stays as it is" for each in unused),
            *sharing.find_keys(inventory, others, direction.other),
        )
        return dataclasses.replace(plan, warnings=(*plan.warnings, *told))

    @override
    def actions(self, seen: Sight, probe: Probe | None) -> Actions:
        async def exchange(run: Run, step: plans.ExchangeAuthorities) -> None:
            await succession.exchange_authorities(run, step)
            if probe is not None:
                probe.use(await health.client_tls(run))

        return {
            plans.MakeSuccessor: succession.make_successor,
            plans.WriteTrust: trust.write_trust,
            plans.RestartMember: partial(restarting.restart_and_verify, sight=seen),
            plans.RestartApiserver: services.restart_apiserver,
            plans.VerifyTrust: barriers.verify_trust,
            plans.ExchangeAuthorities: exchange,
            leaves.StageLeaves: partial(rotation.stage, sight=seen),
            leaves.SwapLeaves: partial(rotation.swap_and_verify, sight=seen),
            plans.VerifyIssuers: barriers.verify_issuers,
            plans.RetireAuthority: succession.retire_authority,
        }

    @override
    async def gate(self, run: Run, seen: Sight, step: Step) -> None:
        if step.host is not None:
            restarts = isinstance(step, plans.RestartMember) and not self.accept_outage
            await health.pass_gate(run, seen.members, step.host, restarts=restarts)

    @override
    async def verify(self, run: Run, seen: Sight) -> Verified:
        after = await rotation.look(run, {})
        found = await rotation.wait_until_healthy(run, seen.members)
        return Verified(found, rotation.pair_changes(seen, after))
