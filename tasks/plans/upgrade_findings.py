"""What forbids an upgrade, or is to be weighed, found before anything is touched. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tasks.model.cluster import ClusterHealth
from tasks.model.members import AlarmType, DesiredMember, quorum
from tasks.model.nodes import NodeObservation
from tasks.model.plan import Finding, Severity
from tasks.model.pointers import parameter
from tasks.model.upgrades import Accept, UpgradeSight
from tasks.plans.health import DEFAULT_QUOTA
from tasks.plans.upgrade_routes import (
    ADVISED,
    V2_GONE,
    Minor,
    format_minor,
    minor_of,
    parse_version,
)
from tasks.plans.upgrades import Work

NEAR, FULL = 0.8, 0.95
"""Shares of the quota: told, and refused, for an upgrade must be able to write."""
PROGRAMS_BYTES = 300 << 20
"""Of a version's programs, beside and in place."""
LOG_BYTES = 150 << 20
"""Of two segments of etcd's log, which it makes in advance, and some growth of the data."""

_WAYS_OUT = {AlarmType.NOSPACE: "reclaim_space", AlarmType.CORRUPT: "repair_corruption"}

Refuse = Callable[[str | None, str], Finding]
Weigh = Callable[[str | None, str, Accept], Finding]


@dataclass(frozen=True, slots=True)
class Weighed:
    """All that was seen; `clients` are the requests that the v2 API has had, by host.

    `removed` are the members that a host's data note as removed. `nodes` are those whose pods the
    members are, and `against` what was found of them, and who owns their version.
    """

    goal: str
    members: tuple[DesiredMember, ...]
    health: ClusterHealth
    cluster: Minor
    hosts: Mapping[str, UpgradeSight]
    work: Work
    absent: Mapping[str, str] = field(default_factory=dict)
    surprises: tuple[str, ...] = ()
    clients: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    nodes: tuple[NodeObservation, ...] = ()
    against: tuple[Finding, ...] = ()


def noted_sentence(names: tuple[str, ...]) -> str:
    """Say what it means that a member's data note others, or itself, as removed."""
    return (
        f"its data note {', '.join(names)} as removed, as 3.5.26 to 3.5.30 do where they read all "
        "of a log of 3.4: 3.6 turns such members away, and they end for good; restore_cluster with "
        "a snapshot writes the data anew"
    )


def find_down(seen: Weighed) -> frozenset[str]:
    """Name the hosts whose member is down and has been begun with: it is what comes first.

    Another version is on its disk than what any other member runs still below it.
    """
    healthy = {e.name for e in seen.health.endpoints if e.is_healthy and not e.error}
    low = [s.running for name, s in seen.hosts.items() if name in healthy and s.running]
    lowest = min(low, key=parse_version, default=None)
    return frozenset(
        name
        for name, sight in seen.hosts.items()
        if name not in healthy
        and (sight.kept or sight.taken_out or (sight.disk or lowest) != lowest)
    )


def find_findings(seen: Weighed, accept: Collection[Accept]) -> tuple[Finding, ...]:
    """List all; what may be accepted is a warning once it is."""

    def refuse(host: str | None, sentence: str) -> Finding:
        return Finding(Severity.REFUSAL, host, sentence)

    def weigh(host: str | None, sentence: str, what: Accept) -> Finding:
        if what in accept:
            return Finding(Severity.WARNING, host, sentence)
        return refuse(host, f"{sentence}; with {parameter(accept=[what.value])} it is done")

    found = [refuse(name, f"cannot be upgraded: {why}") for name, why in seen.absent.items()]
    found += seen.against
    found += [refuse(None, sentence) for sentence in _members(seen)]
    if not seen.work.route.hops:
        return tuple(found)
    found += [refuse(None, sentence) for sentence in seen.surprises]
    moved = {name for hop in seen.work.route.hops for name in hop.hosts}
    for name, sight in seen.hosts.items():
        if name in moved:
            found += [refuse(name, sentence) for sentence in _host(seen, sight)]
            found += _settings(name, seen, weigh, refuse)
            if sight.owner:
                said = (
                    f"{sight.real} is of the package {sight.owner}, which writes its own version "
                    "back when it is upgraded; hold it (apt-mark hold, dnf versionlock)"
                )
                found.append(weigh(name, said, Accept.PACKAGE))
    found += [refuse(name, noted_sentence(gone)) for name, gone in seen.removed.items()]
    found += _log(seen, refuse)
    found += _clients(seen, weigh)
    found += _size(seen)
    left, count = len(seen.members) - 1, len(seen.members)
    if left < quorum(count):
        said = f"{count} member(s) cannot lose one: nothing is served while one restarts"
        found.append(weigh(None, said, Accept.OUTAGE))
    found += _advice(seen)
    return tuple(found)


def _members(seen: Weighed) -> Iterable[str]:
    down = find_down(seen)
    yield from (
        f"{problem}; bring it back first, or let replace_member replace it"
        if problem.partition(":")[0] in seen.hosts
        else problem
        for problem in seen.health.find_faults(seen.members)
        if problem.partition(":")[0] not in down
    )
    yield from (
        f"{told}; {_WAYS_OUT[alarm.type]} leads out of it"
        for alarm, told in zip(seen.health.alarms, seen.health.find_alarms(), strict=True)
    )


