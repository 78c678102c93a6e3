"""A diagnosis: everything is asked of everybody, and what fails is a line. Composes steps."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from tasks.engine.run import Run
from tasks.model.diagnosis import Line, MemberMetrics
from tasks.model.errors import RunbookError
from tasks.model.members import DesiredMember
from tasks.plans.diagnosis import Sights, diagnose
from tasks.procedures import checkup, expiry, location
from tasks.steps import diagnosis, health, onhosts, reports, restarts


async def see_and_tell(run: Run) -> tuple[Line, ...]:
    """Look at the whole cluster, publish what was seen, and return it; never refuses."""
    members = await location.locate_members(run)
    seen = await checkup.examine(run, members)
    (metrics, reads), logs, (starts, unseen) = await asyncio.gather(
        _read_metrics(run, members), _count_logs(run), restarts.find_surprises(run)
    )
    # Last: who looks at certificates closes the connections.
    certificates = await expiry.look(run, asyncio.Semaphore(expiry.HOSTS_AT_ONCE))
    severe = set(restarts.problems(starts))
    lines = diagnose(
        Sights(
            seen.health,
            seen.problems,
            seen.remarks,
            metrics,
            reads,
            logs,
            seen.clocks,
            certificates,
            tuple((one.sentence in severe, one.sentence) for one in starts),
            seen.silent | unseen,
            datetime.now(UTC),
        )
    )
    await reports.publish_diagnosis(run, seen.health, lines)
    return lines


async def _read_metrics(
    run: Run, members: tuple[DesiredMember, ...]
) -> tuple[dict[str, MemberMetrics], dict[str, float]]:
    """Ask over HTTPS, or on the hosts where the authority is not the runner's to use."""
    try:
        if not run.inventory.authority.on_hosts:
            async with health.etcd_client(run, members) as client:
                found = await diagnosis.read_metrics(run, client)
            if found[0]:
                return found
    except RunbookError:
        pass  # the members are asked with their own pairs
    async with onhosts.own_pairs_client(run, members) as client:
        return await diagnosis.read_metrics(run, client)


async def _count_logs(run: Run) -> dict[str, dict[str, int] | None]:
    async def count(name: str) -> dict[str, int] | None:
        try:
            return await diagnosis.count_logs(run, run.hosts[name])
        except RunbookError:
            return None

    return dict(zip(run.hosts, await asyncio.gather(*map(count, run.hosts)), strict=True))
