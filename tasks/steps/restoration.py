"""The steps of a restore on its hosts, each of which looks whether it is done.

What is known of the snapshot is handed in: it may have been taken in the same run.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from time import monotonic

from tasks.engine.run import Run, step, together, unless
from tasks.etcd.client import HASH_SECONDS, EtcdClient
from tasks.hosts import files, isolated, pods, restores
from tasks.hosts.connection import HostConnection
from tasks.hosts.services import parse_last_words
from tasks.hosts.supervisors import supervisor
from tasks.model.errors import MemberFailed, RunbookError
from tasks.model.member_settings import TextFile
from tasks.model.members import DesiredMember, format_id
from tasks.model.observation import ServiceState
from tasks.model.restores import MARK, Mark, RestoreHost, RestoreSource, RestoreTools
from tasks.plans.rehearsal import Restored
from tasks.plans.restoration import MarkOpened, OpenMember, PlaceData, ProvideTools, StopMember

UPLOAD_SECONDS = RESTORE_SECONDS = 1800.0
SEE_SECONDS = 30.0
WATCH_SECONDS = 1.0
PROVE_SECONDS = 120.0


@step("see what a restore finds on {host}", retry_delays_seconds=(1.0,))
async def see_host(run: Run, host: HostConnection) -> RestoreHost:
    """See how far a restore is on a host; changes nothing.

    Also asks whether the runner may use a port there, which it will need: raises AccessRefused.
    """
    layout = run.inventory.layout(host.name)
    own = supervisor(layout)
    await host.forward("127.0.0.1", restores.isolated_port(layout))
    status, seen = await host.run(
        own.status_command(), restores.see_command(layout), timeout_seconds=SEE_SECONDS
    )
    return restores.parse_seen(host.name, seen, own.parse_status(status))


@step("stop the member on {host}", retry_delays_seconds=())
async def stop_member(run: Run, host: HostConnection, _step: StopMember) -> bool:
    """Stop a member and what lives on it, and what an earlier run has left in isolation."""
    layout = run.inventory.layout(host.name)
    if layout.is_pod:
        run.absences.leave(host.name, monotonic())
    _, stopped, _ = await host.run(
        restores.hasten_command(layout),
        supervisor(layout).stop_command(),
        restores.end_isolated_command(layout),
        changes=True,
        timeout_seconds=pods.LIMIT_SECONDS,
    )
    return files.parse_change(stopped)


@step("put etcd's programs on {host}")
async def provide_tools(
    run: Run,
    host: HostConnection,
    _step: ProvideTools,
    found: RestoreTools | None,
    programs: Mapping[str, bytes],
) -> bool:
    """Copy them out of the member's container, or from the runner."""
    if found is not None:
        await host.run(restores.copy_tools_command(found.directory), changes=True)
        return True
    changed = False
    for name, content in programs.items():
        changed |= await host.upload(
            content,
            restores.TOOLS / name,
            sha256=hashlib.sha256(content).hexdigest(),
            mode="0755",
            backup=run.inventory.paths.backups / run.backup,
        )
    return changed


@step("restore the snapshot beside the data on {host}")
async def ready_data(
    run: Run,
    host: HostConnection,
    *,
    seen: RestoreHost,
    tools: RestoreTools,
    source: RestoreSource,
    mark: Mark,
    members: tuple[DesiredMember, ...],
) -> bool:
    """Upload the snapshot and restore it there; the member's own data are not touched.

    After a failure something half-made is there, which the next attempt removes.
    """
    layout = run.inventory.layout(host.name)
    if source.at != host.name:
        await host.upload(
            source.file,
            restores.snapshot_path(seen.stage),
            sha256=source.file_sha256,
            mode="0600",
            backup=run.inventory.paths.backups / run.backup,
            timeout_seconds=UPLOAD_SECONDS,
        )
    own = next(m for m in members if m.name == host.name)
    words = (
        f"--name={own.member}",
        f"--initial-cluster={','.join(f'{m.member}={m.peer_url}' for m in members)}",
        f"--initial-cluster-token={mark.token}",
        f"--initial-advertise-peer-urls={own.peer_url}",
        *((f"--bump-revision={mark.raised}", "--mark-compacted") if mark.raised else ()),
    )
    await host.run(
        restores.ready_command(tools, seen.stage, layout.wal, seen.owner, words, _mark_file(mark)),
        changes=True,
        timeout_seconds=RESTORE_SECONDS,
    )
    return True


