"""The steps that give space back, and those that see how much there is and what fills it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from tasks.config.settings import read_settings
from tasks.engine.recording import journal_directory
from tasks.engine.run import Run, step
from tasks.etcd.client import SPACE_SECONDS, EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.etcd.keyspace import END
from tasks.etcd.prometheus import QUOTA
from tasks.etcd.recount import count_anew
from tasks.hosts.connection import HostConnection
from tasks.hosts.space import defragment_stopped_command, disk_room_command, parse_disk_room
from tasks.hosts.supervisors import supervisor
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import CommandFailed, MemberFailed, RunbookError, Unverified
from tasks.model.member_settings import SettingsFiles, parse_number
from tasks.model.members import AlarmType
from tasks.model.pointers import parameter
from tasks.model.space import DiskRoom, Freed, Prefix, SpaceRow, Survey, prefix_end, prefix_of, thin
from tasks.plans.health import DEFAULT_QUOTA
from tasks.plans.quotas import QUOTA_SETTING, tell_raise
from tasks.plans.space import CompactHistory, DisarmAlarms, SpaceSight, find_full, tell_full

SURVEY_SECONDS = 20.0
MOST_PREFIXES = 200
SAMPLED_KEYS = 4
MOST_SAMPLED = 64 << 20
"""Bytes of values that a survey reads, at most; etcd takes values of up to 1.5 MB."""
SETTLE_SECONDS = 60.0
SETTLE_POLL = 0.5
STILL = 0.01
"""Of a database's size: a change of what is in use that is none."""
AGAIN_SECONDS = 1.0
"""How long an alarm that was taken back is watched: writers that wait may raise it at once."""
API_SERVERS_KEY = b"compact_rev_key"
"""What kube-apiserver notes its own compactions under (storage/etcd3/compact.go)."""

REGISTRY = b"/registry/"
"""Where its keys are, unless --etcd-prefix says otherwise."""


@step("see the database's disk on {host}", retry_delays_seconds=())
async def see_disk_room(run: Run, host: HostConnection) -> DiskRoom:
    """See what is free where a member's database lies."""
    data = run.inventory.layout(host.name).data
    (result,) = await host.run(disk_room_command(data))
    return parse_disk_room(result)


@step("read the quota on {host}", retry_delays_seconds=())
async def read_quota(run: Run, host: HostConnection) -> int | None:
    """Read a member's quota from its settings, wherever they are written; None: not for certain."""
    own = supervisor(run.inventory.layout(host.name))
    (result,) = await host.run(own.settings_command())
    return quota_of(own.parse_settings(result))


def quota_of(files: SettingsFiles) -> int | None:
    """Tell a member's quota by its settings; None: not for certain."""
    settings = read_settings(files)
    if settings.faults:
        return None
    with suppress(ValueError):
        return parse_number(settings.value(QUOTA_SETTING, "0")) or DEFAULT_QUOTA
    return None


@step("read the quotas that members run with", retry_delays_seconds=())
async def read_running_quotas(
    _run: Run, client: EtcdClient, names: Collection[str]
) -> dict[str, int]:
    """Read these members' quotas from their metrics: what they run with, whatever files say."""

    async def read(endpoint: Endpoint) -> float:
        with suppress(RunbookError):
            return (await client.get_metrics(endpoint)).values.get(QUOTA, 0)
        return 0

    asked = [e for e in client.endpoints if e.name in names]
    found = await asyncio.gather(*map(read, asked))
    return {e.name: int(quota) for e, quota in zip(asked, found, strict=True) if quota}


