"""Bringing members to another version of etcd: what is seen before, and each step. Composes steps.

Settings are written first, in words that both versions know, then the program: whatever starts
next, by this run or by itself, starts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath

from tasks.config.launch import NotUnderstood
from tasks.config.rendering import MARK
from tasks.config.settings import read_settings
from tasks.config.translation import TOUCHED, count_every, has_v2_api, translate
from tasks.engine.run import Run, together, unless
from tasks.etcd.client import EtcdClient
from tasks.hosts.connection import HostConnection
from tasks.hosts.upgrades import keep_settings_command
from tasks.model.cluster import ClusterHealth, DesiredMember, format_id
from tasks.model.errors import InvalidInventory, MemberFailed, Refused, RunbookError, Transient
from tasks.model.gap import Gap
from tasks.model.member_settings import Place, SettingsFiles, parse_number, variable_name
from tasks.model.restarts import StartObservation
from tasks.model.settings import InstalledBinaries
from tasks.model.upgrades import Translation, UpgradeSight
from tasks.plans.restarts import PROGRAM, find_against, find_differences
from tasks.plans.upgrade_findings import Weighed, noted_sentence
from tasks.plans.upgrade_routes import Minor, Route, find_route, minor_of
from tasks.plans.upgrades import (
    AwaitVersion,
    CancelDowngrade,
    ClearPrograms,
    CompareData,
    EnableDowngrade,
    StagePrograms,
    UpgradeMember,
    Work,
    find_architecture,
)
from tasks.procedures import location, restarting, rotation
from tasks.steps import configuration, health, installation, restarts, services, upgrades
from tasks.steps.installation import Programs

WRITTEN = frozenset({PROGRAM, *map(variable_name, TOUCHED)})
"""What of the next restart an upgrade itself writes, or has written before it died."""
V2_GONE: Minor = (3, 6)
ZOMBIES: Minor = (3, 5)
"""The first that reads who was removed from its data, and the one that may note it wrongly."""
_V2_REQUESTS = re.compile(r"^etcd_http_received_total\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclass(slots=True)
class Progress:
    """What a run carries from step to step: programs, and the data as they were."""

    programs: dict[str, Programs] = field(default_factory=dict)
    data: dict[int, dict[str, upgrades.Data]] = field(default_factory=dict)


def refuse_stacked(run: Run) -> None:
    """Raise Refused where kubeadm owns etcd's version."""
    inventory = run.inventory
    if any(inventory.layout(host.name).is_pod for host in inventory.hosts):
        raise Refused(
            f"{inventory.name} is stacked: kubeadm owns etcd's version and writes each manifest's "
            "image. On the first node `kubeadm upgrade plan` and `kubeadm upgrade apply VERSION`, "
            "on each other `kubeadm upgrade node`, one at a time, with check_health before and "
            "after each; then harden_members, whose change kubeadm takes back. Nothing was changed"
        )


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

    hosts = [host for name, host in run.hosts.items() if name not in absent]
    async with health.etcd_client(run, members) as client:
        found, _ = await asyncio.gather(health.read_health(run, client), together(map(see, hosts)))
        cluster, downgrade = await _read_versions(client, found)
        metrics = await _count_v2(client, seen)
    seen = {m.name: seen[m.name] for m in members if m.name in seen}
    if absent or cluster is None:
        work = Work(Route(()))
    else:
        running = {name: sight.version for name, sight in seen.items()}
        refuse_unknown(running)
        known = known_versions(run)
        work = find_work(
            seen, find_route(running, cluster, run.inventory.etcd.version, known, downgrade)
        )
        removed = await _find_removed(run, found, seen, work)
    against = find_against(find_differences(tuple(starts)), WRITTEN)
    return Weighed(
        run.inventory.etcd.version,
        members,
        found,
        cluster or (0, 0),
        seen,
        work,
        absent,
        tuple(each.sentence for each in against),
        metrics,
        removed,
    )


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
    settings = read_settings(files)
    try:
        quota = parse_number(settings.value("quota-backend-bytes", "0"))
    except ValueError:
        quota = 0
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
        quota,
        files,
        log,
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


