"""A cluster as etcd itself tells of it: members, endpoints, alarms; and its arithmetic.

Ids are etcd's 64-bit numbers; `format_id` writes them as etcdctl does, in hexadecimal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


def format_id(number: int) -> str:
    """Write a member or cluster id as etcdctl does."""
    return f"{number:x}"


def quorum(voters: int) -> int:
    """How many voters must agree: a strict majority."""
    return voters // 2 + 1


@dataclass(frozen=True, slots=True)
class DesiredMember:
    """A member as the plan wants it; URLs as etcd gets them."""

    name: str
    peer_url: str
    client_url: str


@dataclass(frozen=True, slots=True)
class Member:
    """A row of etcd's member list; an added member that never started has no name."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool = False

    @property
    def is_started(self) -> bool:
        """Whether it has ever joined."""
        return bool(self.name)


@dataclass(frozen=True, slots=True)
class SeenMember:
    """A row of the member list, and how its endpoint answered.

    A voter is healthy when its /health is true; a learner when it answers for itself, since it
    serves nothing else. `applied` is its raft applied index.
    """

    member: Member
    is_healthy: bool
    is_leader: bool = False
    version: str | None = None
    applied: int = 0

    @property
    def label(self) -> str:
        """Its name, or for one that never started its id."""
        return self.member.name or f"the unstarted member {format_id(self.member.id)}"

    @property
    def peer_url(self) -> str:
        """The first URL at which its peers dial it."""
        return self.member.peer_urls[0] if self.member.peer_urls else ""

    @property
    def client_url(self) -> str:
        """The first URL that it tells its clients; empty until it has started."""
        return self.member.client_urls[0] if self.member.client_urls else ""

    @property
    def as_desired(self) -> DesiredMember:
        """It, as one that stays."""
        return DesiredMember(self.member.name, self.peer_url, self.client_url)


class AlarmType(StrEnum):
    """Etcd's alarms."""

    NOSPACE = "NOSPACE"
    CORRUPT = "CORRUPT"


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm and the member that raised it."""

    member_id: int
    type: AlarmType


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """An endpoint's answer to /v3/maintenance/status; sizes in bytes, leader 0 when none."""

    cluster_id: int
    member_id: int
    version: str
    leader: int
    raft_term: int
    raft_index: int
    raft_applied_index: int
    db_size: int
    db_size_in_use: int
    is_learner: bool = False
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """What one member's client endpoint answered; `error` says why a part is missing.

    `is_healthy` is /health, itself a linearizable read. `members` is this endpoint's own view.
    """

    name: str
    endpoint: str
    is_healthy: bool
    status: EndpointStatus | None = None
    members: tuple[Member, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterHealth:
    """All endpoints' answers, and whether a linearizable read worked on any of them."""

    endpoints: tuple[EndpointHealth, ...]
    reads_linearizable: bool

    def find_problems(self, expected: tuple[DesiredMember, ...]) -> tuple[str, ...]:
        """List what keeps this from being exactly the expected cluster in full health.

        Source: what etcd's /health does not show: members that answer for another cluster, a
        list that differs between members, a learner, a raised alarm, a lagging follower.
        """
        problems = [
            f"{e.name}: {e.error or 'is unhealthy'}"
            for e in self.endpoints
            if e.error or not e.is_healthy
        ]
        statuses = [(e.name, e.status) for e in self.endpoints if e.status is not None]
        for label, values in (
            ("cluster id", {format_id(s.cluster_id) for _, s in statuses}),
            ("leader", {format_id(s.leader) for _, s in statuses}),
        ):
            if len(values) > 1:
                problems.append(f"members disagree on the {label}: {', '.join(sorted(values))}")
        problems += [f"{name}: has no leader" for name, s in statuses if s.leader == 0]
        problems += [f"{name}: is still a learner" for name, s in statuses if s.is_learner]
        problems += [f"{name}: {text}" for name, s in statuses for text in s.errors]
        want = {(m.name, m.peer_url) for m in expected}
        for endpoint in self.endpoints:
            if not endpoint.members:
                continue
            seen = {(m.name, url) for m in endpoint.members for url in m.peer_urls}
            problems += [
                f"{endpoint.name}: its member list lacks {n} at {u}" for n, u in sorted(want - seen)
            ]
            problems += [
                f"{endpoint.name}: its member list has {n or 'an unstarted member'} at {u}, "
                "which the inventory does not have"
                for n, u in sorted(seen - want)
            ]
        alarms = {(a.member_id, a.type) for e in self.endpoints for a in e.alarms}
        problems += [f"alarm {kind} on member {format_id(i)}" for i, kind in sorted(alarms)]
        if not self.reads_linearizable:
            problems.append("no endpoint served a linearizable read")
        return tuple(problems)

    @property
    def leader_name(self) -> str | None:
        """The name of the member that is the leader, where one is agreed on and was reached."""
        for endpoint in self.endpoints:
            if endpoint.status and endpoint.status.leader == endpoint.status.member_id:
                return endpoint.name
        return None

    def seen_members(self) -> tuple[SeenMember, ...]:
        """List the members with the health of each, as the best informed endpoint lists them.

        That is the one that has applied most in the cluster to which most endpoints belong; one
        that answers for another cluster on a member's address is not healthy. None when nobody
        could be asked.
        """
        able = [e for e in self.endpoints if e.status and e.members]
        clusters = [e.status.cluster_id for e in able if e.status]
        if not clusters:
            return ()
        common = max(clusters, key=clusters.count)
        by_id = {
            e.status.member_id: e
            for e in self.endpoints
            if e.status and e.status.cluster_id == common
        }
        best = max(
            (e for e in able if e.status and e.status.cluster_id == common),
            key=lambda e: (e.is_healthy, e.status.raft_applied_index if e.status else 0),
        )
        found = []
        for member in best.members:
            endpoint = by_id.get(member.id)
            status = endpoint.status if endpoint else None
            serves = endpoint is not None and (
                not (status and status.errors)
                if member.is_learner
                else endpoint.is_healthy and not endpoint.error
            )
            found.append(
                SeenMember(
                    member,
                    serves,
                    is_leader=bool(status and status.leader == member.id),
                    version=status.version if status else None,
                    applied=status.raft_applied_index if status else 0,
                )
            )
        return tuple(found)