@step("see what fills the database")
async def survey_keys(_run: Run, client: EtcdClient, endpoint: Endpoint) -> tuple[Survey, bool]:
    """Count keys by prefix and measure a sample of each; whether API servers compact it, too.

    Bounded in time, in prefixes and in what is read; a member's own data is asked, no quorum.
    """
    deadline = monotonic() + SURVEY_SECONDS
    total = await client.count_range(endpoint, END, END)
    # The first is noted only when an API server is five minutes old.
    counts = [
        await client.count_range(endpoint, API_SERVERS_KEY, API_SERVERS_KEY + b"\0"),
        await client.count_range(endpoint, REGISTRY, prefix_end(REGISTRY)),
    ]
    found: list[Prefix] = []
    start, read, is_whole = END, 0, True
    while (key := await client.first_key(endpoint, start)) is not None:
        prefix = prefix_of(key)
        end = prefix_end(prefix)
        keys = await client.count_range(endpoint, prefix, end)
        limit = SAMPLED_KEYS if read < MOST_SAMPLED else 0
        rows = await client.sample(endpoint, prefix, end, limit) if limit else ()
        read += sum(row.size for row in rows)
        each = max(len(rows), 1)
        found.append(
            Prefix(
                prefix.decode("utf-8", "backslashreplace"),
                keys,
                sum(row.size for row in rows) * keys // each,
                sum(row.version for row in rows) * keys // each,
                sum(row.version * row.size for row in rows) * keys // each,
            )
        )
        if end == END:
            break
        start = end
        if len(found) == MOST_PREFIXES or monotonic() > deadline:
            is_whole = sum(prefix.keys for prefix in found) >= total
            break
    found.sort(key=lambda one: (-one.size, -one.keys))
    return Survey(total, tuple(found), is_whole), any(counts)


@step("compact the history")
async def compact_history(run: Run, client: EtcdClient, planned: CompactHistory) -> bool:
    """Compact, and wait until every member has done its part of it; whether anything changed."""
    until = monotonic() + planned.after.total_seconds()
    while monotonic() < until:
        await asyncio.sleep(SETTLE_POLL)
        run.check_lock()
    asked = next(e for e in client.endpoints if not e.unreachable)
    changed = await client.compact(asked, planned.revision)
    deadline, before = monotonic() + SETTLE_SECONDS, await _in_use(client)
    while changed and monotonic() < deadline:
        await asyncio.sleep(SETTLE_POLL)
        run.check_lock()
        now = await _in_use(client)
        if all(abs(before.get(name, 0) - used) <= STILL * used for name, used in now.items()):
            break
        before = now
    return changed


@step("let the members count what is free", retry_delays_seconds=())
async def count_free(_run: Run, client: EtcdClient) -> None:
    """Make etcd count what a compaction has freed, while NOSPACE is raised."""
    await count_anew(client, next(e for e in client.endpoints if not e.unreachable))


async def _in_use(client: EtcdClient) -> dict[str, int]:
    found = await asyncio.gather(*map(client.get_status, client.endpoints))
    return {e.name: s.db_size_in_use for e, s in zip(client.endpoints, found, strict=True)}


@step("defragment {host}", retry_delays_seconds=())
async def defragment(run: Run, client: EtcdClient, host: HostConnection) -> Freed:
    """Let a member write its database anew.

    Raises Unverified when no answer comes and the member does not serve again: etcd goes on with
    what it has begun, whatever becomes of who asked. MemberFailed when it serves again with the
    database that it had.
    """
    endpoint = next(e for e in client.endpoints if e.name == host.name)
    before = await client.get_status(endpoint)
    began = monotonic()
    broken = None
    try:
        await client.defragment(endpoint)
    except RunbookError as error:
        broken = error.message
        await _wait_until_served(run, client, endpoint, broken)
    seconds = monotonic() - began
    run.check_lock()
    after = await client.get_status(endpoint)
    if broken and after.db_size >= before.db_size:
        raise MemberFailed(
            f"its defragmentation broke off ({broken}), and it serves again with the database that "
            "it had. Where etcd was ended, its journal or the kernel's (out of memory) says why; "
            f"with {parameter(stop_members=True)} etcd's own memory is free meanwhile",
            host=host.name,
        )
    return Freed(host.name, seconds, before.db_size, after.db_size)


