"""A cluster as etcd itself tells of it: all endpoints' answers, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tasks.model.endpoints import EndpointHealth
from tasks.model.histories import find_newcomers
from tasks.model.members import (
    Alarm,
    AlarmType,
    DesiredMember,
    Member,
    SeenMember,
    format_id,
    quorum,
)
from tasks.model.pointers import pointer

_MEANINGS = {
    AlarmType.NOSPACE: "its database has reached its quota; the cluster takes no writes, and does "
    "all else",
    AlarmType.CORRUPT: "its data differs from the other members'",
}


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
