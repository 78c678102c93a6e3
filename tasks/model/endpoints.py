"""What one member's endpoint answers for itself.

Three questions are asked of a member, and have three answers. Is it *up*: does etcd answer for
itself, in this cluster? Is it *healthy*: does it have the quorum's ear, so that it counts for one?
*May it write*: is no alarm in the way? A full database (NOSPACE) is up and healthy; it serves
reads, deletes, changes of the members and of the leader.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.members import Alarm, Member


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
