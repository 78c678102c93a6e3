"""The survivor of a lost majority: its log, a copy of its data that runs alone, its snapshot."""

from __future__ import annotations

import asyncio
import base64
import gzip
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tasks.engine.run import Run, step
from tasks.etcd.client import HASH_SECONDS, POLL_SECONDS, EtcdClient
from tasks.etcd.databases import digest_file
from tasks.etcd.logs import LogSegment, LogUnreadable, commit_record, read_log
from tasks.etcd.snapshots import CHECKSUM_BYTES
from tasks.hosts import isolated, restores
from tasks.hosts.connection import HostConnection
from tasks.model.errors import EtcdUnavailable, MemberFailed
from tasks.model.members import DesiredMember
from tasks.model.restores import LogEnd, RestoreHost, RestoreSource, RestoreTools
from tasks.model.snapshots import Manifest
from tasks.plans.rehearsal import Restored

REPLAY_SECONDS = 600.0
COPY_SECONDS = 1800.0
LOG_SECONDS = 120.0
TAILS = (8, 1 << 20)
"""MiB of a log's end: etcd takes requests of 1.5 MiB, unless it was told to take larger ones."""


@step("read the end of the log on {host}", retry_delays_seconds=(1.0,))
async def read_log_end(run: Run, host: HostConnection) -> LogEnd | None:
    """Read where a member's write-ahead log ends; None where there is none to be read."""
    try:
        end, _ = await _read_end(run, host)
    except LogUnreadable:
        return None
    return end


async def _read_end(run: Run, host: HostConnection) -> tuple[LogEnd, LogSegment]:
    """Read the last megabytes of a log, or all of it where these do not do; and its newest file."""
    layout = run.inventory.layout(host.name)
    for mebibytes in TAILS:
        command = restores.log_command(layout, mebibytes)
        (result,) = await host.run(command, timeout_seconds=LOG_SECONDS)
        segments = tuple(map(_segment, result.stdout.splitlines()))
        try:
            return await asyncio.to_thread(read_log, segments), segments[-1]
        except LogUnreadable:
            if mebibytes == TAILS[-1]:
                raise
    raise LogUnreadable("it was not read")


def _segment(line: str) -> LogSegment:
    name, size, start, head, tail = line.split()
    begin, end = (gzip.decompress(base64.b64decode(text)) for text in (head, tail))
    return LogSegment(name, int(size), begin, end, int(start))


@step("run a copy of the data alone on {host}", retry_delays_seconds=())
async def replay(
    run: Run, host: HostConnection, *, seen: RestoreHost, tools: RestoreTools, own: DesiredMember
) -> bool:
    """Copy a stopped member's data, let all of its log count, and run etcd on the copy alone.

    The member's own data are read, and nothing else.
    """
    layout = run.inventory.layout(host.name)
    copy = _copy(seen)
    await host.run(
        restores.copy_data_command(layout, copy), changes=True, timeout_seconds=COPY_SECONDS
    )
    end, newest = await _read_end(run, host)
    frame = base64.b64encode(commit_record(end)).decode()
    words = (
        f"--data-dir={copy}",
        f"--name={own.member}",
        "--force-new-cluster",
        f"--listen-peer-urls=http://127.0.0.1:{restores.isolated_port(layout) + 1}",
        f"--initial-advertise-peer-urls={own.peer_url}",
        f"--initial-cluster={own.member}={own.peer_url}",
        *isolated.client_words(layout, own),
    )
    await host.run(
        restores.extend_log_command(copy, newest.name, end.offset, newest.size, frame),
        restores.isolate_command(layout, tools, seen.owner, words),
        changes=True,
    )
    return True


@step("see what the copy has", retry_delays_seconds=())
async def read_replayed(run: Run, client: EtcdClient) -> Restored:
    """Wait until etcd serves the copy, alone, and ask for its keys and hash at its head.

    Raises EtcdUnavailable.
    """
    del run
    (endpoint,) = client.endpoints
    clock = asyncio.get_running_loop().time
    deadline = clock() + REPLAY_SECONDS
    while True:
        try:
            status = await client.get_status(endpoint)
            if status.leader:
                await client.read_linearizable(endpoint)
                break
        except EtcdUnavailable:
            if clock() > deadline:
                raise
        await asyncio.sleep(POLL_SECONDS)
    status = await client.get_status(endpoint)
    patient = replace(endpoint, patience_seconds=HASH_SECONDS)
    keys, data_hash = await client.read_data(patient, status.revision)
    return Restored(status.revision, keys, data_hash)


@step("take a snapshot of the survivor on {host}", retry_delays_seconds=())
async def save_replayed(
    run: Run,
    host: HostConnection,
    *,
    seen: RestoreHost,
    found: Restored,
    manifest: Manifest,
    directory: Path,
) -> RestoreSource:
    """End etcd on the copy, and take its database as the snapshot, to a directory of the runner.

    What etcd itself would stream is the same file, but through JSON and a tunnel: minutes of two
    gigabytes. It stays on the host, too, where it is to be restored.
    """
    layout = run.inventory.layout(host.name)
    snapshot = restores.snapshot_path(seen.stage)
    _, sealed = await host.run(
        restores.end_gracefully_command(layout),
        restores.seal_command(_copy(seen), snapshot),
        changes=True,
        timeout_seconds=COPY_SECONDS,
    )
    size, sha256, file_sha256 = sealed.stdout.split()
    file = directory / "snapshot.db"
    await host.download(snapshot, file, size=int(size), timeout_seconds=COPY_SECONDS)
    if await asyncio.to_thread(digest_file, file) != file_sha256:
        raise MemberFailed("what arrived of the snapshot has another SHA-256", host=host.name)
    return RestoreSource(
        file=file,
        file_sha256=file_sha256,
        told=f"what {host} has",
        size=int(size) - CHECKSUM_BYTES,
        sha256=sha256,
        revision=found.revision,
        keys=found.keys,
        manifest=manifest,
        at=host.name,
    )


@step("remove the copy on {host}")
async def end_replay(run: Run, host: HostConnection, *, seen: RestoreHost) -> bool:
    """End etcd on the copy of the survivor's data, and remove the copy."""
    layout = run.inventory.layout(host.name)
    await host.run(
        restores.end_isolated_command(layout),
        restores.discard_copy_command(_copy(seen)),
        changes=True,
    )
    return True


def _copy(seen: RestoreHost) -> PurePosixPath:
    return seen.stage.with_name(f"{seen.stage.name}-replay")