async def _wait_until_served(run: Run, client: EtcdClient, endpoint: Endpoint, broken: str) -> None:
    """Wait until a member reads its data again, which it does not while it is written anew."""
    deadline = monotonic() + SETTLE_SECONDS
    while monotonic() < deadline:
        await asyncio.sleep(SETTLE_POLL)
        run.check_lock()
        with suppress(RunbookError):
            await client.first_key(endpoint, END)
            return
    raise Unverified(
        f"its defragmentation has not answered: {broken}. Where etcd runs it goes on by itself: "
        "when the member serves again, run this again; where it has ended, its journal says why",
        host=endpoint.name,
    )


@step("defragment {host} while it is stopped", retry_delays_seconds=())
async def defragment_stopped(run: Run, host: HostConnection) -> float:
    """Let a member's database be written anew while its etcd is stopped; returns the seconds.

    The host goes on with it, and starts etcd, whatever becomes of who asked. Raises MemberFailed
    where it has not been done; etcd is started with the database that it had.
    """
    command = defragment_stopped_command(run.inventory.layout(host.name))
    began = monotonic()
    try:
        await host.run(command, changes=True, timeout_seconds=SPACE_SECONDS)
    except CommandFailed as error:
        raise MemberFailed(
            f"its database was not written anew: {error.stderr.strip()}", host=host.name
        ) from error
    return monotonic() - began


@step("take the alarm NOSPACE back")
async def disarm_space(
    run: Run, client: EtcdClient, _planned: DisarmAlarms, seen: SpaceSight
) -> bool:
    """Take it back of every member that raised it, also of those that are none any more.

    Raises MemberFailed, with nothing changed, where a database is too near to its quota, and
    where the alarm comes back at once.
    """
    health = await client.observe_cluster()
    raised = [alarm for alarm in health.alarms if alarm.type is AlarmType.NOSPACE]
    statuses = {e.name: e.status for e in health.endpoints if e.status}
    if find_full(statuses, seen.limits):
        raise MemberFailed(tell_full(run.inventory, statuses, seen))
    asked = next(e for e in client.endpoints if not e.unreachable)
    for alarm in raised:
        await client.disarm(asked, alarm)
    await asyncio.sleep(AGAIN_SECONDS)
    again = await client.list_alarms(asked)
    if any(alarm.type is AlarmType.NOSPACE for alarm in again):
        raise MemberFailed(
            "the alarm NOSPACE was taken back and is raised again: clients fill the database as "
            "soon as they may. Stop those that the report names, or "
            f"{tell_raise(run.inventory, seen.limits.values())}"
        )
    return bool(raised)


def note_space(run: Run, health: ClusterHealth, quotas: Mapping[str, int]) -> None:
    """Note a look in the cluster's record; a disk that takes no note is no reason to fail."""
    statuses = [e.status for e in health.endpoints if e.status]
    if not statuses:
        return
    row = SpaceRow(
        datetime.now(UTC),
        max(status.revision for status in statuses),
        max(status.db_size for status in statuses),
        max(status.db_size_in_use for status in statuses),
        min(quotas.values(), default=None),
    )
    rows = thin((*read_space(run), row))
    with suppress(OSError):
        path = _path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{run.id}")
        new.write_text("".join(f"{_write(one)}\n" for one in rows))
        new.replace(path)


def read_space(run: Run) -> tuple[SpaceRow, ...]:
    """Read what earlier looks have noted, the oldest first; a line that is none is passed over."""
    found = []
    with suppress(OSError):
        for line in _path(run).read_text().splitlines():
            with suppress(ValueError, KeyError, TypeError):
                found.append(_read(json.loads(line)))
    return tuple(sorted(found, key=lambda row: row.at))


def _write(row: SpaceRow) -> str:
    return json.dumps(
        {
            "at": row.at.timestamp(),
            "revision": row.revision,
            "size": row.size,
            "in_use": row.in_use,
            "quota": row.quota,
        }
    )


def _read(line: dict[str, float]) -> SpaceRow:
    return SpaceRow(
        datetime.fromtimestamp(line["at"], UTC),
        int(line["revision"]),
        int(line["size"]),
        int(line["in_use"]),
        None if line["quota"] is None else int(line["quota"]),
    )


def _path(run: Run) -> Path:
    return journal_directory().parent / "space" / f"{run.inventory.name}.jsonl"
