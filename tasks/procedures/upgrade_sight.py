"""What an upgrade sees before it plans: what runs, whose settings say what, and the way from there.

Composes steps; changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from tasks.config.rendering import MARK
from tasks.config.translation import TOUCHED, has_v2_api, translate
from tasks.engine.run import Run, together
from tasks.etcd.client import EtcdClient
from tasks.etcd.prometheus import V2_REQUESTS
from tasks.hosts.connection import HostConnection
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import Refused, RunbookError, Transient
from tasks.model.member_settings import variable_name
from tasks.model.members import format_id
from tasks.model.plan import Finding, Severity
from tasks.model.restarts import StartObservation
from tasks.model.settings import InstalledBinaries
from tasks.model.upgrades import Translation, UpgradeSight
from tasks.plans.restarts import PROGRAM, find_against, find_differences
from tasks.plans.upgrade_findings import Weighed
from tasks.plans.upgrade_routes import (
    V2_GONE,
    Minor,
    Route,
    find_route,
    format_minor,
    has_no_way_back,
    minor_of,
    way_back_sentence,
)
from tasks.plans.upgrades import Work
from tasks.procedures import location, pod_sight
from tasks.steps import health, restarts, snapshots, upgrades
from tasks.steps.space import quota_of
from tasks.store.places import Unstorable

WRITTEN = frozenset({PROGRAM, *map(variable_name, TOUCHED)})
"""What of the next restart an upgrade itself writes, or has written before it died."""
ZOMBIES: Minor = (3, 5)
"""The one that may note wrongly who was removed, which the next is the first to read."""


async def look(run: Run, unlocked: Mapping[str, str]) -> Weighed:
    """See members, hosts and settings, and find the way; raises Refused where there is none."""
    members = await location.locate_members(run)
    absent = dict(unlocked)
    removed: dict[str, tuple[str, ...]] = {}
    seen: dict[str, UpgradeSight] = {}
    starts: list[StartObservation] = []

    async def see(host: HostConnection) -> None:
        try:
            start, seen[host.name] = await _see(run, host)
            starts.append(start)
        except Transient as error:
            absent[host.name] = error.message

    hosts = [
        host
        for name, host in run.hosts.items()
        if name not in absent and not run.inventory.layout(name).is_pod
    ]
    async with health.etcd_client(run, members) as client:
        found, _ = await asyncio.gather(health.read_health(run, client), together(map(see, hosts)))
        cluster, downgrade = await _read_versions(client, found)
        pods = await pod_sight.see_pods(run, members, found, frozenset(absent))
        seen |= pods.sights
        absent |= pods.absent
        v2_requests = await _see_v2(client, seen)
    seen = {m.name: seen[m.name] for m in members if m.name in seen}
    against = list(pods.against)
    work = Work(Route(()))
    if not absent and cluster is not None:
        running = {name: sight.version for name, sight in seen.items()}
        refuse_unknown(running)
        goal, known = run.inventory.etcd.version, known_versions(run)
        back = await _find_way_back(run) if has_no_way_back(cluster, goal) else ""
        by_images = bool(pods.sights)
        try:
            route = find_route(
                running, cluster, goal, known, downgrade, by_images=by_images, way_back=back
            )
        except Refused as error:
            if not by_images:
                raise
            against.append(Finding(Severity.REFUSAL, None, error.message))
            route = Route(())
        work = find_work(seen, route)
        removed = await _find_removed(run, found, seen, work)
    surprises = find_against(find_differences(tuple(starts)), WRITTEN)
    return Weighed(
        run.inventory.etcd.version,
        members,
        found,
        cluster or (0, 0),
        seen,
        work,
        absent,
        tuple(each.sentence for each in surprises),
        v2_requests,
        removed,
        pods.nodes,
        tuple(against),
    )


async def _find_way_back(run: Run) -> str:
    minor = format_minor(minor_of(run.inventory.etcd.version))
    try:
        saved = await snapshots.find_newest_of(run, minor)
    except Unstorable as error:
        return f"which there is, is not known: {error}"
    return way_back_sentence(run.inventory, saved)


async def _find_removed(
    run: Run, found: ClusterHealth, seen: Mapping[str, UpgradeSight], work: Work
) -> dict[str, tuple[str, ...]]:
    """Find members that others' data note as removed, where 3.6 follows a version before it."""
    if not any(minor_of(hop.version) == V2_GONE and not hop.enables for hop in work.route.hops):
        return {}
    ids = member_ids(found)
    asked = [n for n, s in seen.items() if V2_GONE > minor_of(s.version) >= ZOMBIES]
    told = await together(upgrades.see_removed(run, run.hosts[n], tuple(ids)) for n in asked)
    return {
        name: tuple(ids[number] for number in numbers)
        for name, numbers in zip(asked, told, strict=True)
        if numbers
    }