async def _count_v2(client: EtcdClient, seen: Mapping[str, UpgradeSight]) -> dict[str, int]:
    """Count the requests that the v2 API has had since each member's start, where it is on."""
    found = {}
    for endpoint in client.endpoints:
        sight = seen.get(endpoint.name)
        if sight is None or not has_v2_api(sight.settings):
            continue
        try:
            text = await client.read_metrics(endpoint)
        except RunbookError:
            continue
        count = sum(map(float, _V2_REQUESTS.findall(text)))
        if count:
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


async def load(run: Run, seen: Weighed, progress: Progress) -> None:
    """Read the programs of the way; raises InvalidInventory for a wrong sum or machine."""
    etcd = run.inventory.etcd
    for version in seen.work.route.versions:
        is_goal = version == etcd.version and not isinstance(etcd.binaries, InstalledBinaries)
        binaries = etcd.binaries if is_goal else etcd.versions[version]
        loaded = await asyncio.to_thread(installation.load_binaries, binaries)
        machine = find_architecture(loaded.contents["etcd"])
        problems = tuple(
            f"etcd {version}: its program is for {machine or 'another kind of system'}, and "
            f"{name} is {sight.architecture}; name the archive of {sight.architecture}"
            for name, sight in seen.hosts.items()
            if machine != sight.architecture
        )
        if problems:
            raise InvalidInventory("inventory", problems)
        progress.programs[version] = loaded


async def stage(
    run: Run, host: HostConnection, step: StagePrograms, *, seen: Weighed, progress: Progress
) -> None:
    """Put a version's programs beside those that run."""
    programs = progress.programs[step.version]
    beside = seen.hosts[host.name].beside(step.version)
    await upgrades.stage_programs(run, host, step.version, beside, programs.contents, programs.sums)


async def clear(run: Run, host: HostConnection, step: ClearPrograms, *, seen: Weighed) -> None:
    """Remove what was put beside."""
    places = tuple(map(seen.hosts[host.name].beside, step.versions))
    await upgrades.clear_programs(run, host, places)


async def upgrade_member(
    run: Run, host: HostConnection, step: UpgradeMember, *, seen: Weighed, progress: Progress
) -> None:
    """Bring one member to a version; raises MemberFailed where it does not come back.

    Then what this step has changed there is put back, if etcd starts with it.
    """
    sight = seen.hosts[host.name]
    await health.move_leader_away(run, host, seen.members, step.successor)
    if sight.kept:
        await upgrades.restore_settings(run, host, sight.kept)
    if minor_of(step.version) == ZOMBIES > minor_of(sight.version):
        async with health.etcd_client(run, seen.members) as client:
            await upgrades.settle_data(run, client)
    if step.clears_log and (await upgrades.see_log(run, host)).ends(minor_of(step.version)):
        await _save_log(run, host, seen.members)
    if step.clears_log and minor_of(step.version) == V2_GONE:
        ids = member_ids(seen.health)
        if noted := await upgrades.see_removed(run, host, tuple(ids)):
            said = noted_sentence(tuple(ids[number] for number in noted))
            raise MemberFailed(f"{said}; it runs on as it was", host=host.name)
    written: tuple[PurePosixPath, ...] = ()
    if step.version in progress.programs:
        edited = await configuration.edit_settings(
            run, host, partial(_translated, minor=minor_of(step.version))
        )
        placed = await upgrades.exchange_programs(run, host, sight.beside(step.version), sight.real)
        written = (*edited, *placed)
    await restarting.restart_or_put_back(run, host, seen.members, written)


def _translated(files: SettingsFiles, minor: Minor) -> SettingsFiles:
    done = translate(files, minor)
    if done.faults:  # they were none when the plan was made
        raise NotUnderstood(Place(files.unit), done.faults[0])
    return done.files


