"""A member that has begun anew under its old ids, which prove nothing; etcd's counts and data tell.

etcd computes both ids from the words of --initial-cluster and its token, so that a wiped first node
of kubeadm's, whose peers have no leader, comes up as a healthy cluster of itself alone, with the
cluster id and the member id that it had at first: where it has been replaced since, the others list
its node under another one. Its term and its index begin again at the bottom. Once it has outgrown
the others, only what they have in common tells: a member that went on from their data has all of it
that it did not change, at the same revisions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.model.pointers import pointer

if TYPE_CHECKING:
    from tasks.model.endpoints import EndpointHealth, EndpointStatus
    from tasks.model.snapshots import DataHash

COMPARED = 20
USUAL_NAME = "etcd-cluster"
"""Of --initial-cluster-token, where it is not given."""


@dataclass(frozen=True, slots=True)
class KeyState:
    """When a key was made and changed last, by revision, and how often."""

    created: int
    modified: int
    version: int


@dataclass(frozen=True, slots=True)
class Past:
    """What a member's data say of the time up to a revision; None where it does not tell.

    `keys` are those that it has not changed since, some of them; of the other member the same ones.
    """

    hash: DataHash | None
    keys: dict[bytes, KeyState]


def find_suspects(
    endpoints: Iterable[EndpointHealth],
) -> tuple[tuple[EndpointHealth, EndpointHealth], ...]:
    """List members that lead, or follow, without one of their cluster, each with the furthest such.

    They have begun anew, or the other one was removed, or is to be soon; `find_fork` tells which.
    """
    told = [(e, e.status) for e in endpoints if e.status is not None]
    found = []
    for one, own in told:
        ids = {member.id for member in one.members}
        if own.leader not in ids:
            continue
        others = [
            (status.raft_applied_index, each.name, each)
            for each, status in told
            if status.cluster_id == own.cluster_id
            and status.leader != own.leader
            and status.member_id not in ids
            and each.members
        ]
        if others:
            found.append((one, max(others)[-1]))
    return tuple(found)


def unchanged(keys: dict[bytes, KeyState], revision: int) -> dict[bytes, KeyState]:
    """Choose keys that were not changed since a revision: the newest, for first ones are alike."""
    old = [(state.modified, key) for key, state in keys.items() if state.modified <= revision]
    return {key: keys[key] for _, key in sorted(old)[-COMPARED:]}


def find_fork(own: Past, other: Past, revision: int) -> str:
    """Say in what two members' data differ up to a revision that both have; empty where they agree.

    Keys tell that one has not changed since, and hashes where both have compacted the same.
    """
    strange = [key for key, state in own.keys.items() if other.keys.get(key) != state]
    if strange:
        key = strange[0].decode(errors="backslashreplace")
        return (
            f"{len(strange)} of {len(own.keys)} keys that it wrote up to revision {revision} are "
            f"not so there, as {key}"
        )
    one, two = own.hash, other.hash
    if one and two and one.compact_revision == two.compact_revision and one.hash != two.hash:
        return (
            f"up to revision {revision} its data have the hash {one.hash:08x}, not {two.hash:08x}"
        )
    return ""


def first_id(peer_urls: Iterable[str], cluster: str = USUAL_NAME) -> int:
    """Compute the id of a member that began a cluster; one that is added has the time in its own.

    Source: computeMemberID of etcd's server/etcdserver/api/membership/member.go.
    """
    words = "".join(sorted(peer_urls)) + cluster
    # Etcd's way to an id, no seal.
    digest = hashlib.sha1(words.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big")


def find_newcomers(endpoints: Iterable[EndpointHealth]) -> dict[str, str]:
    """Find the members that lead a history of their own, by host, each with a sentence.

    One whose data were compared (`fork`), or that leads itself alone, while others list it among
    several and have counted further.
    """
    told = [(e, e.status) for e in endpoints if e.status is not None]
    found = {}
    for one, own in told:
        if one.fork:
            found[one.name] = (
                f"{one.name} has begun another history: {one.fork}; {_way_out(one.name)}"
            )
            continue
        if own.leader != own.member_id or [m.id for m in one.members] != [own.member_id]:
            continue
        others = [
            (each.name, status)
            for each, status in told
            if each is not one
            and status.cluster_id == own.cluster_id
            and len(each.members) > 1
            and _is_behind(own, status, is_listed=own.member_id in {m.id for m in each.members})
        ]
        if others:
            names = ", ".join(
                f"{name} (term {s.raft_term}, index {s.raft_index})" for name, s in others
            )
            found[one.name] = (
                f"{one.name} has begun another history, alone, at term {own.raft_term} and index "
                f"{own.raft_index}, and is not the member that {names} know: "
                f"{_way_out(one.name)}"
            )
    return found


def _is_behind(own: EndpointStatus, other: EndpointStatus, *, is_listed: bool) -> bool:
    """Whether one that is alone has counted less than one that is not alone.

    A removed member that campaigns counts terms, but commits nothing.
    """
    return other.raft_index > own.raft_index or (is_listed and other.raft_term > own.raft_term)


def _way_out(name: str) -> str:
    again = pointer("replace_member", member=[name])
    return (
        "what it acknowledges is not the cluster's. Stop its etcd, and the API server that lives "
        f"on it, bring the others back until they lead, then {again}"
    )
