"""Showing members: settings from their files, their processes and the cluster itself; read-only.

Composes steps; owns none.
"""

from __future__ import annotations

import asyncio

from tasks.engine import frame
from tasks.engine.run import Run, step
from tasks.hosts.connection import HostConnection
from tasks.model.errors import NotSeen, Refused, RunbookError
from tasks.model.members import SeenMember
from tasks.model.record import Event
from tasks.plans.showing import MemberSight, compare_member, describe, find_entry
from tasks.procedures import location
from tasks.report.members import COLUMNS, member_markdown, member_row
from tasks.report.tables import Table
from tasks.steps import nodes, onhosts, showing
from tasks.steps.reports import artifact_key


def find_hosts(run: Run, members: list[str] | None) -> tuple[HostConnection, ...]:
    """Find the hosts of the members that were named, by any of their names; all without names."""
    if not members:
        return tuple(run.hosts.values())
    found = []
    for word in members:
        host = run.inventory.called(word)
        if host is None:
            known = ", ".join(run.hosts)
            raise Refused(f"{word}: the inventory has no such member; it has {known}")
        found.append(run.hosts[host.name])
    return tuple(dict.fromkeys(found))


async def show(run: Run, members: list[str] | None) -> None:
    """See the members' settings three ways and publish them; raises NotSeen for the others."""
    hosts = find_hosts(run, members)
    health, *seen = await asyncio.gather(
        onhosts.read_health_on_hosts(run, await location.locate_members(run)),
        *(_see(run, host) for host in hosts),
    )
    listed = health.seen_members()
    unseen = [sight for sight in seen if isinstance(sight, str)]
    if not listed:
        unseen.append("no member told the member list, so nothing is compared with it")
    sights = tuple(sight for sight in seen if isinstance(sight, MemberSight))
    await publish_members(run, sights, listed, tuple(unseen))
    if unseen:
        raise NotSeen(
            f"not all of {run.inventory.name} could be shown:\n  - " + "\n  - ".join(unseen)
        )


async def _see(run: Run, host: HostConnection) -> MemberSight | str:
    try:
        node = await nodes.observe_node(run, host)
        if node is None:
            return await showing.see_member(run, host)
    except RunbookError as error:
        return f"{host.name}: cannot be seen: {error.message}"
    source = node.pod.file.path if node.pod else "no manifest of etcd's"
    version = node.process.version if node.process else None
    return MemberSight(host.name, source, node.settings, node.running, version, node.mounts)


@step("publish the members' settings")
async def publish_members(
    run: Run,
    sights: tuple[MemberSight, ...],
    listed: tuple[SeenMember, ...],
    remarks: tuple[str, ...],
) -> None:
    """Publish every setting of the members three ways, and tell it to the terminal."""
    rows = tuple(
        member_row(sight.host, (row.name, row.written, row.runs, row.reported, row.mark))
        for sight in sights
        for row in compare_member(sight, listed)
    )
    table, name = Table(COLUMNS, rows), run.inventory.name
    lines = (*(describe(sight, find_entry(sight, listed)) for sight in sights), *remarks)
    run.journal.append(
        Event.OBSERVED, columns=table.columns, rows=table.rows, problems=(), remarks=lines
    )
    await frame.publish(
        markdown=member_markdown(name, lines, table),
        key=artifact_key(run.runbook, name),
        description=f"{name}: {sum(bool(row[-1]) for row in rows)} difference(s)",
    )
