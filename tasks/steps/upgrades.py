"""Steps of an upgrade: programs beside and in place, the log, the cluster's version, the data."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import PurePosixPath
from time import monotonic

from tasks.engine.run import Run, step, together
from tasks.etcd.client import HASH_SECONDS, POLL_SECONDS, EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.hosts import files, images, system
from tasks.hosts import upgrades as commands
from tasks.hosts.connection import HostConnection
from tasks.hosts.supervisors import supervisor
from tasks.model.errors import (
    CommandFailed,
    EtcdRefused,
    EtcdUnavailable,
    MemberFailed,
    RunbookError,
    Transient,
)
from tasks.model.kubeadm import Installed
from tasks.model.member_settings import SettingsFiles
from tasks.model.snapshots import DataHash
from tasks.model.upgrades import FORCED, LogRemnants
from tasks.plans.upgrade_routes import Minor, format_minor, minor_of

RISE_SECONDS = 60.0
"""Etcd looks at its members' versions every 4 s; a downgrade takes a snapshot of the log, too."""
LOOK_SECONDS = 60.0
DATABASE_SECONDS = 300.0
"""For reading all of a database on its host, some seconds a gigabyte."""
SETTLING_KEY = b"etcd-runbooks/upgrade"
SETTLE_SECONDS = 0.5
"""Etcd writes what it has every 100 ms."""

Data = tuple[int | None, DataHash | None]


@step("see programs and log on {host}", retry_delays_seconds=(1.0,))
async def see_host(
    run: Run, host: HostConnection, program: str
) -> tuple[commands.ProgramSight, LogRemnants, SettingsFiles, str | None]:
    """See what an upgrade must know of a host; nothing is changed.

    The last part is the version of the program on its disk.
    """
    layout = run.inventory.layout(host.name)
    own = supervisor(layout)
    asked, log, written, version = await host.run(
        commands.program_command(program, layout.data, layout.wal),
        commands.log_command(layout.data, layout.wal),
        own.settings_command(),
        commands.version_command(program),
        timeout_seconds=LOOK_SECONDS,
    )
    return (
        commands.parse_program(asked),
        commands.parse_log(log),
        own.parse_settings(written),
        commands.parse_version(version),
    )


@step("see manifest and log on {host}", retry_delays_seconds=(1.0,))
async def see_pod(
    run: Run, host: HostConnection
) -> tuple[commands.ProgramSight, LogRemnants, SettingsFiles]:
    """See what an upgrade must know of a host whose etcd is a static pod; nothing is changed."""
    layout = run.inventory.layout(host.name)
    own = supervisor(layout)
    asked, log, written = await host.run(
        commands.program_command(own.name, layout.data, layout.wal),
        commands.log_command(layout.data, layout.wal),
        own.settings_command(),
        timeout_seconds=LOOK_SECONDS,
    )
    return commands.parse_program(asked), commands.parse_log(log), own.parse_settings(written)


@step("ask what kubeadm was told on {host}", retry_delays_seconds=(1.0,))
async def ask_kubeadm(_run: Run, host: HostConnection) -> tuple[str | None, Installed]:
    """Get kubeadm's ClusterConfiguration from a node's API server; None where there is none.

    And what the node's own kubeadm brings. Raises Transient where the API server does not tell.
    """
    told, installed = await host.run(
        images.configuration_command(), images.installed_command(), timeout_seconds=LOOK_SECONDS
    )
    return images.parse_configuration(told), images.parse_installed(installed)


@step("have the image on {host}")
async def fetch_image(_run: Run, host: HostConnection, image: str) -> bool:
    """See that a node's runtime has an image, pulled if need be.

    Raises MemberFailed, with its member untouched, where it cannot be had.
    """
    command = images.fetch_command(image)
    try:
        limit = images.PULL_SECONDS + 30.0
        (result,) = await host.run(command, changes=True, timeout_seconds=limit)
    except CommandFailed as error:
        said = images.failed_sentence(image, error.status, error.stderr)
        raise MemberFailed(said, host=host.name) from error
    return files.parse_change(result)