def _mark_file(mark: Mark) -> TextFile:
    return TextFile(MARK, mark.model_dump_json())


@step("put what is ready in place on {host}", retry_delays_seconds=())
async def place_data(
    run: Run, host: HostConnection, _step: PlaceData, *, stage: PurePosixPath
) -> bool:
    """Set the data in place aside, under the run's name, and put what is ready there."""
    layout = run.inventory.layout(host.name)
    (result,) = await host.run(
        restores.place_command(layout, stage, f"replaced-{run.backup}"), changes=True
    )
    return files.parse_change(result)


@step("start etcd where no client is on {host}", retry_delays_seconds=())
async def isolate_member(
    run: Run, host: HostConnection, *, seen: RestoreHost, tools: RestoreTools, own: DesiredMember
) -> bool:
    """Start etcd on the data in place, with its peers' port and one of the loopback."""
    layout = run.inventory.layout(host.name)
    words = (
        f"--data-dir={layout.data}",
        *((f"--wal-dir={layout.wal}",) if layout.wal else ()),
        f"--name={own.member}",
        f"--listen-peer-urls=https://{isolated.listening(own.peer_url)}:{layout.peer_port}",
        f"--initial-advertise-peer-urls={own.peer_url}",
        f"--initial-cluster={own.member}={own.peer_url}",
        *isolated.peer_words(layout),
        *isolated.client_words(layout, own),
    )
    await host.run(restores.isolate_command(layout, tools, seen.owner, words), changes=True)
    return True


async def watch_isolated(run: Run, hosts: tuple[HostConnection, ...]) -> None:
    """Watch isolated etcds until one has ended: raises MemberFailed with its last words."""

    async def look(host: HostConnection) -> None:
        unit = restores.isolated_unit(run.inventory.layout(host.name))
        try:
            (result,) = await host.run(unit.status_command(), timeout_seconds=15)
            status = unit.parse_status(result)
            if status is not None and status.state is ServiceState.ACTIVE:
                return
            (words,) = await host.run(restores.isolated_words_command(unit), timeout_seconds=15)
        except RunbookError:
            return  # whether it serves is asked another way
        raise MemberFailed(
            "etcd ended where no client reaches it, so none was let in; its last words: "
            f"{parse_last_words(words) or 'it logged nothing'}",
            host=host.name,
        )

    while True:
        await asyncio.sleep(WATCH_SECONDS)
        await together(map(look, hosts))


@step("see what was restored, before clients come", retry_delays_seconds=())
async def read_restored(
    run: Run,
    client: EtcdClient,
    members: tuple[DesiredMember, ...],
    hosts: tuple[HostConnection, ...],
) -> tuple[tuple[Restored, ...], frozenset[str]]:
    """Wait until the isolated members are one cluster; returns each one's data, and its ids.

    Raises MemberFailed when one ends, or they do not find each other.
    """
    await unless(watch_isolated(run, hosts), client.wait_until_healthy(members, PROVE_SECONDS))
    found = await client.observe_cluster()
    statuses = [e.status for e in found.endpoints if e.status]
    head = max(status.revision for status in statuses)
    patient = [replace(each, patience_seconds=HASH_SECONDS) for each in client.endpoints]
    data = await asyncio.gather(*(client.read_data(each, head) for each in patient))
    told = tuple(Restored(head, keys, data_hash) for keys, data_hash in data)
    return told, frozenset(format_id(status.cluster_id) for status in statuses)


@step("let clients in on {host}", retry_delays_seconds=())
async def open_member(run: Run, host: HostConnection, _step: OpenMember) -> bool:
    """End the isolated etcd, and start the member as it always starts; nobody waits."""
    layout = run.inventory.layout(host.name)
    _, result = await host.run(
        restores.end_isolated_command(layout),
        supervisor(layout).start_command(),
        changes=True,
        timeout_seconds=pods.LIMIT_SECONDS,
    )
    return files.parse_change(result)


@step("mark the restore as done on {host}")
async def mark_opened(run: Run, host: HostConnection, _step: MarkOpened, *, mark: Mark) -> bool:
    """Note beside the data that clients have been let in."""
    done = mark.model_copy(update={"opened": True})
    layout = run.inventory.layout(host.name)
    (result,) = await host.run(restores.mark_command(layout, _mark_file(done)), changes=True)
    return files.parse_change(result)