def _host(seen: Weighed, sight: UpgradeSight) -> Iterable[str]:
    versions = sum(sight.host in hop.hosts for hop in seen.work.route.hops)
    for what, free, needed in (
        ("programs", sight.free, versions * PROGRAMS_BYTES),
        ("data", sight.data_free, LOG_BYTES),
    ):
        if free < needed:
            yield f"{free >> 20} MB are free beside its {what}, and {needed >> 20} are needed"
    if not sight.version:
        yield f"{sight.program or 'its program'} does not tell its version"


def _settings(name: str, seen: Weighed, weigh: Weigh, refuse: Refuse) -> Iterator[Finding]:
    for (host, version), done in seen.work.translations.items():
        if host == name:
            yield from (refuse(name, f"for etcd {version}: {fault}") for fault in done.faults)
            if done.changes and not done.faults:
                said = "; ".join(change.sentence for change in done.changes)
                yield weigh(name, f"for etcd {version}, {said}", Accept.SETTINGS)


def _crosses(seen: Weighed) -> bool:
    """Whether a version without a v2 store follows one that has it."""
    to = max((minor_of(hop.version) for hop in seen.work.route.hops), default=(0, 0))
    return seen.cluster < V2_GONE <= to


def _log(seen: Weighed, refuse: Refuse) -> Iterator[Finding]:
    for hop in seen.work.route.hops:
        for name in hop.hosts:
            sight, to = seen.hosts[name], minor_of(hop.version)
            if not sight.image or not minor_of(sight.version) < to >= V2_GONE:
                continue
            if sight.has_v2_api and to == V2_GONE:
                said = "it serves the v2 API, whose writes end members of 3.6; take --enable-v2 out"
                yield refuse(name, f"{said} of its manifest first")
            if sight.log.ends(to):
                yield refuse(
                    name,
                    f"its log holds what etcd {format_minor(to)} ends for, of the v2 store, and of "
                    "a static pod's etcd no snapshot of it is forced; it is read no more once etcd "
                    "has saved one by itself, each --snapshot-count of entries: a smaller one in "
                    "its manifest lets that come sooner",
                )
    if not _crosses(seen):
        return
    for name, sight in seen.hosts.items():
        if sight.log.has_keys:
            yield refuse(
                name,
                "the v2 store holds keys, for which etcd 3.6 does not start; read them out, and "
                "remove them by the v2 API (ETCDCTL_API=2 etcdctl rm --recursive, with enable-v2 "
                "on), and let etcd save a snapshot of its log",
            )
        elif sight.log.writes:
            yield Finding(
                Severity.WARNING,
                name,
                "its log holds writes of the v2 API's clients; if a key is left of them the run "
                "ends before 3.6, on 3.5",
            )


def _clients(seen: Weighed, weigh: Weigh) -> Iterator[Finding]:
    if not _crosses(seen):
        return
    for name, count in seen.clients.items():
        said = (
            f"clients have spoken the v2 API there ({count} requests since its start); 3.6 has "
            "none, and they fail from then on"
        )
        yield weigh(name, said, Accept.V2_CLIENTS)


def _size(seen: Weighed) -> Iterable[Finding]:
    for endpoint in seen.health.endpoints:
        if endpoint.status is None:
            continue
        sight = seen.hosts.get(endpoint.name)
        quota = endpoint.status.db_quota or (sight.quota if sight else 0) or DEFAULT_QUOTA
        share = endpoint.status.db_size / quota
        if share >= NEAR:
            said = (
                f"its database has {endpoint.status.db_size >> 20} MB of a quota of "
                f"{quota >> 20}; reclaim_space gives room"
            )
            yield Finding(
                Severity.REFUSAL if share >= FULL else Severity.WARNING, endpoint.name, said
            )


def _advice(seen: Weighed) -> Iterable[Finding]:
    goal = minor_of(seen.goal)
    versions = {name: sight.version for name, sight in seen.hosts.items()}
    for hop in seen.work.route.hops:
        versions |= dict.fromkeys(hop.hosts, hop.version)
        advised = ADVISED.get(minor_of(hop.version))
        if advised and minor_of(hop.version) < goal and parse_version(hop.version) < advised:
            yield Finding(
                Severity.WARNING,
                None,
                f"etcd asks for {'.'.join(map(str, advised))} before "
                f"{format_minor((goal[0], hop.minor[1] + 1))}, and the way is over {hop.version}; "
                "what is known against that is healed here",
            )
    foreign = [name for name, sight in seen.hosts.items() if not sight.is_own_unit]
    if foreign:
        yield Finding(
            Severity.WARNING,
            None,
            f"{', '.join(foreign)}: another tool than these runbooks has written how etcd starts; "
            f"it writes the old version back when it runs again: say {seen.goal} "
            "there, too (kubespray: etcd_version)",
        )
