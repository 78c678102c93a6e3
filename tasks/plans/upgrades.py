"""The plan of an upgrade: each hop, one member at a time, followers first; and how it is undone.

Pure. A mixed cluster, and a downgrade that is under way, are states to go on from.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from tasks.model.inventory import Inventory
from tasks.model.plan import Plan, Stage, Step
from tasks.model.pods import etcd_pod
from tasks.model.upgrades import Translation, UpgradeSight
from tasks.plans.apiservers import CHANGED
from tasks.plans.upgrade_routes import V2_GONE, Hop, Minor, Route, format_minor, minor_of

BESIDE = Stage(1, "put the programs beside those that run")
IMAGES = Stage(1, "have the images on their nodes")
CANCEL = Stage(2, "call a downgrade off", is_serial=True)
RISE = Stage(3, "wait until the last hop is at its end", is_serial=True)
FIRST_HOP = 10
LAST = Stage(99, "remove what was put beside")
_MACHINES = {0x3E: "x86_64", 0xB7: "aarch64", 0x28: "armv7l", 0x15: "ppc64le", 0x16: "s390x"}
"""ELF's e_machine of what etcd is released for, as `uname -m` calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePrograms(Step):
    """Put a version's programs beside those that run, and see that they run there."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchImage(Step):
    """See that a node has the image that its static pod is to have."""

    image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelDowngrade(Step):
    """Call a downgrade off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableDowngrade(Step):
    """Let the cluster go down to a minor version, and wait until its data are written for that."""

    minor: Minor


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeMember(Step):
    """Give one member another version of etcd, and settings that it knows.

    `clears_log`: entries of the v2 store, if there are any in its log, go before, since the version
    ends for them. `successor` is who leads after it, if it leads.
    """

    version: str
    minor: Minor
    successor: str | None = None
    clears_log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EndV2Api(Step):
    """Give one member the settings of the next minor version, so that it serves no v2 API any more.

    `successor` is who leads after it, if it leads.
    """

    minor: Minor
    successor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitVersion(Step):
    """Wait until the cluster's own version is the minor version of all of its members."""

    minor: Minor


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareData(Step):
    """Compare all members' data, with each other and with what they were before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearPrograms(Step):
    """Remove what was put beside."""

    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What an upgrade does: the hops, and what becomes of each host's settings at each of them."""

    route: Route
    translations: Mapping[tuple[str, str], Translation] = field(default_factory=dict)
    """By host and version."""


def order_hosts(
    hosts: Collection[str], leader: str | None, first: Collection[str] = ()
) -> tuple[str, ...]:
    """Order the members of a hop: those that are down, the followers, the leader."""
    names = list(hosts)
    return tuple(sorted(names, key=lambda n: (n not in first, n == leader, names.index(n))))


def plan_upgrade(
    inventory: Inventory,
    hosts: Mapping[str, UpgradeSight],
    work: Work,
    cluster: Minor,
    leader: str | None,
    down: Collection[str] = (),
    warnings: tuple[str, ...] = (),
) -> Plan:
    """Plan all hops; nothing is to do where every member runs the version, and nothing is left."""
    goal, route = inventory.etcd.version, work.route
    steps: list[Step] = [
        _prepare(hosts[name], version)
        for version in route.versions
        for name in hosts
        if any(name in hop.hosts for hop in route.hops if hop.version == version)
    ]
    if route.cancels:
        said = f"call the downgrade to {route.cancels} off; members of the later version stay"
        steps.append(CancelDowngrade(stage=CANCEL, host=None, sentence=said))
        if not route.hops:
            steps.append(_await(CANCEL, minor_of(goal)))
    versions = {name: sight.version for name, sight in hosts.items()}
    hops = (*_leftovers(hosts, route), *route.hops)
    if route.rises:
        steps.append(_await(RISE, route.rises))
        cluster = route.rises
    for number, hop in enumerate(hops):
        stage = Stage(FIRST_HOP + number, f"{hop.title}, one member at a time", is_serial=True)
        if hop.enables:
            steps.append(_enable(stage, hop))
        order = order_hosts(hop.hosts, leader, down)
        ends = [
            _end_v2(stage, hop, name, _successor(order, name))
            for name in order
            if hosts[name].has_v2_api
            and not hosts[name].image
            and hop.minor >= V2_GONE > minor_of(versions[name])
        ]
        leader = _led_by(leader, ends)
        order = order_hosts(hop.hosts, leader, down)
        moves = [
            _upgrade(stage, hop, hosts[name], versions[name], work, _successor(order, name))
            for name in order
        ]
        leader = _led_by(leader, moves)
        steps += [*ends, *moves]
        versions |= dict.fromkeys(hop.hosts, hop.version)
        if hop.minor != cluster or hop.enables:
            steps.append(_await(stage, hop.minor))
            cluster = hop.minor
        said = (
            f"compare all members' data, also with what they were, after the hop to {hop.version}"
        )
        steps.append(CompareData(stage=stage, host=None, sentence=said))
    for name, sight in hosts.items():
        moved = not sight.image and any(name in h.hosts for h in route.hops)
        own = route.versions if moved else ()
        left = tuple(dict.fromkeys((*sight.staged, *own)))
        if left:
            said = f"remove what was put beside: {', '.join(left)}"
            steps.append(ClearPrograms(stage=LAST, host=name, sentence=said, versions=left))
    said = _goal(goal, versions, hops)
    return Plan("upgrade_cluster", inventory.name, said, tuple(steps), warnings if hops else ())


