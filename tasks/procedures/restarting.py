"""Restarting a member, and putting back what the run changed there when it does not come back."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath

from tasks.engine.run import Run, together
from tasks.hosts.connection import HostConnection
from tasks.hosts.supervisors import supervisor
from tasks.model.errors import MemberFailed, RunbookError
from tasks.model.members import DesiredMember
from tasks.plans.succession import RestartMember
from tasks.procedures import rotation
from tasks.procedures.rotation import Sight
from tasks.steps import health, services

STAYS_SECONDS = 5.0


async def restart_and_verify(
    run: Run, host: HostConnection, step: RestartMember, *, sight: Sight
) -> None:
    """Move leadership away, restart etcd, and wait until every member is healthy again."""
    files = run.inventory.layout(host.name).trusted_files
    await health.move_leader_away(run, host, sight.members, step.successor)
    await restart_or_put_back(run, host, sight.members, files)
    await rotation.verify_ways(run, sight)


async def restart_or_put_back(
    run: Run,
    host: HostConnection,
    members: tuple[DesiredMember, ...],
    written: tuple[PurePosixPath, ...],
    *,
    without: frozenset[str] = frozenset(),
    besides: str | None = None,
) -> None:
    """Restart etcd and wait for full health; raises MemberFailed when it does not come back.

    Then those files of `written` that this run has replaced there are put back. If etcd starts
    with the old ones they stay; otherwise they are not the cause, and the new ones, with which the
    next run goes on, are put in place again. `besides` is what the run changed elsewhere.
    """
    try:
        await services.restart_member(run, host)
        await rotation.wait_for_start(run, host, members, without)
    except MemberFailed as error:
        async with health.etcd_client(run, members) as client:
            found = await health.read_health(run, client)
        if any(e.is_healthy and e.name == host.name for e in found.endpoints):
            raise  # it was not restarted, or another member is ill
        told = await _put_back(run, host, written)
        lines = (error.message, *((besides,) if besides else ()), told)
        raise MemberFailed("\n".join(lines), host=host.name) from error


async def put_back_where_ended(
    run: Run, error: MemberFailed, hosts: tuple[HostConnection, ...]
) -> MemberFailed:
    """Add to an error what became of the members that ended after all were started anew.

    Where etcd starts with the old pairs and trusted files, these are in place again; whether it
    then serves is not asked, since the others may be down as well.
    """

    async def look(host: HostConnection) -> str | None:
        try:
            words = await services.find_end(run, host)
        except RunbookError:
            return None
        if words is None:
            return None
        written = run.inventory.layout(host.name).credentials
        told = await _put_back(run, host, written, waits=False)
        return f"{host}: etcd ended after its start; its last words: {words}\n{told}"

    told = await together(map(look, hosts))
    return MemberFailed("\n".join([error.message, *filter(None, told)]))


async def _put_back(
    run: Run, host: HostConnection, written: tuple[PurePosixPath, ...], *, waits: bool = True
) -> str:
    """Try the old files; returns what the operator is told of them, and the way out."""
    start = supervisor(run.inventory.layout(host.name)).restart_words
    again = f"run {run.runbook} again"
    on_host = f"put right what etcd names; on {host.name}: {start}; then {again}"
    try:
        changed = await services.put_back(run, host, written)
        if not changed:
            return f"this run had changed no file of etcd's there\n{on_host}"
        files = ", ".join(changed)
        if await _starts(run, host, waits=waits):
            return (
                f"this run had changed there: {files}. The old one is back in place and etcd runs "
                f"with it; the refused one is on {host.name} under {services.refused(run)}\n"
                f"put right what etcd names, then {again}"
            )
        await services.put_forward(run, host, written)
    except RunbookError as error:
        return (
            "whether what this run had changed there is the cause was not found out: "
            f"{error.message}\nwhat it replaced is on {host.name} under "
            f"{services.kept(run)}\n{on_host}"
        )
    return (
        f"this run had changed there: {files}. etcd does not start with the old one either, so the "
        f"new one is in place; the old one is on {host.name} under {services.kept(run)}\n"
        f"{on_host}: it goes on from there"
    )


async def _starts(run: Run, host: HostConnection, *, waits: bool) -> bool:
    """Whether etcd starts, and stays for some seconds; one that is not Type=notify may end then.

    `waits` until it has found a quorum, where there is one.
    """
    try:
        if waits:
            await services.restart_member(run, host)
        else:
            await services.revive_member(run, host, accepts=False)
        async with asyncio.timeout(STAYS_SECONDS):
            await services.watch_start(run, (host,))
    except TimeoutError:
        return True
    except MemberFailed:
        pass
    return False
