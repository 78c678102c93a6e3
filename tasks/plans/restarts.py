"""What the next restart of each member, and the next boot of its host, would change."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from tasks.model.member_settings import CLIENT_ADDRESSES, PEER_ADDRESSES, variable_name
from tasks.model.restarts import NextStart, RunningEtcd, StartObservation, Trust

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


TRUST = "trusted authorities"
PROGRAM = "program"
"""What `Difference.about` says of them, of the latter where it is of another version."""

ADDRESSES = frozenset(map(variable_name, (*PEER_ADDRESSES, *CLIENT_ADDRESSES)))
"""What a change of a member's address writes, by variable; `Difference.about` says flags so too."""

RESTARTING = frozenset({Surprise.NO_START, Surprise.VERSION, Surprise.SETTINGS})
"""What a restart brings about; the rest is of the next boot, or harmless."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that would be otherwise after the next start; `sentence` names the host.

    `about` is the variable that differs, or the file that is not there; of several, in a command's
    arguments, they are joined by blanks.
    """

    host: str
    kind: Surprise
    sentence: str
    about: str = ""

    def is_of(self, written: frozenset[str]) -> bool:
        """Whether it is of nothing but these."""
        return bool(self.about) and (self.about in written or set(self.about.split()) <= written)


def find_differences(seen: tuple[StartObservation, ...]) -> tuple[Difference, ...]:
    """Compare what runs with what would start on every host, the worst first.

    A member below the cluster's minor version does not start, nor one that skips a minor; the
    cluster's is the least that runs.
    """
    minors = [
        _minor(host.running.version) for host in seen if host.running and host.running.version
    ]
    found = [
        Difference(host.host, kind, sentence, about)
        for host in seen
        for kind, sentence, about in _differences(host, min(minors, default=None))
    ]
    return tuple(sorted(found, key=lambda each: (each.kind, each.host)))


def find_against(found: tuple[Difference, ...], written: frozenset[str]) -> tuple[Difference, ...]:
    """List the differences that forbid a restart: those that it would bring, and the run does not.

    `written` are the variables and files, by name, that the run itself writes.
    """
    return tuple(each for each in found if each.kind in RESTARTING and not each.is_of(written))


def _minor(version: str) -> tuple[int, int]:
    major, minor = map(int, version.split(".")[:2])
    return major, minor


def _differences(
    host: StartObservation, cluster: tuple[int, int] | None
) -> list[tuple[Surprise, str, str]]:
    start = f"{host.host} would not start again"
    found = [
        (Surprise.NO_START, f"{start}: {reason}", about)
        for reason, about in _obstacles(host, cluster)
    ]
    change = f"the next restart of {host.host} will change"
    if host.running and host.next.program:
        found += [
            (kind, f"{change}: {what}", about)
            for kind, what, about in _changes(host.running, host.next)
        ]
    if host.trust is not None:
        found += _other_trust(host.host, host.trust)
    found += [(Surprise.IGNORED, f"{host.host}: {what}", "") for what in host.next.ignored]
    found += [
        (Surprise.IGNORED if "ETCD_" in what else Surprise.REMARK, f"{host.host}: {what}", "")
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
                "",
            )
        )
    if host.needs_daemon_reload:
        found.append(
            (
                Surprise.BOOT,
                f"{host.host}: {host.unit} has changed since systemd read it, so the next boot "
                f"starts another unit than a restart; on {host.host}: systemctl daemon-reload",
                "",
            )
        )
    return found


