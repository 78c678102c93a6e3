"""Bootstrap an external etcd cluster: from bare hosts to healthy members with mutual TLS."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from typing_extensions import override

from tasks.engine import authority
from tasks.engine.frame import runbook
from tasks.engine.run import Run, unless
from tasks.etcd.probe import Probe
from tasks.model.errors import MemberFailed
from tasks.model.observation import HostTarget, ServiceState
from tasks.model.plan import Finding, Plan
from tasks.plans import bootstrap
from tasks.plans.kubeadm import refuse_bootstrap
from tasks.plans.sandbox import hidden_findings
from tasks.procedures.course import Actions, Choices, Recipe, Unlocked, Verified, follow
from tasks.steps import (
    certificates,
    configuration,
    health,
    installation,
    locks,
    onhosts,
    preflight,
    revisions,
    services,
    snapshots,
)
from tasks.steps.installation import Programs
from tasks.steps.preflight import Examination

START_SECONDS = 60.0


@runbook(flow_run_name="bootstrap {cluster}")
async def bootstrap_cluster(
    cluster: str, approval: bool = False, dry_run: bool = False, reason: str | None = None
) -> None:
    """Bring up a new etcd cluster on the hosts of an inventory.

    Data that is there is never touched: a host that holds another cluster's data is refused. A
    second run changes nothing. Run it again after any interruption: it starts from what is.

    Stages, and what is true when the runner dies in one:

    1. Lock: the lock is gone with the runner's SSH sessions.
    2. Observe, preflight, plan: nothing has been changed.
    3. Authority (on the runner): none, or whole; an unused key is kept aside by the next run.
    4. Prepare (all hosts at once): account, programs, directories, certificates, configuration;
       each file is whole or as it was, and etcd has not been started.
    5. Start (all hosts at once): some members may wait for the others; the next run starts those.
    6. Verify: the cluster runs; the next run verifies it and changes nothing.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    choices = Choices(approval=approval, dry_run=dry_run, reason=reason)
    await follow(_Bootstrap(), cluster, choices)


@dataclass(frozen=True, slots=True)
class _Sight:
    """What preflight saw, the programs that are to be installed, and what each host shall have."""

    examined: Examination
    programs: Programs
    targets: dict[str, HostTarget]
    hidden: tuple[Finding, ...]


class _Bootstrap(Recipe[_Sight]):
    """Has no gate: before the first start there is no quorum to lose, and all start at once."""

    runbook = "bootstrap_cluster"

    @override
    async def open(self, run: Run) -> None:
        refuse_bootstrap(run.inventory)
        await authority.check_authority(run.inventory)

    @override
    async def lock(self, run: Run, *, approved: bool) -> Unlocked:
        await locks.lock_cluster(run)
        return {}

    @override
    async def look(self, run: Run, unlocked: Unlocked) -> _Sight:
        reading = asyncio.create_task(asyncio.to_thread(installation.load_programs, run.inventory))
        seen = await preflight.examine_hosts(run)
        programs = await reading
        targets = _targets(run, seen, programs)
        hidden = (
            finding
            for host in seen.observed
            if (target := targets.get(host.host)) is not None
            for finding in hidden_findings(host, run.inventory.layout(host.host), target)
        )
        return _Sight(seen, programs, targets, tuple(hidden))

    @override
    def findings(self, seen: _Sight) -> tuple[Finding, ...]:
        return (*seen.hidden, *seen.examined.findings)

    @override
    async def plan(self, run: Run, seen: _Sight) -> Plan:
        authority_exists = authority.read_authority_certificate(run.inventory) is not None
        observed, live = seen.examined.observed, None
        if authority_exists and any(
            host.service and host.service.state is ServiceState.ACTIVE for host in observed
        ):
            async with health.etcd_client(run, seen.examined.members) as client:
                live = await health.read_health(run, client)
            if not any(e.is_up for e in live.endpoints):
                await onhosts.refuse_foreign(run, seen.examined.members)
        return bootstrap.plan_bootstrap(
            run.inventory,
            observed,
            tuple(seen.targets.values()),
            authority_exists=authority_exists,
            health=live,
        )

    @override
    def actions(self, seen: _Sight, probe: Probe | None) -> Actions:
        members = {member.name: member for member in seen.examined.members}
        return {
            bootstrap.MakeAuthority: authority.make_authority,
            bootstrap.MakeAccount: installation.make_account,
            bootstrap.InstallPrograms: partial(
                installation.install_programs, programs=seen.programs
            ),
            bootstrap.MakeDirectories: installation.make_directories,
            bootstrap.IssueCertificates: partial(certificates.issue_certificates, members=members),
            bootstrap.WriteConfiguration: partial(
                configuration.write_configuration, targets=seen.targets
            ),
            bootstrap.StartMember: services.start_member,
        }

    @override
    async def verify(self, run: Run, seen: _Sight) -> Verified:
        members = seen.examined.members
        async with health.etcd_client(run, members) as client:
            try:
                verifying = health.verify_cluster(run, client, members, START_SECONDS)
                found = await unless(services.watch_start(run), verifying)
            except MemberFailed as error:
                raise await services.with_journals(run, error) from error
        if others := bootstrap.find_other_versions(run.inventory, found):
            raise MemberFailed(
                "every member is healthy, but not of one version:\n  - " + "\n  - ".join(others)
            )
        if revisions.forget_fenced(run, found):  # one of the same name and addresses, made anew
            await snapshots.share_fenced(run, {})
        return Verified(found)


def _targets(run: Run, seen: Examination, programs: Programs) -> dict[str, HostTarget]:
    trusted = authority.read_authority_certificate(run.inventory)
    targets = {}
    for host, member in zip(seen.observed, seen.members, strict=True):
        differences = certificates.leaf_differences(run.inventory, member, host, trusted)
        targets[host.host] = configuration.new_member_target(
            run.inventory, member, seen.members, host, programs.sums, differences
        )
    return targets
