"""The members as steps leave them: counting voters, and refusing what a count forbids.

Knows no step; `reconfiguration` has those, and `obstacles` the gate before each.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.errors import Refused
from tasks.model.members import AlarmType, SeenMember, quorum
from tasks.plans.health import corrupt_sentence

RESTORE = (
    "Bring members back first: start etcd on their hosts; if certificates keep them down, "
    "recover_certificates does it. When most of them are gone for good, recover_quorum takes what "
    "a survivor has, and restore_cluster a snapshot where none survives"
)


@dataclass(slots=True)
class Cluster:
    """The members as the steps so far leave them."""

    members: list[SeenMember]

    @property
    def urls(self) -> frozenset[str]:
        """The peer URLs, which tell members apart."""
        return frozenset(m.peer_url for m in self.members)

    @property
    def voters(self) -> list[SeenMember]:
        """Those who count for a quorum."""
        return [m for m in self.members if not m.member.is_learner]

    @property
    def healthy(self) -> int:
        """How many voters have the quorum's ear."""
        return sum(m.is_healthy for m in self.voters)

    def on(self, host: str) -> SeenMember:
        """Get the member of a host of the inventory."""
        return next(m for m in self.members if m.host == host)

    def at(self, peer_url: str) -> SeenMember | None:
        """Get the member at a peer URL, if there is one."""
        return next((m for m in self.members if peer_url in m.member.peer_urls), None)


def refuse_without_members(live: tuple[SeenMember, ...]) -> None:
    """Raise Refused when nobody could be asked for the member list."""
    if not live:
        raise Refused(f"no member answers; nothing is known of the cluster. {RESTORE}")


def refuse_without_quorum(live: tuple[SeenMember, ...]) -> None:
    """Raise Refused, with the count, when no quorum of the voters is healthy."""
    cluster = Cluster(list(live))
    needed = quorum(len(cluster.voters))
    if cluster.healthy < needed:
        down = ", ".join(m.label for m in cluster.voters if not m.is_up)
        deaf = ", ".join(m.label for m in cluster.voters if m.is_up and not m.is_healthy)
        who = "; ".join(
            f"{what}: {names}"
            for what, names in (("down", down), ("up without a quorum", deaf))
            if names
        )
        raise Refused(
            f"quorum is lost: {cluster.healthy} of {len(cluster.voters)} voters are healthy and "
            f"{needed} are needed ({who}); no member can be changed. {RESTORE}"
        )


def refuse_corrupt_members(live: tuple[SeenMember, ...]) -> None:
    """Raise Refused, with their names, when the data of members differs."""
    if names := [m.label for m in live if AlarmType.CORRUPT in m.alarms]:
        raise Refused(corrupt_sentence(names))


def refuse_to_lose(cluster: Cluster, member: SeenMember) -> None:
    """Raise Refused, with the count, when there is no quorum while one member restarts."""
    left = sum(m.is_healthy for m in cluster.voters if m is not member)
    needed = quorum(len(cluster.voters))
    if left < needed:
        raise Refused(
            f"while {member.label} restarts, {left} of {len(cluster.voters)} voters would be "
            f"healthy and {needed} are needed for a quorum"
        )
