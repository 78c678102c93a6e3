"""Starting etcd, and what it said when it failed."""

from __future__ import annotations

import asyncio

from tasks.engine import Run, step
from tasks.hosts import files, services
from tasks.hosts.connection import HostConnection
from tasks.model.errors import MemberFailed, RunbookError
from tasks.plans.bootstrap import StartMember


@step("start etcd on {host}")
async def start_member(run: Run, host: HostConnection, _step: StartMember) -> bool:
    """Enable and start the unit without waiting: it is ready only when a quorum has started."""
    (result,) = await host.run(
        services.start_service_command(run.inventory.paths.service), changes=True
    )
    return files.parse_change(result)


async def with_journals(run: Run, error: MemberFailed) -> MemberFailed:
    """Add to an error the last lines that etcd logged on each host that can still be asked."""

    async def tail(host: HostConnection) -> str:
        try:
            (result,) = await host.run(
                services.journal_tail_command(run.inventory.paths.service), timeout_seconds=15
            )
        except RunbookError as unreachable:
            return str(unreachable)
        return f"--- {host}: {result.stdout.strip()}"

    tails = await asyncio.gather(*map(tail, run.hosts.values()))
    return MemberFailed("\n".join([error.message, *tails]))
