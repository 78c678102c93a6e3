"""The members that etcd lists, and the alarms it raises; and a quorum's arithmetic.

Ids are etcd's 64-bit numbers; `format_id` writes them as etcdctl does, in hexadecimal.
"""

from __future__ import annotations

from collections.abc import Sequence
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
