"""A member three ways: what its files say, what runs, and what the cluster reports of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from tasks.model.member_settings import CLIENT_ADDRESSES, PEER_ADDRESSES, Settings
from tasks.model.members import SeenMember, format_id
from tasks.model.nodes import Mounts

NAME, PEER_URLS, CLIENT_URLS = "name", PEER_ADDRESSES[0], CLIENT_ADDRESSES[0]
CLUSTER = "initial-cluster"
FIRST_START = frozenset({CLUSTER, "initial-cluster-state", "initial-cluster-token"})
"""Read at a member's first start only, so that what they say may be of long ago."""


@dataclass(frozen=True, slots=True)
class MemberSight:
    """One host's member: where its settings are, what they say, and what runs.

    `process` is None where none runs; of one in a pod `mounts` tell where its paths lie.
    """

    host: str
    source: str
    written: Settings
    process: Settings | None
    version: str | None
    mounts: Mounts | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One setting three ways; empty where nothing is said. `mark` says what is the matter."""

    name: str
    written: str
    runs: str
    reported: str
    mark: str = ""


def compare_member(sight: MemberSight, listed: tuple[SeenMember, ...]) -> tuple[Row, ...]:
    """Put a member's settings side by side, those that differ first."""
    own = find_entry(sight, listed)
    runs = sight.process or Settings()
    reported = {
        CLUSTER: _sorted(f"{m.member.name}={url}" for m in listed for url in m.member.peer_urls)
    }
    if own is not None:
        reported |= {
            NAME: own.member.name,
            PEER_URLS: _sorted(own.member.peer_urls),
            CLIENT_URLS: _sorted(own.member.client_urls),
        }
    names = sorted({*sight.written, *runs, *(n for n, value in reported.items() if value)})
    rows = [
        _row(sight, name, runs, reported.get(name, "")) for name in names if "password" not in name
    ]
    return tuple(sorted(rows, key=lambda row: not row.mark))


def _row(sight: MemberSight, name: str, runs: Settings, reported: str) -> Row:
    written, running = sight.written.value(name), runs.value(name)
    marks = []
    if sight.process is not None and written != running:
        marks.append("what runs has another value than its files")
    # Where the member does not say, etcd advertises its own default.
    said = running if sight.process is not None else written
    if reported and said and _sorted(said.split(",")) != reported:
        other = "the cluster has it otherwise"
        marks.append(f"{other}; read at a first start only" if name in FIRST_START else other)
    return Row(
        name, _shown(sight, name, written), _shown(sight, name, running), reported, "; ".join(marks)
    )


def _shown(sight: MemberSight, name: str, value: str) -> str:
    """Write a value; a path in a container with the one on the host, where that is another."""
    is_path = value.startswith("/") and (name.endswith(("-file", "-dir")))
    if sight.mounts is None or not is_path:
        return value
    there = sight.mounts.on_host(PurePosixPath(value))
    if there == PurePosixPath(value):
        return value
    return f"{value} (on the host {there or 'nowhere'})"


def _sorted(parts: Iterable[str]) -> str:
    return ",".join(sorted(part.strip() for part in parts))


def find_entry(sight: MemberSight, listed: tuple[SeenMember, ...]) -> SeenMember | None:
    """Find a host's member in the list: by the host, or by the name that its settings have."""
    name = (sight.process or sight.written).value(NAME)
    by_host = next((m for m in listed if m.host == sight.host), None)
    return by_host or next((m for m in listed if m.member.name == name), None)


def describe(sight: MemberSight, own: SeenMember | None) -> str:
    """Say in one line what a host's member is and does."""
    runs = "does not run"
    if sight.process is not None:
        runs = f"etcd {sight.version or 'of an unknown version'} runs"
    if own is None:
        return f"{sight.host}: {sight.source}; {runs}; the member list has no such member"
    role = "leader" if own.is_leader else "learner" if own.member.is_learner else "follower"
    health = role if own.is_healthy else "not healthy"
    return f"{sight.host}: {sight.source}; {runs}; member {format_id(own.member.id)}, {health}"
