"""The table of all certificates, worst first, as markdown, text and JSON."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from tasks.model.expiry import CertificateFinding, CertificateRow, ClusterCheck, Grade
from tasks.report.tables import Table

COLUMNS = (
    *("cluster", "host", "certificate", "expires", "residual", "authority"),
    *("served", "on disk", "desired"),
)
MANY_ROWS = 60


def certificate_table(
    checks: Iterable[ClusterCheck], now: datetime, *, found_only: bool = False
) -> Table:
    """Put every certificate into a row, the worst first, then by its end.

    With `found_only` those without a finding are left out.
    """
    rows = [row for check in checks for row in check.rows if row.findings or not found_only]
    return Table(COLUMNS, tuple(_cells(row, now) for row in sorted(rows, key=_urgency)))


def _urgency(row: CertificateRow) -> tuple[int, float, str]:
    grades = {finding.grade for finding in row.findings}
    worst = 0 if Grade.CRITICAL in grades else 1 if grades else 2
    return worst, row.not_after.timestamp() if row.not_after else 0.0, f"{row.cluster}{row.host}"


def _cells(row: CertificateRow, now: datetime) -> tuple[str, ...]:
    return (
        row.cluster,
        row.host,
        row.label,
        f"{row.not_after:%Y-%m-%d %H:%M}" if row.not_after else "?",
        format_residual(row.not_after - now) if row.not_after else "?",
        row.issuer or "?",
        _served(row),
        f"{row.serial:x}"[:12] if row.serial is not None else "none",
        "; ".join(f"{f.grade.upper()}: {f.sentence}" for f in row.findings) or "as desired",
    )


def _served(row: CertificateRow) -> str:
    if not row.served:
        return "-"
    if all(serial == row.serial for _, serial in row.served):
        return "as on disk"
    return ", ".join(
        f"{port}: {f'{serial:x}'[:12] if serial is not None else 'nothing'}"
        for port, serial in row.served
    )


def format_residual(left: timedelta) -> str:
    """Write what is left as kubeadm does: years from two on, days, hours; expired is 0."""
    if left <= timedelta(0):
        return "expired"
    if left >= timedelta(days=730):
        return f"{left.days // 365}y"
    return f"{left.days}d" if left >= timedelta(days=1) else f"{int(left.total_seconds() // 3600)}h"


def certificates_markdown(checks: tuple[ClusterCheck, ...], now: datetime) -> str:
    """Write the artifact: the findings that belong to no certificate, then the table."""
    title = checks[0].cluster if len(checks) == 1 else f"{len(checks)} clusters"
    lines = [f"# Certificates of {title}", "", verdict(checks), ""]
    lines += [f"- **{f.grade}** {f}" for check in checks for f in check.findings]
    return "\n".join([*lines, "", certificate_table(checks, now).to_markdown()])


def verdict(checks: tuple[ClusterCheck, ...]) -> str:
    """Say in one line how many certificates there are and what was found."""
    findings = [finding for check in checks for finding in check.all_findings]
    critical = sum(finding.grade is Grade.CRITICAL for finding in findings)
    count = sum(len(check.rows) for check in checks)
    warnings = len(findings) - critical
    return f"{count} certificates: {critical} critical finding(s), {warnings} warning(s)"


def certificates_json(checks: tuple[ClusterCheck, ...], now: datetime) -> dict[str, Any]:
    """Put all facts and findings into JSON's types; times are RFC 3339, serials hexadecimal."""
    return {
        "checked_at": now.isoformat(),
        "summary": verdict(checks),
        "clusters": [
            {
                "cluster": check.cluster,
                "findings": [_finding_json(finding) for finding in check.findings],
                "certificates": [_row_json(row) for row in check.rows],
            }
            for check in checks
        ],
    }


def _row_json(row: CertificateRow) -> dict[str, Any]:
    return {
        "host": row.host,
        "certificate": row.label,
        "path": row.path,
        "subject": row.subject,
        "authority": row.issuer,
        "serial": _hexadecimal(row.serial),
        "not_before": row.not_before.isoformat() if row.not_before else None,
        "not_after": row.not_after.isoformat() if row.not_after else None,
        "served": {str(port): _hexadecimal(serial) for port, serial in row.served},
        "findings": [_finding_json(finding) for finding in row.findings],
    }


def _hexadecimal(serial: int | None) -> str | None:
    return None if serial is None else f"{serial:x}"


def _finding_json(finding: CertificateFinding) -> dict[str, Any]:
    return {"kind": finding.kind, "grade": finding.grade, "sentence": finding.sentence}
