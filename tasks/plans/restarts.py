"""What the next restart of each member, and the next boot of its host, would change."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from tasks.model.restarts import NextStart, RunningEtcd, StartObservation

# Read at a member's first start only.
_FIRST_START_ONLY = frozenset(
    {
        "ETCD_INITIAL_CLUSTER",
        "ETCD_INITIAL_CLUSTER_STATE",
        "ETCD_INITIAL_CLUSTER_TOKEN",
        "ETCD_INITIAL_ADVERTISE_PEER_URLS",
    }
)
_BOOTS = frozenset({"enabled", "enabled-runtime", "static", "alias", "generated", "indirect"})


class Surprise(IntEnum):
    """How bad a difference is, the worst first."""

    NO_START = 0
    VERSION = 1
    SETTINGS = 2
    BOOT = 3
    IGNORED = 4
    REMARK = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that would be otherwise after the next start; `sentence` names the host."""

    host: str
    kind: Surprise
    sentence: str


def find_differences(seen: tuple[StartObservation, ...]) -> tuple[Difference, ...]:
    """Compare what runs with what would start on every host, the worst first.

    A member below the cluster's minor version does not start, nor one that skips a minor; the
    cluster's is the least that runs.
    """
    minors = [
        _minor(host.running.version) for host in seen if host.running and host.running.version
    ]
    found = [
        Difference(host.host, kind, sentence)
        for host in seen
        for kind, sentence in _differences(host, min(minors, default=None))
    ]
    return tuple(sorted(found, key=lambda each: (each.kind, each.host)))


def _minor(version: str) -> tuple[int, int]:
    major, minor = map(int, version.split(".")[:2])
    return major, minor


def _differences(
    host: StartObservation, cluster: tuple[int, int] | None
) -> list[tuple[Surprise, str]]:
    start = f"{host.host} would not start again"
    found = [(Surprise.NO_START, f"{start}: {reason}") for reason in _obstacles(host, cluster)]
    change = f"the next restart of {host.host} will change"
    if host.running and host.next.program:
        found += [(kind, f"{change}: {what}") for kind, what in _changes(host.running, host.next)]
    found += [(Surprise.IGNORED, f"{host.host}: {what}") for what in host.next.ignored]
    found += [
        (Surprise.IGNORED if "ETCD_" in what else Surprise.REMARK, f"{host.host}: {what}")
        for what in host.next.skipped
    ]
    if host.unit_file_state not in _BOOTS and host.running:
        state = host.unit_file_state or "not enabled"
        found.append(
            (
                Surprise.BOOT,
                f"{host.host} would not start etcd at its next boot: {host.unit} is {state}; "
                f"on {host.host}: systemctl {'unmask' if 'masked' in state else 'enable'} "
                f"{host.unit}",
            )
        )
    if host.needs_daemon_reload:
        found.append(
            (
                Surprise.BOOT,
                f"{host.host}: {host.unit} has changed since systemd read it, so the next boot "
                f"starts another unit than a restart; on {host.host}: systemctl daemon-reload",
            )
        )
    return found


def _obstacles(host: StartObservation, cluster: tuple[int, int] | None) -> list[str]:
    if "masked" in host.unit_file_state:
        return [f"{host.unit} is masked"]
    reasons = [f"there is no {path}" for path in (*host.unread, *host.next.missing_files)]
    reasons += host.next.faults
    there = host.next.version
    if there is None and _is_etcd(host.next):
        reasons.append(f"{host.next.program} is missing or does not run")
    if there is None or cluster is None:
        return reasons
    if _minor(there) < cluster:
        reasons.append(
            f"{host.next.program} is etcd {there}, below the {cluster[0]}.{cluster[1]} that the "
            "cluster runs"
        )
    elif _minor(there) > (cluster[0], cluster[1] + 1):
        reasons.append(
            f"{host.next.program} is etcd {there}, and the cluster runs {cluster[0]}.{cluster[1]}: "
            "a minor version cannot be skipped"
        )
    return reasons


def _is_etcd(start: NextStart) -> bool:
    """Whether the unit starts etcd itself, and no script that would."""
    return start.program.rpartition("/")[2] == "etcd"


def _changes(running: RunningEtcd, start: NextStart) -> list[tuple[Surprise, str]]:
    changes = []
    if _is_etcd(start) and start.version and start.version != running.version:
        changes.append((Surprise.VERSION, f"etcd {running.version} becomes {start.version}"))
    elif running.is_replaced:
        changes.append((Surprise.REMARK, f"{start.program} is another file than the one that runs"))
    is_literal = not any("$" in argument for argument in start.arguments)
    if _is_etcd(start) and is_literal and running.arguments != start.arguments:
        have, want = " ".join(running.arguments), " ".join(start.arguments)
        changes.append((Surprise.SETTINGS, f"the arguments {have!r} become {want!r}"))
    for name in sorted({*running.environment, *start.environment} - _FIRST_START_ONLY):
        before, after = running.environment.get(name), start.environment.get(name)
        if before != after and "PASSWORD" not in name:
            changes.append((Surprise.SETTINGS, f"{name} from {_shown(before)} to {_shown(after)}"))
    return changes


def _shown(value: str | None) -> str:
    return "unset" if value is None else repr(value)
