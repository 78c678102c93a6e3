"""The way from what runs to a version: one minor version at a time, over versions that are safe.

Pure. Which version a hop takes is what the inventory has programs of; what is missing is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.pointers import pointer
from tasks.model.snapshots import Manifest

Version = tuple[int, int, int]
Minor = tuple[int, int]

LEAST: dict[Minor, Version] = {(3, 5): (3, 5, 26), (3, 6): (3, 6, 11)}
"""What every member runs at least before the next minor version.

Below, 3.6 finds members that were removed, or learners that were promoted, and ends
(etcd#19557, #20793); 3.7 takes no member of a 3.6 before 3.6.11 (etcd's upgrade guide).
"""
ADVISED: dict[Minor, Version] = {(3, 5): (3, 5, 32)}
"""What etcd's upgrade guide asks for, where less is enough here."""
NEVER: frozenset[Version] = frozenset({(3, 5, 0), (3, 5, 1), (3, 5, 2), (3, 5, 6), (3, 5, 23)})
"""Releases that lose data, crash in a defragmentation, or were called back."""
V2_GONE: Minor = (3, 6)
"""The first without a v2 store: entries of it in the log, also others', end its members."""
DOWNGRADES_FROM: Minor = (3, 6)
"""The first whose cluster can be brought back to the one before."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One version for some members; `enables` the downgrade that it needs, `rises` the cluster's.

    `minor` is the cluster's version when all of the hop is done.
    """

    version: str
    hosts: tuple[str, ...]
    minor: Minor
    enables: bool = False

    @property
    def title(self) -> str:
        """Its part of a stage's title."""
        return f"to {self.version}"


@dataclass(frozen=True, slots=True)
class Route:
    """All hops; `cancels`: a downgrade that is under way, to this version, is called off first.

    `rises`: what the cluster's own version is about to become, since all members run it; a run has
    died between hops. A member two above it, or one below what it becomes, would end.
    """

    hops: tuple[Hop, ...]
    cancels: str | None = None
    rises: Minor | None = None

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version whose programs are needed, each once."""
        return tuple(dict.fromkeys(hop.version for hop in self.hops))


def parse_version(text: str) -> Version:
    """Take 3.5.16 apart; raises ValueError."""
    major, minor, patch = map(int, text.split("."))
    return major, minor, patch


def minor_of(text: str) -> Minor:
    """Get the minor version of 3.5.16, or of 3.5."""
    major, minor = map(int, text.split(".")[:2])
    return major, minor


def format_minor(minor: Minor) -> str:
    """Write 3.5."""
    return f"{minor[0]}.{minor[1]}"


def find_route(
    running: Mapping[str, str],
    cluster: Minor,
    goal: str,
    known: Iterable[str],
    downgrades_to: Minor | None = None,
    *,
    by_images: bool = False,
    way_back: str = "",
) -> Route:
    """Find the hops from what each host runs to a version.

    `cluster` is the cluster's own version, `known` the versions that there are programs of, and
    `downgrades_to` what a downgrade under way ends at. `by_images`: there are none, for a pod's
    image is changed. Raises Refused, with all that is missing, or with `way_back` where etcd has
    none.
    """
    way = _Way(dict(running), tuple(known), goal, by_images=by_images)
    wanted = minor_of(goal)
    if parse_version(goal) in NEVER:
        raise Refused(f"etcd {goal} is a release that must not be run; choose a later one")
    if way.is_there:
        return Route((), _cancelled(downgrades_to, wanted))
    cancels, lowest = _cancelled(downgrades_to, wanted), min(map(minor_of, running.values()))
    rises = lowest if lowest > cluster and (cancels or downgrades_to is None) else None
    cluster = rises or cluster
    if wanted >= cluster:
        for minor in _minors(cluster, wanted):
            # The data may not be written for it yet where a run died right after it began.
            way.go_up(minor, enables=minor == downgrades_to)
        return way.end(cancels, rises)
    if has_no_way_back(cluster, goal):
        raise Refused(
            f"the cluster runs {format_minor(cluster)}, and etcd brings none back to "
            f"{format_minor(wanted)}: its members would end with 'cannot be downgraded'. The way "
            "back is a snapshot from before, which loses every write since it was taken"
            + (f": {way_back}" if way_back else "")
        )
    if any(minor_of(version) > cluster for version in running.values()):
        way.go_down(cluster, enables=False)
    for minor in reversed(_minors(wanted, (cluster[0], cluster[1] - 1))):
        way.go_down(minor, enables=True)
    return way.end(None, rises)


def has_no_way_back(cluster: Minor, goal: str) -> bool:
    """Whether etcd brings no cluster of a minor version back to a version."""
    return minor_of(goal) < min(cluster, (DOWNGRADES_FROM[0], DOWNGRADES_FROM[1] - 1))


def way_back_sentence(inventory: Inventory, saved: Manifest | None) -> str:
    """Say what leads back where etcd does not: the newest snapshot from before, if there is one."""
    goal = inventory.etcd.version
    if saved is None:
        return f"the store has none of {format_minor(minor_of(goal))}"
    back = pointer(
        "restore_cluster",
        cluster=inventory.name,
        snapshot=saved.file,
        consent=inventory.name,
        accept=["old-revisions"],
    )
    return (
        f"the newest is {saved.file}, of {saved.taken:%Y-%m-%d %H:%M}Z. On each host put the "
        f"programs of {goal} in place (`install` does, under what runs), and restart nothing; what "
        f"an upgrade has replaced lies there under {inventory.paths.backups}. Then {back}; it "
        "raises no revisions, so restart every client that watches afterwards"
    )


def _cancelled(downgrades_to: Minor | None, wanted: Minor) -> str | None:
    if downgrades_to is None or downgrades_to >= wanted:
        return None
    return format_minor(downgrades_to)


def _minors(first: Minor, last: Minor) -> list[Minor]:
    return [(first[0], number) for number in range(first[1], last[1] + 1)]


class _Way:
    """What runs after the hops so far."""

    def __init__(
        self, state: dict[str, str], known: tuple[str, ...], goal: str, *, by_images: bool
    ) -> None:
        self._state = state
        self._known = known
        self._goal = goal
        self._by_images = by_images
        self._hops: list[Hop] = []
        self._missing: list[str] = []

    @property
    def is_there(self) -> bool:
        return all(version == self._goal for version in self._state.values())

    def end(self, cancels: str | None, rises: Minor | None) -> Route:
        if self._missing:
            of = "image" if self._by_images else "programs"
            raise Refused(
                f"the inventory has no {of} for the way to "
                f"{self._goal}, one minor version at a time:\n  - " + "\n  - ".join(self._missing)
            )
        return Route(tuple(self._hops), cancels, rises)

    def go_up(self, minor: Minor, *, enables: bool) -> None:
        if minor == minor_of(self._goal):
            hosts = [h for h, version in self._state.items() if version != self._goal]
            self._add(self._goal, hosts, minor, enables=enables)
            return
        least = LEAST.get(minor, (*minor, 0))
        low = [
            host
            for host, version in self._state.items()
            if (seen := parse_version(version)) < least or (seen[:2] == minor and seen in NEVER)
        ]
        self._add(self._pick(minor), low, minor)

    def go_down(self, minor: Minor, *, enables: bool) -> None:
        is_last = minor == minor_of(self._goal)
        high = [h for h, version in self._state.items() if minor_of(version) > minor]
        if is_last:
            high = [h for h, version in self._state.items() if version != self._goal]
        self._add(self._goal if is_last else self._pick(minor), high, minor, enables=enables)

    def _add(
        self, version: str | None, hosts: list[str], minor: Minor, *, enables: bool = False
    ) -> None:
        if not hosts and not enables:
            return
        if version is None:
            least = LEAST.get(minor)
            advised = ADVISED.get(minor, least)
            asked = f" from {_text(least)} on" if least else ""
            better = f" ({_text(advised)} is what etcd asks for)" if advised != least else ""
            name = (
                f"name one{asked}{better} with its programs and their SHA-256 under etcd.versions"
            )
            if self._by_images:
                name = f"make one{asked}{better} etcd.version first, with its image"
            self._missing.append(
                f"etcd {format_minor(minor)}: {name}; {', '.join(hosts)} must run it before the "
                "next one"
            )
            return
        if version == self._goal and version not in self._known and not self._by_images:
            self._missing.append(
                f"etcd {version}: etcd.binaries does not say where its programs are (source "
                "archive or directory)"
            )
        self._hops.append(Hop(version, tuple(hosts), minor, enables=enables))
        self._state |= dict.fromkeys(hosts, version)

    def _pick(self, minor: Minor) -> str | None:
        least = LEAST.get(minor, (*minor, 0))
        able = [
            version
            for version in self._known
            if minor_of(version) == minor
            and parse_version(version) >= least
            and parse_version(version) not in NEVER
        ]
        return max(able, key=parse_version, default=None)


def _text(version: Version | None) -> str:
    return ".".join(map(str, version or ()))