def _other_trust(host: str, trust: Trust) -> list[tuple[Surprise, str, str]]:
    """Compare what a process has loaded with its files; names alone do not tell all."""
    held = tuple(dict.fromkeys(trust.held.values()))
    loaded = [names for names in trust.loaded if names not in held]
    if loaded and held:
        have = " and ".join(map(_counted, loaded))
        want = "; ".join(f"{path} has {_counted(names)}" for path, names in trust.held.items())
        sentence = (
            f"the next restart of {host} will change: the authorities that it trusts are {have}, "
            f"and {want} now; where a rotation was left half-done, rotate_authority goes on"
        )
        return [(Surprise.SETTINGS, sentence, TRUST)]
    return [
        (
            Surprise.REMARK,
            f"{host}: {path} was changed after the start of its etcd, which reads it then alone; "
            "it names the same authorities, and whether they are the same is not seen",
            "",
        )
        for path in trust.changed
    ]


def _counted(names: tuple[str, ...]) -> str:
    """Name authorities; two of the same name are told as two."""
    counts = {name: names.count(name) for name in names}
    told = [name if count == 1 else f"{count} of {name}" for name, count in counts.items()]
    return ", ".join(told) or "none"


def _obstacles(host: StartObservation, cluster: tuple[int, int] | None) -> list[tuple[str, str]]:
    if "masked" in host.unit_file_state:
        return [(f"{host.unit} is masked; on {host.host}: systemctl unmask {host.unit}", "")]
    reasons = [(f"there is no {path}", path) for path in (*host.unread, *host.next.missing_files)]
    reasons += [(fault, "") for fault in host.next.faults]
    there = host.next.version
    if there is None and _is_etcd(host.next):
        reasons.append((f"{host.next.program} is missing or does not run", ""))
    if there is None or cluster is None:
        return reasons
    runs = f"{cluster[0]}.{cluster[1]}"
    if _minor(there) < cluster:
        below = f"{host.next.program} is etcd {there}, below the {runs} that the cluster runs"
        reasons.append((below, PROGRAM))
    elif _minor(there) > (cluster[0], cluster[1] + 1):
        skips = f"the cluster runs {runs}: a minor version cannot be skipped"
        reasons.append((f"{host.next.program} is etcd {there}, and {skips}", PROGRAM))
    return reasons


def _is_etcd(start: NextStart) -> bool:
    """Whether the unit starts etcd itself, and no script that would."""
    return start.program.rpartition("/")[2] == "etcd"


def _changes(running: RunningEtcd, start: NextStart) -> list[tuple[Surprise, str, str]]:
    changes = []
    if _is_etcd(start) and start.version and start.version != running.version:
        becomes = f"etcd {running.version} becomes {start.version}"
        changes.append((Surprise.VERSION, becomes, PROGRAM))
    elif running.is_replaced:
        other = f"{start.program} is another file than the one that runs"
        changes.append((Surprise.REMARK, other, ""))
    is_literal = not any("$" in argument for argument in start.arguments)
    if _is_etcd(start) and is_literal and running.arguments != start.arguments:
        have, want = " ".join(running.arguments), " ".join(start.arguments)
        before, after = _flags(running.arguments), _flags(start.arguments)
        names = {variable_name(name) for name, _ in before ^ after}
        about = " ".join(sorted(names - _FIRST_START_ONLY))
        # What else there is to differ, such as the order, is told as well.
        if not names or names - _FIRST_START_ONLY:
            changes.append((Surprise.SETTINGS, f"the arguments {have!r} become {want!r}", about))
    for name in sorted({*running.environment, *start.environment} - _FIRST_START_ONLY):
        old, new = running.environment.get(name), start.environment.get(name)
        if old != new and "PASSWORD" not in name:
            what = f"{name} from {_shown(old)} to {_shown(new)}"
            changes.append((Surprise.SETTINGS, what, name))
    return changes


def _flags(arguments: tuple[str, ...]) -> set[tuple[str, str]]:
    """Take flags and their values apart, written with `=` or as two arguments."""
    found: list[tuple[str, str]] = []
    for argument in arguments:
        if argument.startswith("-"):
            name, _, value = argument.lstrip("-").partition("=")
            found.append((name, value))
        elif found:
            found[-1] = (found[-1][0], argument)
    return set(found)


def _shown(value: str | None) -> str:
    return "unset" if value is None else repr(value)
