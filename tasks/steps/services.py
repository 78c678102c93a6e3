"""Starting etcd, and what it said when it failed."""

from __future__ import annotations

import asyncio

from tasks.engine.run import Run, step, together
from tasks.hosts import files, services
from tasks.hosts.connection import HostConnection
from tasks.model.errors import CommandFailed, MemberFailed, RunbookError, Transient
from tasks.model.observation import ServiceState
from tasks.plans.bootstrap import StartMember

WATCH_SECONDS = 2.0
RESTART_SECONDS = 90.0


@step("start etcd on {host}")
async def start_member(run: Run, host: HostConnection, _step: StartMember) -> bool:
    """Enable and start the unit without waiting: it is ready only when a quorum has started."""
    (result,) = await host.run(
        services.start_service_command(run.inventory.paths.service), changes=True
    )
    return files.parse_change(result)


@step("restart etcd on {host}")
async def restart_member(run: Run, host: HostConnection) -> bool:
    """Restart etcd and wait until systemd hears that it has a quorum.

    Raises MemberFailed with etcd's last words when it does not come back. A restart that was done
    twice does no harm.
    """
    unit = run.inventory.paths.service
    try:
        await host.run(
            services.restart_service_command(unit), changes=True, timeout_seconds=RESTART_SECONDS
        )
    except CommandFailed as error:
        (result,) = await host.run(services.last_words_command(unit), timeout_seconds=15)
        aside = run.inventory.paths.backups / run.backup
        words = services.parse_last_words(result) or "it logged nothing"
        raise MemberFailed(
            f"etcd did not come back after its restart; its last words: {words}\n"
            f"what this run had replaced is on {host.name} under {aside}. Put right "
            f"what etcd names, then on {host.name}: systemctl restart {unit}; then run "
            f"{run.runbook} again: it goes on from there",
            host=host.name,
        ) from error
    return True


@step("start etcd anew on {host}")
async def revive_member(run: Run, host: HostConnection, *, accepts: bool) -> bool:
    """Start or restart etcd without waiting, unless it runs and `accepts` the authority's clients.

    One that waits for a quorum may wait with authorities that it loaded long ago, so it too is
    restarted.
    """
    unit = run.inventory.paths.service
    (result,) = await host.run(services.service_status_command(unit))
    status = services.parse_service_status(result)
    if accepts and status is not None and status.state is ServiceState.ACTIVE:
        return False
    await host.run(services.restart_service_command(unit, wait=False), changes=True)
    return True


@step("start the joining etcd on {host}")
async def start_joiner(run: Run, host: HostConnection, *, changed: bool) -> bool:
    """Enable and start the unit without waiting; one that runs with other files is restarted."""
    unit = run.inventory.paths.service
    commands = [services.start_service_command(unit)]
    if changed:
        commands.append(services.restart_service_command(unit, wait=False))
    await host.run(*commands, changes=True)
    return True


async def watch_start(run: Run, hosts: tuple[HostConnection, ...] | None = None) -> None:
    """Watch the units while the members find each other; raises MemberFailed when etcd ends.

    A member that waits for the others stays up, so one that ended will not become healthy.
    """
    unit = run.inventory.paths.service

    async def look(host: HostConnection) -> None:
        try:
            (result,) = await host.run(services.service_status_command(unit), timeout_seconds=15)
        except Transient:
            return  # whether the member is healthy is seen over HTTPS
        status = services.parse_service_status(result)
        if status and (status.state is ServiceState.FAILED or status.sub_state == "auto-restart"):
            raise MemberFailed("etcd ended right after its start", host=host.name)

    while True:
        await asyncio.sleep(WATCH_SECONDS)
        await together(map(look, run.hosts.values() if hosts is None else hosts))


async def with_journals(
    run: Run, error: MemberFailed, hosts: tuple[HostConnection, ...] | None = None
) -> MemberFailed:
    """Add to an error the last lines that etcd logged on each host that can still be asked."""

    async def tail(host: HostConnection) -> str:
        try:
            (result,) = await host.run(
                services.journal_tail_command(run.inventory.paths.service), timeout_seconds=15
            )
        except RunbookError as unreachable:
            return str(unreachable)
        return f"--- {host}: {result.stdout.strip()}"

    tails = await asyncio.gather(*map(tail, run.hosts.values() if hosts is None else hosts))
    return MemberFailed("\n".join([str(error), *tails]))
