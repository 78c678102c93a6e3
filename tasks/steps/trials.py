"""Trying what a plan is about to do, on all its hosts at once, before anything is changed."""

from __future__ import annotations

from pathlib import PurePosixPath

from tasks.engine.run import Run, step, together
from tasks.hosts import rooms, sessions
from tasks.hosts.connection import HostConnection
from tasks.model.observation import Path, Reachability, Room
from tasks.model.plan import Finding
from tasks.model.urls import split_url
from tasks.plans.preflight import path_findings
from tasks.plans.rooms import unwritable
from tasks.plans.trials import Trial


@step("try places and ways on {host}", retry_delays_seconds=(1.0,))
async def try_host(
    _run: Run,
    host: HostConnection,
    places: frozenset[PurePosixPath],
    targets: tuple[tuple[str, str, int], ...],
) -> tuple[tuple[Room, ...], tuple[Path, ...]]:
    """Write and remove a small file at each place, and connect to each port, in one batch."""
    tried, dialled = await host.run(
        rooms.rooms_command(sorted(places)), sessions.dial_command(targets, hears_names=False)
    )
    met = sessions.parse_dials(dialled)
    ways = (
        Path(host.name, name, address, port, met.get((name, port), Reachability.TIMED_OUT))
        for name, address, port in targets
    )
    return rooms.parse_rooms(tried), tuple(ways)


async def try_all(run: Run, trial: Trial) -> tuple[Finding, ...]:
    """Try what a plan writes and needs; what fails is refused, with host, place and pair."""
    ends = {member.name: split_url(member.peer_url) for member in trial.ways}
    machines = run.hosts | run.clients
    # A client may be on a member's host, which is asked once.
    places = {host: set[PurePosixPath]() for host in map(machines.__getitem__, ends)}
    for name, paths in trial.places.items():
        places.setdefault(machines[name], set()).update(paths)

    async def look(host: HostConnection) -> tuple[Finding, ...]:
        name = host.name
        others = tuple((x, *end) for x, end in ends.items() if name in ends and x != name)
        found, ways = await try_host(run, host, frozenset(places[host]), others)
        return (*unwritable(name, found), *path_findings(ways))

    return tuple(finding for found in await together(map(look, places)) for finding in found)