@step("look for v2 entries on {host}")
async def see_log(run: Run, host: HostConnection) -> LogRemnants:
    """See what of the v2 store is in a member's log, and in its newest snapshot."""
    layout = run.inventory.layout(host.name)
    (log,) = await host.run(
        commands.log_command(layout.data, layout.wal), timeout_seconds=LOOK_SECONDS
    )
    return commands.parse_log(log)


@step("put programs beside on {host}")
async def stage_programs(
    run: Run,
    host: HostConnection,
    version: str,
    beside: PurePosixPath,
    contents: Mapping[str, bytes],
    sums: Mapping[str, str],
) -> bool:
    """Upload a version's programs, and see that etcd runs there and is that version."""
    changed = False
    for name, digest in sums.items():
        changed |= await host.upload(
            contents[name],
            beside / name,
            sha256=digest,
            mode="0755",
            backup=run.inventory.paths.backups / run.backup,
        )
    (result,) = await host.run(system.programs_command(beside, ("etcd",)))
    found = next((p.version for p in system.parse_programs(result)), None)
    if found != version:
        raise CommandFailed(
            host.name,
            f"{beside}/etcd --version",
            0,
            f"it is {found or 'not runnable here'}, and the inventory calls it {version}; correct "
            "the one that is wrong. Nothing that runs was changed",
        )
    return changed


@step("put programs in place on {host}")
async def exchange_programs(
    run: Run, host: HostConnection, beside: PurePosixPath, program: PurePosixPath
) -> tuple[PurePosixPath, ...]:
    """Put a version's programs in the place of those there; what runs goes on. Tells which."""
    backup = run.inventory.paths.backups / run.backup
    (result,) = await host.run(
        commands.exchange_programs_command(beside, program, backup), changes=True
    )
    return tuple(map(PurePosixPath, result.stdout.split()))


@step("remove what was put beside on {host}")
async def clear_programs(
    _run: Run, host: HostConnection, places: tuple[PurePosixPath, ...]
) -> bool:
    """Remove the programs that were put beside."""
    (result,) = await host.run(commands.clear_command(places), changes=True)
    return files.parse_change(result)


@step("wait for a snapshot of the log on {host}")
async def await_snapshot(run: Run, host: HostConnection, client: EtcdClient) -> bool:
    """Write until the member has saved a snapshot of its log, of all that it held before."""
    own = next(e for e in client.endpoints if e.name == host.name)
    index = (await client.get_status(own)).raft_applied_index
    for _ in range(4):
        await client.write_lease(own)
    data = run.inventory.layout(host.name).data
    await host.run(
        commands.await_snapshot_command(data, index),
        timeout_seconds=commands.SNAPSHOT_SECONDS + 10.0,
    )
    return True


@step("put the settings back on {host}")
async def restore_settings(run: Run, host: HostConnection, kept: tuple[str, ...]) -> bool:
    """Put settings back as they were before the log was to be saved after each entry."""
    own = supervisor(run.inventory.layout(host.name))
    back, _, _ = await host.run(
        files.exchange_command(map(PurePosixPath, kept), FORCED, None),
        own.reload_command(),
        commands.clear_kept_command(),
        changes=True,
    )
    return bool(back.stdout.split())


@step("let the members save how far their data are")
async def settle_data(_run: Run, client: EtcdClient) -> bool:
    """Write a key and delete it: 3.4 saves how far its data are with such a write alone.

    3.5 would apply all of its log anew, and note members as removed that are not.
    """
    await client.write_key(client.endpoints[0], SETTLING_KEY)
    await asyncio.sleep(SETTLE_SECONDS)
    return True


@step("look for members noted as removed on {host}")
async def see_removed(run: Run, host: HostConnection, ids: tuple[str, ...]) -> tuple[str, ...]:
    """See which members a member's data note as removed; changes nothing."""
    data = run.inventory.layout(host.name).data
    (result,) = await host.run(
        commands.removed_command(data, ids), timeout_seconds=DATABASE_SECONDS
    )
    return commands.parse_removed(result)


