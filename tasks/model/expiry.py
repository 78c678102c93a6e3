"""What a check of certificates finds: rows of what is served, on disk and desired, and findings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Grade(StrEnum):
    """How bad a finding is; critical ones fail the run."""

    CRITICAL = "critical"
    WARNING = "warning"


class Kind(StrEnum):
    """What was found; the event's name is etcd.certificate.<kind>."""

    EXPIRED = "expired"
    EXPIRING = "expiring"
    NOT_YET_VALID = "not-yet-valid"
    MISSING = "missing"
    MISMATCHED = "mismatched"
    UNTRUSTED = "untrusted"
    NAMES = "names"
    USAGES = "usages"
    DIFFERING = "differing"
    STALE = "stale"
    UNSERVED = "unserved"
    EXPOSED = "exposed"
    UNREACHABLE = "unreachable"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class CertificateFinding:
    """One finding; `host` is a host's or a client's name, `path` the certificate's file."""

    kind: Kind
    grade: Grade
    cluster: str
    host: str
    path: str
    sentence: str
    not_after: datetime | None = None

    @property
    def within_cluster(self) -> str:
        """Where it is, and what, for who knows of which cluster it is said."""
        return ": ".join(filter(None, (self.host, self.path, self.sentence)))

    def __str__(self) -> str:
        return f"{self.cluster}: {self.within_cluster}"


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """One certificate three ways: what is served, what is on disk, and whether it is as desired.

    `served` goes by port: the serial that is presented, None where nothing is. `serial` is None
    where there is no certificate that can be read; times are aware, in UTC.
    """

    cluster: str
    host: str
    label: str
    path: str
    subject: str = ""
    issuer: str = ""
    serial: int | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    served: tuple[tuple[int, int | None], ...] = ()
    findings: tuple[CertificateFinding, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterCheck:
    """All that was found of one cluster; `findings` are those that belong to no certificate."""

    cluster: str
    rows: tuple[CertificateRow, ...]
    findings: tuple[CertificateFinding, ...] = ()

    @property
    def all_findings(self) -> tuple[CertificateFinding, ...]:
        """List every finding, the critical ones first."""
        found = (*self.findings, *(finding for row in self.rows for finding in row.findings))
        return tuple(sorted(found, key=lambda finding: finding.grade is not Grade.CRITICAL))

    @property
    def critical(self) -> tuple[CertificateFinding, ...]:
        """List what is critical."""
        return tuple(f for f in self.all_findings if f.grade is Grade.CRITICAL)