async def _save_log(run: Run, host: HostConnection, members: tuple[DesiredMember, ...]) -> None:
    """Let a member save a snapshot of its log, so that the next start does not read it again.

    Etcd saves one after so many entries; it is started anew with 1. Settings as they were are kept
    on the host meanwhile. Raises MemberFailed where the snapshot holds keys of the v2 store.
    """
    kept = await configuration.edit_settings(
        run, host, partial(count_every, entries=1), keep_settings_command
    )
    await _restart(run, host, members)
    async with health.etcd_client(run, members) as client:
        await upgrades.await_snapshot(run, host, client)
    await upgrades.restore_settings(run, host, tuple(map(str, kept)))
    if (await upgrades.see_log(run, host)).has_keys:
        await _restart(run, host, members)
        raise MemberFailed(
            "the v2 store holds keys, for which etcd 3.6 does not start; its member runs on as it "
            "was. Read them out, remove them by the v2 API, and run it again; it goes on from here",
            host=host.name,
        )


async def _restart(run: Run, host: HostConnection, members: tuple[DesiredMember, ...]) -> None:
    await services.restart_member(run, host)
    watching = services.watch_start(run, (host,))
    await unless(watching, rotation.wait_until_healthy(run, members))


async def enable_downgrade(run: Run, step: EnableDowngrade, *, seen: Weighed) -> None:
    """Let the cluster go down, and wait until it is ready for other programs."""
    async with health.etcd_client(run, seen.members) as client:
        await upgrades.enable_downgrade(run, client, step.minor)
        await upgrades.await_version(run, client, step.minor)


async def cancel_downgrade(run: Run, _step: CancelDowngrade, *, seen: Weighed) -> None:
    """Call a downgrade off."""
    async with health.etcd_client(run, seen.members) as client:
        await upgrades.cancel_downgrade(run, client)


async def await_version(run: Run, step: AwaitVersion, *, seen: Weighed) -> None:
    """Wait until the cluster's version is that of its members."""
    async with health.etcd_client(run, seen.members) as client:
        await upgrades.await_version(run, client, step.minor)


async def compare_data(
    run: Run, _step: CompareData | None, *, seen: Weighed, progress: Progress
) -> None:
    """Compare all members' data at a revision that all have, and at the first one of this run.

    Raises MemberFailed where members differ, or one has not what it had.
    """
    async with health.etcd_client(run, seen.members) as client:
        found = await health.read_health(run, client)
        newest = min(e.status.revision for e in found.endpoints if e.status)
        for revision in {newest, *progress.data}:
            data = await upgrades.compare_data(run, client, revision)
            before = progress.data.setdefault(revision, data)
            for name, (count, _) in data.items():
                had = before.get(name, (None, None))[0]
                if None not in (had, count) and had != count:
                    raise MemberFailed(
                        f"it has {count} keys at revision {revision}, and had {had}; stop here",
                        host=name,
                    )


def tell_data(progress: Progress) -> str:
    """Say what was compared, for the report."""
    told = []
    for revision, data in sorted(progress.data.items()):
        counts = {str(count) for count, _ in data.values() if count is not None}
        hashes = {f"{one.hash:08x}" for _, one in data.values() if one is not None}
        hashed = f", hash {' '.join(sorted(hashes))}" if hashes else ""
        told.append(f"revision {revision}: {' '.join(sorted(counts)) or '?'} keys{hashed}")
    return "; ".join(told) + " on all members"


def tell_gaps(gaps: tuple[Gap, ...], versions: tuple[str, ...]) -> dict[str, str]:
    """Say the longest gap in reads and in writes of each hop."""
    found = {}
    for version in versions:
        own = [gap for gap in gaps if gap.stage.endswith(f" to {version}")]
        if own:
            reads = max(gap.longest for gap in own)
            writes = max(gap.longest_write or 0.0 for gap in own)
            found[f"longest gap, hop to {version}"] = (
                f"reads {reads * 1000:.0f} ms, writes {writes * 1000:.0f} ms"
            )
    return found


async def verify(run: Run, seen: Weighed) -> ClusterHealth:
    """See every member healthy, and each of the wanted version; raises MemberFailed."""
    found = await rotation.wait_until_healthy(run, seen.members)
    wanted = run.inventory.etcd.version
    others = [
        f"{e.name}: {e.status.version}"
        for e in found.endpoints
        if e.status and e.status.version != wanted
    ]
    if others:
        raise MemberFailed(f"not all members run {wanted}: {', '.join(others)}")
    return found
