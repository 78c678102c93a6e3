"""Bringing members to another version of etcd: what each step does. Composes steps.

Settings are written first, in words that both versions know, then the program: whatever starts
next, by this run or by itself, starts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath

from tasks.config.translation import count_every, translated
from tasks.engine.run import Run
from tasks.hosts.connection import HostConnection
from tasks.hosts.upgrades import keep_settings_command
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import InvalidInventory, MemberFailed
from tasks.model.gap import Gap
from tasks.model.members import DesiredMember
from tasks.model.settings import InstalledBinaries
from tasks.plans.upgrade_findings import Weighed, find_down, noted_sentence
from tasks.plans.upgrade_routes import V2_GONE, minor_of
from tasks.plans.upgrades import (
    AwaitVersion,
    CancelDowngrade,
    ClearPrograms,
    CompareData,
    EnableDowngrade,
    EndV2Api,
    FetchImage,
    StagePrograms,
    UpgradeMember,
    find_architecture,
    is_of_hop,
)
from tasks.procedures import pod_upgrades, restarting, rotation
from tasks.procedures.upgrade_sight import ZOMBIES, member_ids
from tasks.steps import configuration, health, installation, services, upgrades
from tasks.steps.installation import Programs


@dataclass(slots=True)
class Progress:
    """What a run carries from step to step: programs, and the data as they were."""

    programs: dict[str, Programs] = field(default_factory=dict)
    data: dict[int, dict[str, upgrades.Data]] = field(default_factory=dict)


async def load(run: Run, seen: Weighed, progress: Progress) -> None:
    """Read the programs of the way; raises InvalidInventory for a wrong sum, machine or version."""
    etcd = run.inventory.etcd
    if any(sight.image for sight in seen.hosts.values()):
        return
    for version in seen.work.route.versions:
        is_goal = version == etcd.version and not isinstance(etcd.binaries, InstalledBinaries)
        binaries = etcd.binaries if is_goal else etcd.versions[version]
        field = "etcd.binaries" if is_goal else f"etcd.versions.{version}"
        loaded = await asyncio.to_thread(installation.load_binaries, binaries, version, field)
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


async def fetch_image(run: Run, host: HostConnection, step: FetchImage) -> None:
    """See that a node has the image."""
    await upgrades.fetch_image(run, host, step.image)


async def clear(run: Run, host: HostConnection, step: ClearPrograms, *, seen: Weighed) -> None:
    """Remove what was put beside."""
    places = tuple(map(seen.hosts[host.name].beside, step.versions))
    await upgrades.clear_programs(run, host, places)


async def end_v2_api(run: Run, host: HostConnection, step: EndV2Api, *, seen: Weighed) -> None:
    """Let one member serve no v2 API any more; raises MemberFailed where it does not come back."""
    await health.move_leader_away(run, host, seen.members, step.successor)
    if kept := seen.hosts[host.name].kept:
        await upgrades.restore_settings(run, host, kept)
    edited = await configuration.edit_settings(run, host, partial(translated, minor=step.minor))
    await restarting.restart_or_put_back(run, host, seen.members, edited)


async def upgrade_member(
    run: Run, host: HostConnection, step: UpgradeMember, *, seen: Weighed, progress: Progress
) -> None:
    """Bring one member to a version; raises MemberFailed where it does not come back.

    Then what this step has changed there is put back, if etcd starts with it.
    """
    sight = seen.hosts[host.name]
    await health.move_leader_away(run, host, seen.members, step.successor)
    if sight.image:
        await pod_upgrades.upgrade_pod(run, host, step, members=seen.members, image=sight.image)
        return
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
            run, host, partial(translated, minor=minor_of(step.version))
        )
        placed = await upgrades.exchange_programs(run, host, sight.beside(step.version), sight.real)
        written = (*edited, *placed)
    await restarting.restart_or_put_back(run, host, seen.members, written)


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
    await rotation.wait_for_start(run, host, members)


async def enable_downgrade(run: Run, step: EnableDowngrade, *, seen: Weighed) -> None:
    """Let the cluster go down, and wait until it is ready for other programs."""
    async with health.etcd_client(run, seen.members) as client:
        await upgrades.enable_downgrade(run, client, step.minor)
        await upgrades.await_version(run, client, step.minor, find_down(seen))


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
        for revision in {newest, min(progress.data, default=newest)}:
            data = await upgrades.compare_data(run, client, revision)
            before = progress.data.get(revision, {})
            for name, (count, hashed) in data.items():
                had, was = before.get(name, (None, None))
                if None not in (had, count) and had != count:
                    said = f"it has {count} keys at revision {revision}, and had {had}"
                    raise MemberFailed(f"{said}; stop here", host=name)
                is_alike = hashed and was and hashed.compact_revision == was.compact_revision
                if hashed and was and is_alike and hashed.hash != was.hash:
                    said = f"its data at revision {revision} have another hash than they had"
                    raise MemberFailed(f"{said}; stop here", host=name)
            # 3.4 tells no hash: the first that is told is what later ones are compared with.
            progress.data[revision] = before | {
                name: one for name, one in data.items() if one != (None, None)
            }


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
        own = [gap for gap in gaps if is_of_hop(gap.stage, version)]
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
