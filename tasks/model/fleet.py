"""Many clusters at a glance: what one line of the fleet's table is made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tasks.model.cluster import ClusterHealth
from tasks.model.expiry import CertificateRow, ClusterCheck
from tasks.model.snapshots import Manifest
from tasks.model.space import Growth


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run as Prefect has it: of which runbook and clusters, whose, when, in which state."""

    run: str
    runbook: str
    clusters: tuple[str, ...]
    by: str
    when: datetime
    state: str


@dataclass(frozen=True, slots=True)
class FleetRow:
    """One cluster: what is wrong first, then what is there; None where it is not known.

    `waiting` are runs that wait for a person's approval.
    """

    cluster: str
    problems: tuple[str, ...]
    health: ClusterHealth | None = None
    certificates: ClusterCheck | None = None
    newest: Manifest | None = None
    proven: Manifest | None = None
    is_stale: bool = False
    changed: PastRun | None = None
    waiting: tuple[PastRun, ...] = ()
    growth: Growth | None = None

    @property
    def all_problems(self) -> tuple[str, ...]:
        """What must be seen to: of the members, and of certificates what is critical."""
        found = self.certificates.critical if self.certificates else ()
        return (*self.problems, *(finding.within_cluster for finding in found))

    @property
    def first_expiry(self) -> CertificateRow | None:
        """The certificate that ends first."""
        rows = self.certificates.rows if self.certificates else ()
        known = [row for row in rows if row.not_after is not None]
        return min(known, key=lambda row: str(row.not_after), default=None)

    @property
    def urgency(self) -> tuple[bool, bool, float]:
        """Order rows by it: what is wrong, what waits or is stale, what ends first."""
        first = self.first_expiry
        ends = first.not_after.timestamp() if first and first.not_after else 0.0
        return not self.all_problems, not (self.is_stale or self.waiting), ends