def member_ids(found: ClusterHealth) -> dict[str, str]:
    """Map the members' ids, as etcd writes them, to their names."""
    return {format_id(m.member.id): m.label for m in found.seen_members()}


def refuse_unknown(running: Mapping[str, str]) -> None:
    """Raise Refused where a host does not tell what it runs."""
    mute = [name for name, version in running.items() if not version]
    if mute:
        raise Refused(
            f"{', '.join(mute)}: neither what runs nor the program of its unit tells its version; "
            "show_member shows how it starts. Nothing was changed"
        )


def known_versions(run: Run) -> tuple[str, ...]:
    """List the versions of which the inventory has programs."""
    etcd = run.inventory.etcd
    own = () if isinstance(etcd.binaries, InstalledBinaries) else (etcd.version,)
    return tuple(dict.fromkeys((*own, *etcd.versions)))


async def _see(run: Run, host: HostConnection) -> tuple[StartObservation, UpgradeSight]:
    start = await restarts.see_next_start(run, host)
    if start is None:
        unit = run.inventory.layout(host.name).service
        raise Refused(f"there is no {unit}, so no etcd would start again", host=host.name)
    program, log, files, disk = await upgrades.see_host(run, host, start.next.program)
    units = files.units
    return start, UpgradeSight(
        host.name,
        start.running.version if start.running else None,
        disk,
        start.next.program,
        program.real,
        program.architecture,
        program.owner,
        bool(units) and units[0].text.startswith(MARK),
        program.free,
        program.data_free,
        quota_of(files) or 0,
        files,
        log,
        has_v2_api(files),
        program.kept,
        program.staged,
    )


async def _read_versions(
    client: EtcdClient, found: ClusterHealth
) -> tuple[Minor | None, Minor | None]:
    """Tell the cluster's version, and what a downgrade under way ends at."""
    downgrade = next(
        (e.status.downgrades_to for e in found.endpoints if e.status and e.status.downgrades_to),
        None,
    )
    for endpoint in client.endpoints:
        try:
            version = (await client.get_version(endpoint)).cluster
        except RunbookError:
            continue
        if version != "not_decided":
            return minor_of(version), minor_of(downgrade) if downgrade else None
    return None, None


async def _see_v2(client: EtcdClient, seen: dict[str, UpgradeSight]) -> dict[str, int]:
    """See who serves the v2 API, also without its settings' saying so, and count the requests."""
    found = {}
    for endpoint in client.endpoints:
        sight = seen.get(endpoint.name)
        if sight is None or minor_of(sight.version or "0.0") >= V2_GONE:
            continue
        try:
            serves = await client.serves_v2(endpoint)
            metrics = await client.get_metrics(endpoint) if serves else None
        except RunbookError:
            continue
        if metrics is not None:
            seen[endpoint.name] = replace(sight, has_v2_api=True)
            if count := metrics.values.get(V2_REQUESTS):
                found[endpoint.name] = round(count)
    return found


def find_work(hosts: Mapping[str, UpgradeSight], route: Route) -> Work:
    """Follow each host's settings through its hops."""
    found: dict[tuple[str, str], Translation] = {}
    files = {name: sight.settings for name, sight in hosts.items()}
    for hop in route.hops:
        for name in hop.hosts:
            done = translate(files[name], minor_of(hop.version))
            found[name, hop.version] = done
            files[name] = done.files
    return Work(route, found)