def _prepare(sight: UpgradeSight, version: str) -> Step:
    if sight.image:
        said = f"see that {sight.image} is there, pulled if it is not"
        return FetchImage(stage=IMAGES, host=sight.host, sentence=said, image=sight.image)
    said = f"put etcd {version} into {sight.beside(version)}, and see it run there"
    return StagePrograms(stage=BESIDE, host=sight.host, sentence=said, version=version)


def _goal(goal: str, versions: Mapping[str, str], hops: Sequence[Hop]) -> str:
    way = " -> ".join(dict.fromkeys(hop.version for hop in hops))
    if not hops:
        return f"every member runs etcd {goal}"
    return f"every member runs etcd {goal}; the way is {way}, {len(versions)} members"


def _leftovers(hosts: Mapping[str, UpgradeSight], route: Route) -> tuple[Hop, ...]:
    """Make a hop of no other version for members that a run has left changed, or out."""
    moved = {name for hop in route.hops for name in hop.hosts}
    left = [s for name, s in hosts.items() if (s.kept or s.taken_out) and name not in moved]
    return tuple(Hop(s.version, (s.host,), minor_of(s.version)) for s in left)


def _enable(stage: Stage, hop: Hop) -> EnableDowngrade:
    return EnableDowngrade(
        stage=stage,
        host=None,
        sentence=f"let the cluster go down to {format_minor(hop.minor)}; wait until every member's "
        "data are written for it",
        minor=hop.minor,
    )


def _successor(order: Sequence[str], name: str) -> str | None:
    return next((other for other in order if other != name), None)


def _led_by(leader: str | None, steps: Sequence[EndV2Api | UpgradeMember]) -> str | None:
    """Say who leads after steps that each move leadership away."""
    for step in steps:
        if step.host == leader and step.successor:
            leader = step.successor
    return leader


def _end_v2(stage: Stage, hop: Hop, name: str, successor: str | None) -> EndV2Api:
    return EndV2Api(
        stage=stage,
        host=name,
        sentence=f"end the v2 API of {name} before the hop to {hop.version}; its clients, and "
        f"/health while it is on, write what ends every member that runs {format_minor(hop.minor)} "
        "already; restart, wait until all are healthy",
        minor=hop.minor,
        successor=successor,
    )


def _await(stage: Stage, minor: Minor) -> AwaitVersion:
    said = f"wait until the cluster's version is {format_minor(minor)}"
    return AwaitVersion(stage=stage, host=None, sentence=said, minor=minor)


def _upgrade(
    stage: Stage, hop: Hop, sight: UpgradeSight, before: str, work: Work, successor: str | None
) -> UpgradeMember:
    to = minor_of(hop.version)
    clears = to >= V2_GONE and minor_of(before) < to
    parts = [f"bring {sight.host} from {before} to {hop.version}; not while it leads"]
    if clears and not sight.image and (sight.log.ends(to) or minor_of(sight.version) < (3, 5)):
        parts.append(
            f"where its log holds entries of the v2 store, for which {format_minor(to)} ends, let "
            "it save a snapshot of its log first (one more restart)"
        )
    done = work.translations.get((sight.host, hop.version))
    parts += [change.sentence for change in done.changes] if done else []
    if not sight.image:
        parts.append(f"exchange {sight.program}, restart, wait until all are healthy")
    elif before != hop.version:
        parts.append(
            f"take the manifests of its API server and of etcd out, make its image {sight.image} "
            f"(it is {sight.program}), put both back; its API server is {CHANGED}"
        )
    else:
        parts.append("put back in what a run has left out there")
    return UpgradeMember(
        stage=stage,
        host=sight.host,
        sentence="; ".join(parts),
        version=hop.version,
        minor=hop.minor,
        successor=successor,
        clears_log=clears and not sight.image,
    )


def is_of_hop(heading: str, version: str) -> bool:
    """Whether a serial step with this heading is of the hop to a version."""
    minor = format_minor(minor_of(version))
    return heading.endswith((f" to {version}", f" down to {minor}", f" version is {minor}"))


def written_places(sight: UpgradeSight, work: Work) -> tuple[PurePosixPath, ...]:
    """Name the settings' files that change on a host."""
    return tuple(
        PurePosixPath(file.path)
        for (host, _), done in work.translations.items()
        if host == sight.host and done.changes
        for file in done.files.files
        if file.text != sight.settings.text(file.path)
    )


def kept_places(sight: UpgradeSight) -> tuple[PurePosixPath, ...]:
    """Name where a static pod's manifest lies while it is out; nothing of other members."""
    return (etcd_pod(sight.real).kept,) if sight.image else ()


def find_architecture(content: bytes) -> str | None:
    """Say for which machine a program is, as `uname -m` calls it; None where it is none of ours."""
    if content[:4] != b"\x7fELF" or len(content) < 20:  # noqa: PLR2004 - e_machine's end
        return None
    (machine,) = struct.unpack_from("<H", content, 18)
    return _MACHINES.get(machine)
