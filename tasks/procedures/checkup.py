"""A look at a whole cluster that needs no key: members, alarms with the way out, clocks.

Composes the steps of health and onhosts; owns no step of its own, and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.engine.run import Run
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import AuthorityRefused, RunbookError
from tasks.model.members import DesiredMember
from tasks.model.observation import ClockReading, PairsObservation
from tasks.model.plan import Severity
from tasks.model.space import Growth
from tasks.plans.health import alarm_sentences, down_way_out
from tasks.plans.preflight import clock_findings
from tasks.procedures import space
from tasks.steps import health, onhosts, revisions, snapshots


@dataclass(frozen=True, slots=True)
class Checkup:
    """What was seen, what is wrong, and what is only to be known (which way was asked, too).

    `silent` are the hosts whose clock could not be read, with the reason; `growth` is
    of what the databases have in use, by earlier looks.
    """

    health: ClusterHealth
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    silent: dict[str, str]
    growth: Growth | None = None
    clocks: tuple[ClockReading, ...] = ()


async def examine(
    run: Run,
    members: tuple[DesiredMember, ...],
    sights: Mapping[str, PairsObservation] | None = None,
) -> Checkup:
    """Ask every member, over HTTPS or on its host, and every host for its clock; never refuses.

    With `sights`, what was seen of each host before, hosts are asked where HTTPS fails alone.
    """
    (found, foreign, way), (clocks, silent) = await asyncio.gather(
        _ask(run, members), _read_clocks(run, sights)
    )
    revisions.note_revision(run, revisions.highest_answer(found))
    if revisions.forget_fenced(run, found):
        await snapshots.share_fenced(run, {})
    differing = tuple(clock_findings(clocks))
    found, full, room, growth = await space.check_space(run, found, sights)
    quotas = {e.status.member_id: e.status.db_quota or 0 for e in found.endpoints if e.status}
    problems = (
        *((foreign,) if foreign else ()),
        *revisions.tell_fenced(run, found),
        *found.find_faults(members),
        *filter(None, (down_way_out(run.inventory, found),)),
        *alarm_sentences(run.inventory, found, quotas),
        *full,
        *(str(f) for f in differing if f.severity is Severity.REFUSAL),
    )
    remarks = (
        way,
        *room,
        *(str(f) for f in differing if f.severity is Severity.WARNING),
    )
    return Checkup(found, problems, remarks, silent, growth, tuple(clocks))


async def _ask(
    run: Run, members: tuple[DesiredMember, ...]
) -> tuple[ClusterHealth, str | None, str]:
    """Ask with a certificate of the run's own; where that cannot be, or fails, on the hosts."""
    direct = None
    try:
        if run.inventory.authority.on_hosts:
            raise AuthorityRefused("a look needs no key of the authority's")
        async with health.etcd_client(run, members) as client:
            direct = await health.read_health(run, client, fenced=True)
    except RunbookError as error:
        why = error.message
    else:
        if any(e.is_up for e in direct.endpoints):
            return direct, None, "asked over HTTPS, with a certificate of this run's"
        why = "over HTTPS no member serves this runner"
    over_hosts = await onhosts.read_health_on_hosts(run, members)
    if direct is not None and not any(e.is_up for e in over_hosts.endpoints):
        return (
            direct,
            None,
            f"asked over HTTPS, and on the hosts with the members' own pairs: {why}",
        )
    if direct is None and not any(e.is_up for e in over_hosts.endpoints):
        return over_hosts, why, "asked on the hosts, with the members' own pairs"
    foreign = await onhosts.find_foreign(run, members)
    return over_hosts, foreign, f"asked on the hosts, with the members' own pairs: {why}"


async def _read_clocks(
    run: Run, sights: Mapping[str, PairsObservation] | None
) -> tuple[list[ClockReading], dict[str, str]]:
    if sights is not None:
        seen = [sights[name] for name in run.hosts if name in sights]
        told = [ClockReading(s.host, s.clock_offset, s.clock_uncertainty) for s in seen]
        return told, {name: "it was not seen" for name in run.hosts if name not in sights}
    clocks: list[ClockReading] = []
    silent: dict[str, str] = {}

    async def read(name: str) -> None:
        try:
            clocks.append(await onhosts.read_clock(run, run.hosts[name]))
        except RunbookError as error:
            silent[name] = error.message

    await asyncio.gather(*map(read, run.hosts))
    order = list(run.hosts)
    by_order = sorted(silent.items(), key=lambda one: order.index(one[0]))
    return sorted(clocks, key=lambda clock: order.index(clock.host)), dict(by_order)
