"""Bootstrap an external etcd cluster: from bare hosts to healthy members with mutual TLS."""

from __future__ import annotations

import asyncio
from functools import partial

from tasks.engine import authority
from tasks.engine.frame import runbook
from tasks.engine.run import Run, open_run, perform, unless
from tasks.model.cluster import ClusterHealth, DesiredMember
from tasks.model.errors import MemberFailed
from tasks.model.observation import HostTarget, ServiceState
from tasks.model.plan import Plan
from tasks.plans import bootstrap
from tasks.steps import (
    certificates,
    configuration,
    health,
    installation,
    locks,
    onhosts,
    preflight,
    reports,
    services,
)
from tasks.steps.installation import Programs
from tasks.steps.preflight import Examination

START_SECONDS = 60.0


@runbook(flow_run_name="bootstrap {cluster}")
async def bootstrap_cluster(cluster: str, dry_run: bool = False, reason: str | None = None) -> None:
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
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    async with open_run(cluster, "bootstrap_cluster", reason=reason) as run:
        await authority.check_authority(run.inventory)
        if not dry_run:
            await locks.lock_cluster(run)
        reading = asyncio.create_task(asyncio.to_thread(installation.load_programs, run.inventory))
        seen = await preflight.examine_hosts(run)
        programs = await reading
        await reports.refuse_on_findings(run, seen.findings)
        targets = _targets(run, seen, programs)
        plan = await _plan(run, seen, targets)
        await reports.publish_plan(run, plan, seen.findings)
        if dry_run:
            return
        members = {member.name: member for member in seen.members}
        await perform(
            run,
            plan,
            {
                bootstrap.MakeAuthority: authority.make_authority,
                bootstrap.MakeAccount: installation.make_account,
                bootstrap.InstallPrograms: partial(
                    installation.install_programs, programs=programs
                ),
                bootstrap.MakeDirectories: installation.make_directories,
                bootstrap.IssueCertificates: partial(
                    certificates.issue_certificates, members=members
                ),
                bootstrap.WriteConfiguration: partial(
                    configuration.write_configuration, targets=targets
                ),
                bootstrap.StartMember: services.start_member,
            },
        )
        found = await _verify(run, seen.members)
        await reports.publish_report(run, plan, seen.findings, found, reason)


def _targets(run: Run, seen: Examination, programs: Programs) -> dict[str, HostTarget]:
    trusted = authority.read_authority_certificate(run.inventory)
    targets = {}
    for host, member in zip(seen.observed, seen.members, strict=True):
        differences = certificates.leaf_differences(run.inventory, member, host, trusted)
        targets[host.host] = configuration.new_member_target(
            run.inventory, member, seen.members, host, programs.sums, differences
        )
    return targets


async def _plan(run: Run, seen: Examination, targets: dict[str, HostTarget]) -> Plan:
    authority_exists = authority.read_authority_certificate(run.inventory) is not None
    live = None
    if authority_exists and any(
        host.service and host.service.state is ServiceState.ACTIVE for host in seen.observed
    ):
        async with health.etcd_client(run, seen.members) as client:
            live = await health.read_health(run, client)
        if not any(e.is_up for e in live.endpoints):
            await onhosts.refuse_foreign(run, seen.members)
    return bootstrap.plan_bootstrap(
        run.inventory,
        seen.observed,
        tuple(targets.values()),
        authority_exists=authority_exists,
        health=live,
    )


async def _verify(run: Run, members: tuple[DesiredMember, ...]) -> ClusterHealth:
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
    return found
