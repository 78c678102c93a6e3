"""Starting etcd, and what it said when it failed."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath
from time import monotonic

from tasks.engine.run import Run, step, together
from tasks.hosts import clients, files, pods, services
from tasks.hosts.connection import HostConnection
from tasks.hosts.supervisors import Supervisor, supervisor
from tasks.model.errors import CommandFailed, MemberFailed, RunbookError, Transient
from tasks.model.observation import ServiceState
from tasks.plans.bootstrap import StartMember
from tasks.plans.recovery import ReviveApiserver
from tasks.plans.succession import RestartApiserver

WORDS_TRIES = 3
WATCH_SECONDS = 2.0
RESTART_SECONDS = max(services.WAIT_SECONDS + 30.0, pods.LIMIT_SECONDS)
APISERVER_SECONDS = pods.BACK_OFF_SECONDS + pods.START_SECONDS + 2.0 * pods.KUBELET_SECONDS


def _supervisor(run: Run, host: HostConnection) -> Supervisor:
    return supervisor(run.inventory.layout(host.name))


@step("start etcd on {host}")
async def start_member(run: Run, host: HostConnection, _step: StartMember) -> bool:
    """Let it start without waiting: it is ready only when a quorum has started."""
    (result,) = await host.run(_supervisor(run, host).start_command(), changes=True)
    return files.parse_change(result)


@step("restart etcd on {host}")
async def restart_member(run: Run, host: HostConnection) -> bool:
    """Restart etcd and wait until its keeper hears that it has a quorum, for a while.

    Raises MemberFailed with etcd's last words when it does not come back, and with its keeper's
    when it was not restarted at all. A restart that was done twice does no harm.
    """
    own = _supervisor(run, host)
    try:
        await host.run(own.restart_command(), changes=True, timeout_seconds=RESTART_SECONDS)
    except CommandFailed as error:
        (result,) = await host.run(own.status_command(), timeout_seconds=15)
        status = own.parse_status(result)
        if status is not None and status.state is ServiceState.ACTIVE:
            raise MemberFailed(
                f"{own.keeper} did not restart etcd, which runs on as it was: "
                f"{error.stderr.strip()}\n"
                f"what this run had replaced stays, the old files are under {kept(run)}; put right "
                f"what {own.keeper} names, then run {run.runbook} again",
                host=host.name,
            ) from error
        words = await hear_last_words(run, host) or error.stderr.strip()
        raise MemberFailed(
            f"etcd did not come back after its restart; its last words: {words}", host=host.name
        ) from error
    return True


@step("restart the API server on {host}", retry_delays_seconds=())
async def restart_apiserver(run: Run, host: HostConnection, _step: RestartApiserver) -> bool:
    """Restart the API server that lives on a host's member alone, and wait until it is ready.

    The note that it has not read its trusted file goes when it is. Raises CommandFailed.
    """
    commands = supervisor(run.inventory.layout(host.name)).restart_apiserver_commands()
    told = clients.tell_command(host.name, None)
    run.absences.leave(host.name, monotonic())
    await host.run(*commands, told, changes=True, timeout_seconds=APISERVER_SECONDS)
    run.absences.come_back(host.name, monotonic())
    return True


@step("bring the API server back on {host}", retry_delays_seconds=())
async def revive_apiserver(run: Run, host: HostConnection, planned: ReviveApiserver) -> bool:
    """Let the API server run that lives on a host's member, and wait until it is ready.

    The note that it has not read its trusted file goes when it is. Raises CommandFailed.
    """
    own = supervisor(run.inventory.layout(host.name))
    commands = own.revive_apiserver_commands(restarts=planned.restarts)
    told = clients.tell_command(host.name, None)
    await host.run(*commands, told, changes=True, timeout_seconds=APISERVER_SECONDS)
    return True


async def hear_last_words(run: Run, host: HostConnection) -> str:
    """Ask for the line with which the last start of etcd ended; empty when it logged nothing.

    The journal of a busy host has it a moment after systemd knows of the end.
    """
    own = _supervisor(run, host)
    for _ in range(WORDS_TRIES):
        (result,) = await host.run(own.last_words_command(), timeout_seconds=15)
        if words := services.parse_last_words(result):
            return words
        await asyncio.sleep(WATCH_SECONDS)
    return ""


def kept(run: Run) -> PurePosixPath:
    """Say where on each host the files are that this run replaced."""
    return run.inventory.paths.backups / run.backup


def refused(run: Run) -> PurePosixPath:
    """Say where on a host the files are that this run wrote and took back."""
    return run.inventory.paths.backups / f"{run.backup}-refused"


@step("put back what was changed on {host}")
async def put_back(
    run: Run, host: HostConnection, written: tuple[PurePosixPath, ...]
) -> tuple[str, ...]:
    """Put the files back that this run has replaced, keeping the new ones; returns which."""
    back, _ = await host.run(
        files.exchange_command(written, kept(run), refused(run)),
        _supervisor(run, host).reload_command(),
        changes=True,
    )
    return tuple(back.stdout.split())


@step("put the new files in place again on {host}")
async def put_forward(run: Run, host: HostConnection, written: tuple[PurePosixPath, ...]) -> bool:
    """Undo `put_back`, and start etcd with the new files without waiting for it."""
    own = _supervisor(run, host)
    await host.run(
        files.exchange_command(written, refused(run), None),
        own.reload_command(),
        own.restart_command(wait=False),
        changes=True,
        timeout_seconds=RESTART_SECONDS,
    )
    return True


@step("start etcd anew on {host}")
async def revive_member(run: Run, host: HostConnection, *, accepts: bool) -> bool:
    """Start or restart etcd without waiting, unless it runs and `accepts` the authority's clients.

    One that waits for a quorum may wait with authorities that it loaded long ago, so it too is
    restarted.
    """
    own = _supervisor(run, host)
    (result,) = await host.run(own.status_command())
    status = own.parse_status(result)
    if accepts and status is not None and status.state is ServiceState.ACTIVE:
        return False
    await host.run(own.restart_command(wait=False), changes=True, timeout_seconds=RESTART_SECONDS)
    return True


@step("start the joining etcd on {host}")
async def start_joiner(run: Run, host: HostConnection, *, changed: bool) -> bool:
    """Let it start without waiting; one that runs with other files is restarted."""
    own = _supervisor(run, host)
    commands = [own.start_command()]
    if changed:
        commands.append(own.restart_command(wait=False))
    await host.run(*commands, changes=True)
    return True


async def find_end(run: Run, host: HostConnection) -> str | None:
    """Ask for the last words of an etcd that has ended; None while it runs, or waits for others."""
    own = _supervisor(run, host)
    (result,) = await host.run(own.status_command(), timeout_seconds=15)
    status = own.parse_status(result)
    if status and (status.state is ServiceState.FAILED or status.sub_state == "auto-restart"):
        return await hear_last_words(run, host) or "it logged nothing"
    return None


async def watch_start(run: Run, hosts: tuple[HostConnection, ...] | None = None) -> None:
    """Watch the services while the members find each other; raises MemberFailed when etcd ends.

    A member that waits for the others stays up, so one that ended will not become healthy.
    """

    async def look(host: HostConnection) -> None:
        try:
            words = await find_end(run, host)
        except Transient:
            return  # whether the member is healthy is seen over HTTPS
        if words is not None:
            raise MemberFailed(
                f"etcd ended right after its start; its last words: {words}", host=host.name
            )

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
                _supervisor(run, host).last_lines_command(), timeout_seconds=15
            )
        except RunbookError as unreachable:
            return str(unreachable)
        words = await hear_last_words(run, host)
        return f"--- {host}: last words: {words}\n{result.stdout.strip()}"

    tails = await asyncio.gather(*map(tail, run.hosts.values() if hosts is None else hosts))
    return MemberFailed("\n".join([str(error), *tails]))
