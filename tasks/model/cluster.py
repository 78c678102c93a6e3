"""A cluster as etcd itself tells of it: members, endpoints, alarms; and its arithmetic.

Three questions are asked of a member, and have three answers. Is it *up*: does etcd answer for
itself, in this cluster? Is it *healthy*: does it have the quorum's ear, so that it counts for one?
*May it write*: is no alarm in the way? A full database (NOSPACE) is up and healthy; it serves
reads, deletes, changes of the members and of the leader.

Ids are etcd's 64-bit numbers; `format_id` writes them as etcdctl does, in hexadecimal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tasks.model.histories import find_newcomers
from tasks.model.pointers import pointer


def format_id(number: int) -> str:
    """Write a member or cluster id as etcdctl does."""
    return f"{number:x}"


def quorum(voters: int) -> int:
    """How many voters must agree: a strict majority."""
    return voters // 2 + 1


@dataclass(frozen=True, slots=True)
class DesiredMember:
    """A member as the plan wants it; URLs as etcd gets them.

    `name` is its host's in the inventory, by which runbooks and reports call it; `member` is
    etcd's own name for it, where that is another.
    """

    name: str
    peer_url: str
    client_url: str
    member: str = ""

    def __post_init__(self) -> None:
        if not self.member:
            object.__setattr__(self, "member", self.name)


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


class AlarmType(StrEnum):
    """Etcd's alarms: a database at its quota, and data that differs between members."""

    NOSPACE = "NOSPACE"
    CORRUPT = "CORRUPT"


