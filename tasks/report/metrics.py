"""What the last checks found, as numbers for Prometheus.

Names and units follow Prometheus's own conventions: base units, seconds since the epoch for times,
so that an age or what is left is `time()` and a difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from tasks.model.cluster import ClusterHealth
from tasks.model.expiry import ClusterCheck, Grade
from tasks.model.snapshots import Manifest

HELP = {
    "check_timestamp_seconds": "When health, certificates or snapshots were last looked at.",
    "check_problems": "What that look found that must be seen to.",
    "members": "Members that the inventory names.",
    "members_healthy": "Those of them that have the quorum's ear.",
    "database_size_bytes": "A member's database on its disk.",
    "database_in_use_bytes": "What of it is in use; the rest is given back by a defragmentation.",
    "database_quota_bytes": "What it may grow to.",
    "certificate_not_after_seconds": "When a certificate ends.",
    "certificate_findings": "What was found of a cluster's certificates, by grade.",
    "snapshot_taken_seconds": "When the newest snapshot was taken.",
    "snapshot_proven_taken_seconds": "When the newest snapshot that was proven was taken.",
}
"""The metrics by their names without the prefix."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One number, with what it is of."""

    name: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


def of_check(check: str, at: datetime, problems: int) -> list[Sample]:
    """Tell that a look at health, certificates or snapshots came to its end, and what it found."""
    of = {"check": check}
    return [
        Sample("check_timestamp_seconds", at.timestamp(), of),
        Sample("check_problems", problems, of),
    ]


def of_health(health: ClusterHealth) -> list[Sample]:
    """Count members, and tell the sizes of those that answer."""
    samples = [
        Sample("members", len(health.endpoints)),
        Sample("members_healthy", sum(e.is_healthy for e in health.endpoints)),
    ]
    for endpoint in health.endpoints:
        status, of = endpoint.status, {"member": endpoint.name}
        if status is not None:
            samples.append(Sample("database_size_bytes", status.db_size, of))
            samples.append(Sample("database_in_use_bytes", status.db_size_in_use, of))
            if status.db_quota:
                samples.append(Sample("database_quota_bytes", status.db_quota, of))
    return samples


def of_certificates(check: ClusterCheck) -> list[Sample]:
    """Tell the end of each certificate, and how many findings there are."""
    samples = [
        Sample(
            "certificate_not_after_seconds",
            row.not_after.timestamp(),
            {"host": row.host, "certificate": row.label, "serial": f"{row.serial or 0:x}"},
        )
        for row in check.rows
        if row.not_after is not None
    ]
    grades = [finding.grade for finding in check.all_findings]
    samples += [
        Sample("certificate_findings", grades.count(grade), {"grade": str(grade)})
        for grade in Grade
    ]
    return samples


def of_snapshots(newest: Manifest | None, proven: Manifest | None) -> list[Sample]:
    """Tell of when the newest ones are; 0 stands for none, which is very old."""
    pairs: Iterable[tuple[str, Manifest | None]] = (
        ("snapshot_taken_seconds", newest),
        ("snapshot_proven_taken_seconds", proven),
    )
    return [Sample(name, one.taken.timestamp() if one else 0) for name, one in pairs]
