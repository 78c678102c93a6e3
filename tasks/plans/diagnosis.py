"""What an expert would ask for first, each with what is normal and what it means. Pure.

Sources: etcd's hardware and tuning pages (10 ms for the log's disk, a heartbeat of the round trip),
its metrics page, and its own warnings' limits (100 ms for an apply).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.model.cluster import ClusterHealth
from tasks.model.diagnosis import COMMIT, FSYNC, Line, MemberMetrics, State, quantile
from tasks.model.expiry import ClusterCheck
from tasks.model.members import format_id
from tasks.model.observation import ClockReading

LIMITS = {
    FSYNC: (
        0.01,
        "log written (p99)",
        "a slow disk: heartbeats come late, leaders are lost; etcd wants an SSD of its own",
    ),
    COMMIT: (0.025, "database written (p99)", "a slow disk, or one that others use, too"),
}
"""Seconds, what it is, what a larger value means."""
ROUND_TRIP_SECONDS = 0.05
READ_SECONDS = 0.1
SOON = timedelta(days=30)
CLOCK_SECONDS = 1.0
CHANGES_A_DAY = 3.0
SLOW_AN_HOUR = 60
FILES_SHARE = 0.8
PENDING = 100

_HARMLESS = "database space exceeded"
_LOGGED = {
    "apply request took too long": "requests wait for the disk, the processor, or large ranges",
    "slow fdatasync": "the disk of the log is slow",
    "failed to send out heartbeat on time": "the leader is starved of disk or processor",
    "lost leader": "elections: look at round trips, disks and the processor",
    "elected leader": "elections: look at round trips, disks and the processor",
    "rejected connection": "somebody comes with a certificate that is not accepted",
    "prober detected unhealthy status": "a peer is away, or its port is shut",
    "dropped internal Raft message": "a peer's network or disk does not keep up",
    "request cluster ID mismatch": "a member of another cluster, or one restored alone, calls here",
    "waiting for ReadIndex response took too long": "no leader, or a slow one",
    _HARMLESS: "the quota is reached: reclaim_space",
}
_NO_LOG = "etcd was down, logs elsewhere (log-outputs) or less (log-level), or it cannot be read"


@dataclass(frozen=True, slots=True)
class Sights:
    """All that was seen, by host; what is missing could not be seen, with the reason in `silent`.

    `reads` are seconds of a linearizable read; `problems` what check_health would fail for.
    """

    health: ClusterHealth
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    metrics: Mapping[str, MemberMetrics]
    reads: Mapping[str, float]
    logs: Mapping[str, Mapping[str, int] | None]
    clocks: tuple[ClockReading, ...]
    certificates: ClusterCheck | None
    starts: tuple[tuple[bool, str], ...]
    silent: Mapping[str, str]
    now: datetime


def diagnose(seen: Sights) -> tuple[Line, ...]:
    """Tell all, the worst first."""
    lines = [
        *_cluster(seen),
        *_reads(seen),
        *(line for name, one in seen.metrics.items() for line in _member(name, one, seen)),
        *_logs(seen),
        *_clocks(seen),
        *_certificates(seen),
        *_starts(seen),
        *_unseen(seen),
    ]
    return tuple(sorted(lines, key=lambda line: line.state))


def _cluster(seen: Sights) -> Iterable[Line]:
    health = seen.health
    healthy = sum(e.is_healthy for e in health.endpoints)
    total = len(health.endpoints)
    needed = total // 2 + 1
    yield Line(
        State.NORMAL if healthy == total else State.BAD,
        "members healthy",
        "cluster",
        f"{healthy} of {total}",
        f"{total}",
        "all have the quorum's ear"
        if healthy == total
        else f"{needed} are needed for a quorum: it {'serves' if healthy >= needed else 'is lost'}",
    )
    versions = Counter(e.status.version for e in health.endpoints if e.status)
    if versions:
        yield Line(
            State.NORMAL if len(versions) == 1 else State.NOTABLE,
            "version",
            "cluster",
            ", ".join(f"{version} ({count})" for version, count in versions.items()),
            "one",
            "an upgrade that was begun: end it" if len(versions) > 1 else "all run the same",
        )
    yield Line(
        State.NORMAL if health.leader_name else State.BAD,
        "leader",
        "cluster",
        health.leader_name or "none is seen",
        "one",
        "who leads takes every write",
    )
    for text in seen.problems:
        where, _, what = text.partition(": ")
        known = where in {e.name for e in health.endpoints}
        first = (what if known else text).splitlines()[0]
        yield Line(State.BAD, "problem", where if known else "cluster", first, "none", "see to it")
    for text in seen.remarks:
        if text.startswith("space: "):
            said = text.removeprefix("space: ").splitlines()[0]
            yield Line(State.NORMAL, "space", "cluster", said, "below 80% of the quota", "")


def _reads(seen: Sights) -> Iterable[Line]:
    for name, seconds in seen.reads.items():
        yield _compare(
            "linearizable read",
            name,
            seconds,
            READ_SECONDS,
            "the way to the member, its leader and a quorum, from this runner",
        )


def _member(name: str, found: MemberMetrics, seen: Sights) -> Iterable[Line]:
    for metric, (limit, what, meaning) in LIMITS.items():
        seconds = found.quantile(metric)
        if seconds is not None:
            yield _compare(what, name, seconds, limit, meaning)
    names = {format_id(m.id): m.name for e in seen.health.endpoints for m in e.members if m.name}
    names |= {format_id(e.status.member_id): e.name for e in seen.health.endpoints if e.status}
    for peer, buckets in found.peers.items():
        seconds = quantile(buckets, 0.99)
        if seconds is not None:
            yield _compare(
                "round trip (p99)",
                f"{name} to {names.get(peer, peer)}",
                seconds,
                ROUND_TRIP_SECONDS,
                "above half of the heartbeat interval (100 ms by default) elections come",
            )
    yield from _counters(name, found, seen.now)


def _counters(name: str, found: MemberMetrics, now: datetime) -> Iterable[Line]:
    values = found.values
    hours = max((now.timestamp() - values.get("process_start_time_seconds", 0)) / 3600, 1.0)
    since = f"in {hours:.0f} h"

    def count(metric: str, what: str, limit: float, normal: str, meaning: str) -> Iterable[Line]:
        if metric in values:
            value = values[metric]
            state = State.NOTABLE if value > limit else State.NORMAL
            yield Line(state, what, name, f"{value:.0f} {since}", normal, meaning)

    yield from count(
        "etcd_server_leader_changes_seen_total",
        "leader changes",
        max(CHANGES_A_DAY * hours / 24, CHANGES_A_DAY),
        f"below {CHANGES_A_DAY:.0f} a day",
        "each one is a moment without writes",
    )
    yield from count(
        "etcd_server_slow_apply_total",
        "slow applies",
        SLOW_AN_HOUR * hours,
        f"below {SLOW_AN_HOUR} an hour",
        "requests that took over 100 ms: disk, processor, or large ranges",
    )
    yield from count(
        "etcd_server_heartbeat_send_failures_total",
        "late heartbeats",
        hours,
        "none",
        "the leader is starved of disk or processor",
    )
    yield from count(
        "etcd_server_proposals_failed_total",
        "failed proposals",
        10 * hours,
        "few, by elections",
        "writes that found no leader or no quorum",
    )
    if (pending := values.get("etcd_server_proposals_pending")) is not None:
        state = State.NOTABLE if pending > PENDING else State.NORMAL
        meaning = "writes that wait: load, or a slow quorum"
        yield Line(state, "pending proposals", name, f"{pending:.0f}", f"below {PENDING}", meaning)
    opened, most = values.get("process_open_fds"), values.get("process_max_fds")
    if opened is not None and most:
        state = State.NOTABLE if opened > FILES_SHARE * most else State.NORMAL
        limit = f"below {FILES_SHARE:.0%} of {most:.0f}"
        yield Line(state, "open files", name, f"{opened:.0f}", limit, "connections, mostly")
    if (memory := values.get("process_resident_memory_bytes")) is not None:
        value = f"{memory / (1 << 20):.0f} MiB"
        yield Line(State.NORMAL, "memory", name, value, "two or three databases", "")


def _logs(seen: Sights) -> Iterable[Line]:
    for name, counts in seen.logs.items():
        if counts is None:
            if name not in seen.silent:
                yield Line(State.UNKNOWN, "log, last hour", name, "not seen", "", _NO_LOG)
            continue
        if not counts:
            yield Line(State.NORMAL, "log, last hour", name, "nothing of note", "", "")
        for word, number in counts.items():
            state = State.NOTABLE if number > 1 else State.NORMAL
            meaning = _LOGGED.get(word, "")
            yield Line(state, "log, last hour", name, f"{number} times: {word}", "none", meaning)


def _clocks(seen: Sights) -> Iterable[Line]:
    for clock in seen.clocks:
        away = max(abs(clock.clock_offset) - clock.clock_uncertainty, 0.0)
        state = State.NORMAL if away < CLOCK_SECONDS else State.NOTABLE
        value, normal = f"{clock.clock_offset:+.2f} s", f"within {CLOCK_SECONDS:g} s"
        meaning = "against the runner's; certificates and leases go by clocks"
        yield Line(state, "clock", clock.host, value, normal, meaning)


def _certificates(seen: Sights) -> Iterable[Line]:
    if seen.certificates is None:
        return
    for finding in seen.certificates.critical:
        first = finding.sentence.splitlines()[0]
        yield Line(State.BAD, "certificate", finding.host, first, "", "check_certificates has all")
    ends = [(row.not_after, row) for row in seen.certificates.rows if row.not_after is not None]
    if not ends:
        return
    not_after, row = min(ends, key=lambda one: one[0])
    left = not_after - seen.now
    yield Line(
        State.NORMAL if left > SOON else State.NOTABLE,
        "first certificate to end",
        row.host,
        f"{row.label} in {left.days} days",
        f"over {SOON.days} days",
        "rotate_certificates renews without a restart",
    )


def _starts(seen: Sights) -> Iterable[Line]:
    if not seen.starts and len(seen.silent) < len(seen.health.endpoints):
        yield Line(State.NORMAL, "next restart", "cluster", "changes nothing", "", "")
    for severe, text in seen.starts:
        where, _, what = text.partition(": ")
        state = State.BAD if severe else State.NOTABLE
        yield Line(
            state, "next restart", where, what or text, "nothing", "what would start differs"
        )


def _unseen(seen: Sights) -> Iterable[Line]:
    for name, why in seen.silent.items():
        yield Line(State.UNKNOWN, "host", name, "not seen", "", why.splitlines()[0])
    for endpoint in seen.health.endpoints:
        if endpoint.name not in seen.metrics:
            yield Line(
                State.UNKNOWN, "metrics", endpoint.name, "not seen", "", "the member does not serve"
            )


def _compare(what: str, where: str, seconds: float, limit: float, meaning: str) -> Line:
    state = State.NORMAL if seconds <= limit else State.NOTABLE
    value, normal = f"{seconds * 1000:.1f} ms", f"below {limit * 1000:g} ms"
    return Line(state, what, where, value, normal, meaning)