@step("let the cluster go down")
async def enable_downgrade(_run: Run, client: EtcdClient, minor: Minor) -> bool:
    """Let the cluster go down to a minor version, unless it is on its way.

    Etcd takes some seconds to see that the downgrade before is at its end, and refuses until then.
    One whose version the cluster has already is not asked for again: a leader of 3.5 ends it while
    members of 3.6 are left, and etcd calls it invalid then.
    """
    deadline = monotonic() + RISE_SECONDS
    while under_way := await _downgrades(client):
        if minor in under_way:
            return False
        if monotonic() > deadline:
            told = ", ".join(map(format_minor, under_way))
            raise EtcdUnavailable(
                f"a downgrade to {told} is not at its end after {RISE_SECONDS:g} s; look at "
                "check_health, then run it again: it goes on from here"
            )
        await asyncio.sleep(POLL_SECONDS)
    version = (await client.get_version(client.endpoints[0])).cluster
    if version.startswith(f"{format_minor(minor)}."):
        return False
    await client.enable_downgrade(client.endpoints[0], f"{format_minor(minor)}.0")
    return True


async def _downgrades(client: EtcdClient) -> set[Minor]:
    found = await client.observe_cluster()
    told = [e.status.downgrades_to for e in found.endpoints if e.status]
    return {minor_of(version) for version in told if version}


@step("call the downgrade off")
async def cancel_downgrade(_run: Run, client: EtcdClient) -> bool:
    """Call a downgrade off, at a member that knows of it; it may end by itself meanwhile."""
    for endpoint in client.endpoints:
        if (await client.get_status(endpoint)).downgrades_to:
            try:
                await client.cancel_downgrade(endpoint)
            except EtcdRefused:
                if await _downgrades(client):
                    raise
            return True
    return False


@step("wait for the cluster's version")
async def await_version(
    _run: Run, client: EtcdClient, minor: Minor, without: frozenset[str] = frozenset()
) -> bool:
    """Wait until every member tells this minor version as the cluster's, and its data's if any.

    Those in `without` are down, and are not asked.
    """
    asked = [endpoint for endpoint in client.endpoints if endpoint.name not in without]
    deadline = monotonic() + RISE_SECONDS
    while True:
        told = await together(_tell_versions(client, each) for each in asked)
        wrong = [f"{name}: {version}" for name, version in told if minor_of(version) != minor]
        if not wrong:
            return True
        if monotonic() > deadline:
            raise EtcdUnavailable(
                f"the cluster's version is not {format_minor(minor)} after {RISE_SECONDS:g} s "
                f"({', '.join(wrong)}); look at check_health, then run it again: it goes on from "
                "here"
            )
        await asyncio.sleep(POLL_SECONDS)


async def _tell_versions(client: EtcdClient, endpoint: Endpoint) -> tuple[str, str]:
    """Tell the cluster's version as a member knows it, or its data's where that is still another's.

    A downgrade is ready for other programs when the data are.
    """
    try:
        version = await client.get_version(endpoint)
        status = await client.get_status(endpoint)
    except RunbookError:
        return endpoint.name, "0.0"
    stored = status.storage_version
    if stored and minor_of(stored) > minor_of(version.cluster):
        return endpoint.name, stored
    return endpoint.name, version.cluster


@step("compare the members' data")
async def compare_data(_run: Run, client: EtcdClient, revision: int) -> dict[str, Data]:
    """Get each member's number of keys and hash at a revision; raises MemberFailed if they differ.

    None stands for what a version does not tell, or what is compacted.
    """
    found = dict(
        await together(_read_data(client, endpoint, revision) for endpoint in client.endpoints)
    )
    for kind, values in (
        ("number of keys", {count for count, _ in found.values() if count is not None}),
        ("hash", {one.hash for _, one in found.values() if one is not None}),
    ):
        compacted = {one.compact_revision for _, one in found.values() if one is not None}
        if len(values) > 1 and (kind != "hash" or len(compacted) == 1):
            told = ", ".join(f"{name} {data}" for name, data in found.items())
            raise MemberFailed(
                f"the members' data differ at revision {revision} in their {kind}: {told}; stop "
                "here, and find the one that is wrong by what the others have"
            )
    return found


async def _read_data(client: EtcdClient, endpoint: Endpoint, revision: int) -> tuple[str, Data]:
    try:
        async with asyncio.timeout(HASH_SECONDS):
            return endpoint.name, await client.read_data(endpoint, revision)
    except (Transient, TimeoutError):  # one that is down is worked on first, and compared after
        return endpoint.name, (None, None)