_MEANINGS = {
    AlarmType.NOSPACE: "its database has reached its quota; the cluster takes no writes, and does "
    "all else",
    AlarmType.CORRUPT: "its data differs from the other members'",
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm and the member that raised it; 3.5 may name none (0)."""

    member_id: int
    type: AlarmType


@dataclass(frozen=True, slots=True)
class SeenMember:
    """A row of the member list, and how its endpoint answered.

    A voter is healthy when it serves linearizable reads; a learner, which serves none, when it
    hears a leader. Alarms do not make it ill: `alarms` are those of the cluster that this member
    raised. `applied` is its raft applied index. `host` is where the inventory has it; of one that
    it does not have, the member's own name.
    """

    member: Member
    is_healthy: bool
    is_leader: bool = False
    version: str | None = None
    applied: int = 0
    answers: bool = False
    alarms: frozenset[AlarmType] = frozenset()
    host: str = ""

    def __post_init__(self) -> None:
        if not self.host:
            object.__setattr__(self, "host", self.member.name)

    @property
    def is_up(self) -> bool:
        """Whether its etcd answers for itself, in this cluster."""
        return self.answers or self.is_healthy

    @property
    def label(self) -> str:
        """Its name and, where that is another, its host's; for one that never started its id."""
        if not self.member.name:
            return f"the unstarted member {format_id(self.member.id)}"
        own = self.member.name
        return own if own == self.host else f"{own} on {self.host}"

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
        return DesiredMember(self.host, self.peer_url, self.client_url, self.member.name)


def label_members(members: Sequence[SeenMember]) -> str:
    """List members with their ids, since one that was replaced has its successor's name."""
    started = sorted(f"{m.label} ({format_id(m.member.id)})" for m in members if m.member.name)
    return ", ".join([*started, *(m.label for m in members if not m.member.name)])


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """An endpoint's answer to /v3/maintenance/status; sizes in bytes, leader 0 when none.

    `alarms` are the cluster's, as this member knows them; `errors` are what else it complains of.
    `db_quota`, `storage_version` and `downgrades_to`, the version that a downgrade under way is to
    end at, are told from 3.6 on.
    """

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
    alarms: tuple[Alarm, ...] = ()
    db_quota: int | None = None
    revision: int = 0
    storage_version: str | None = None
    downgrades_to: str | None = None


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """What one member's client endpoint answered; `error` says why a part is missing.

    `is_healthy`: it has the quorum's ear: a linearizable read works there (`reads`), or /health,
    which is one, whatever alarms are raised. `members` is this endpoint's own view. `rbac` says
    why etcd's authentication hides what is asked. `name` is its host's, `member` what etcd shall
    call it. `fork` says in what its data are another history than another member's.
    """

    name: str
    endpoint: str
    is_healthy: bool
    status: EndpointStatus | None = None
    members: tuple[Member, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    error: str | None = None
    rbac: str | None = None
    reads: bool = False
    member: str = ""
    fork: str = ""

    @property
    def label(self) -> str:
        """Its member's name and, where that is another, its host's."""
        return self.name if self.member in ("", self.name) else f"{self.member} on {self.name}"

    @property
    def is_up(self) -> bool:
        """Whether its etcd answers for itself."""
        return self.is_healthy or self.status is not None

    @property
    def may_write(self) -> bool:
        """Whether a write that is sent there would be taken."""
        is_learner = self.status is not None and self.status.is_learner
        return self.is_healthy and not is_learner and not self.alarms


@dataclass(frozen=True, slots=True)
class ClusterHealth:
    """All endpoints' answers, and whether a linearizable read worked on any of them."""

    endpoints: tuple[EndpointHealth, ...]
    reads_linearizable: bool

    def find_problems(self, expected: tuple[DesiredMember, ...]) -> tuple[str, ...]:
        """List what keeps this from being exactly the expected cluster in full health."""
        return (*self.find_faults(expected), *self.find_alarms())

    def find_faults(self, expected: tuple[DesiredMember, ...]) -> tuple[str, ...]:
        """List what keeps the expected members from being up and together; no alarms.

        Source: what etcd's /health does not show: members that answer for another cluster, a
        list that differs between members, a learner, a lagging follower.
        """
        if self.rbac:
            return (self.rbac,)
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
        problems += find_newcomers(self.endpoints).values()
        problems += self._list_differences(expected)
        if not self.reads_linearizable:
            problems.append("no endpoint served a linearizable read")
        return tuple(dict.fromkeys(problems))

    def _list_differences(self, expected: tuple[DesiredMember, ...]) -> list[str]:
        """Tell each difference between the lists and the inventory once, with who tells it."""
        want = {(m.member, m.peer_url) for m in expected}
        lists = {
            e.name: {(m.name, url) for m in e.members for url in m.peer_urls}
            for e in self.endpoints
            if e.members
        }

        def tell(name: str, url: str, *, lacks: bool) -> str:
            tellers = [teller for teller, seen in lists.items() if ((name, url) in seen) != lacks]
            of = "" if len(tellers) == len(lists) else f" of {', '.join(tellers)}"
            if lacks:
                is_gone = not any(name == other for seen in lists.values() for other, _ in seen)
                again = pointer("replace_member", member=[name])
                leave = pointer("remove_member", member=[name], write_inventory=True)
                ways = f"; {again} lets it join again; {leave} stops it and takes it out"
                way = ways if is_gone else ""
                return f"the member list{of} lacks {name} at {url}{way}"
            return (
                f"the member list{of} has {name or 'an unstarted member'} at {url}, "
                "which the inventory does not have"
            )

        lacking = {row for seen in lists.values() for row in want - seen}
        strange = {row for seen in lists.values() for row in seen - want}
        return [
            *(tell(*row, lacks=True) for row in sorted(lacking)),
            *(tell(*row, lacks=False) for row in sorted(strange)),
        ]

    def find_alarms(self) -> tuple[str, ...]:
        """Tell each raised alarm once, by its member's name."""
        return tuple(
            f"{self.member_name(alarm.member_id)}: alarm {alarm.type}: {_MEANINGS[alarm.type]}"
            for alarm in self.alarms
        )

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """All raised alarms, each once."""
        found = {alarm for e in self.endpoints for alarm in e.alarms}
        return tuple(sorted(found, key=lambda alarm: (alarm.type, alarm.member_id)))

    @property
    def rbac(self) -> str | None:
        """Why etcd's authentication (RBAC) hides what is asked, with the way out."""
        return next((e.rbac for e in self.endpoints if e.rbac), None)

    def member_name(self, member_id: int) -> str:
        """Name a member, by its id where no list names it."""
        if member_id == 0:
            return "a member that etcd does not name"
        names = {m.id: m.name for e in self.endpoints for m in e.members if m.name}
        names |= {e.status.member_id: e.name for e in self.endpoints if e.status}
        return names.get(member_id, f"member {format_id(member_id)}")

    def condemning(self, ids: frozenset[int]) -> ClusterHealth:
        """See members whose data are wrong as ill, and CORRUPT as known."""

        def judge(one: EndpointHealth) -> EndpointHealth:
            alarms = tuple(a for a in one.alarms if a.type is not AlarmType.CORRUPT)
            one = replace(one, alarms=alarms)
            if one.status is None or one.status.member_id not in ids:
                return one
            return replace(one, is_healthy=False, reads=False, error="its data are wrong")

        return replace(self, endpoints=tuple(map(judge, self.endpoints)))

    @property
    def is_settled(self) -> bool:
        """Whether looking again in a second would not show more: no election is under way.

        True also when nobody answers, since nobody elects then.
        """
        if self.rbac or not any(e.status for e in self.endpoints):
            return True
        voters = [m for m in self.seen_members() if not m.member.is_learner]
        leaders = {e.status.leader for e in self.endpoints if e.status and e.is_healthy}
        healthy = sum(m.is_healthy for m in voters)
        return healthy >= quorum(len(voters)) and leaders != {0} and len(leaders) == 1

    @property
    def has_mute_gateway(self) -> bool:
        """Whether a member serves, but not by its gateway: its pair is no client's, it may be."""
        return any(e.is_healthy and e.status is None and not e.rbac for e in self.endpoints)

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
        that answers for another cluster on a member's address, or has begun another history, is
        not healthy. None when nobody could be asked.
        """
        newcomers = find_newcomers(self.endpoints)
        able = [e for e in self.endpoints if e.status and e.members and e.name not in newcomers]
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
                bool(status and status.leader) and not (status and status.errors)
                if member.is_learner
                else endpoint.is_healthy and not endpoint.error and endpoint.name not in newcomers
            )
            found.append(
                SeenMember(
                    member,
                    serves,
                    is_leader=bool(status and status.leader == member.id),
                    version=status.version if status else None,
                    applied=status.raft_applied_index if status else 0,
                    answers=status is not None,
                    alarms=frozenset(a.type for a in self.alarms if a.member_id == member.id),
                    host=self._host_of(member, endpoint),
                )
            )
        return tuple(found)

    def _host_of(self, member: Member, endpoint: EndpointHealth | None) -> str:
        """Say where a member of the list is: who answers for it, is asked there, or is so named."""
        ways = (
            (e.name for e in self.endpoints if e is endpoint),
            (e.name for e in self.endpoints if e.endpoint in member.client_urls),
            (e.name for e in self.endpoints if member.name == (e.member or e.name)),
        )
        return next((name for way in ways for name in way), member.name)
