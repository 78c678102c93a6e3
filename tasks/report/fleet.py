"""The fleet on one page: a line a cluster, the worst first, and below it what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from tasks.model.endpoints import EndpointStatus
from tasks.model.fleet import FleetRow, PastRun
from tasks.model.space import Growth
from tasks.report.certificates import format_residual
from tasks.report.snapshots import format_age
from tasks.report.tables import Table, first_of, format_bytes

COLUMNS = (
    *("cluster", "state", "version", "members", "leader", "DB size", "first expiry"),
    *("last proven snapshot", "last change", "waits for approval"),
)
NOTHING = "-"
TOLD = 3
"""Problems of one cluster that the page tells; check_health and check_certificates have all."""


def fleet_table(rows: Iterable[FleetRow], now: datetime) -> Table:
    """Put every cluster into a row, the worst first.

    The last columns stand there where a cluster has something in them: pages are narrow.
    """
    ordered = sorted(rows, key=lambda row: (row.urgency, row.cluster))
    cells = [_cells(row, now) for row in ordered]
    shown = len(COLUMNS)
    while cells and all(row[shown - 1] == NOTHING for row in cells):
        shown -= 1
    return Table(COLUMNS[:shown], tuple(row[:shown] for row in cells))


def fleet_problems(rows: Iterable[FleetRow]) -> tuple[str, ...]:
    """Tell what is wrong, by cluster, the first of it."""
    told = []
    for row in sorted(rows, key=lambda row: (row.urgency, row.cluster)):
        problems = [one.splitlines()[0] for one in row.all_problems]
        told += [f"{row.cluster}: {one}" for one in first_of(problems, TOLD)]
    return tuple(told)


def fleet_markdown(rows: tuple[FleetRow, ...], now: datetime, remarks: tuple[str, ...] = ()) -> str:
    """Write the artifact: the verdict, the table, what is wrong."""
    lines = ["# Fleet", "", fleet_verdict(rows), "", fleet_table(rows, now).to_markdown(), ""]
    return "\n".join([*lines, *(f"- {said}" for said in (*fleet_problems(rows), *remarks))])


def fleet_verdict(rows: tuple[FleetRow, ...]) -> str:
    """Say in one line how many there are and how many need somebody."""
    wrong = sum(bool(row.all_problems) for row in rows)
    waiting = sum(len(row.waiting) for row in rows)
    waits = f", {waiting} run(s) wait for approval" if waiting else ""
    return f"{len(rows)} cluster{'' if len(rows) == 1 else 's'}: {wrong} with problems{waits}"


def _cells(row: FleetRow, now: datetime) -> tuple[str, ...]:
    statuses = [e.status for e in row.health.endpoints if e.status] if row.health else []
    problems = len(row.all_problems)
    return (
        row.cluster,
        f"{problems} problem(s)" if problems else "healthy",
        ", ".join(sorted({status.version for status in statuses})) or "?",
        _members(row),
        _leader(row),
        _size(statuses, row.growth),
        _expiry(row, now),
        _snapshot(row, now),
        _past(row.changed) if row.changed else NOTHING,
        "; ".join(map(_past, row.waiting)) or NOTHING,
    )


def _members(row: FleetRow) -> str:
    if row.health is None:
        return "?"
    healthy = sum(endpoint.is_healthy for endpoint in row.health.endpoints)
    return f"{healthy} of {len(row.health.endpoints)}"


def _leader(row: FleetRow) -> str:
    endpoints = row.health.endpoints if row.health else ()
    leads = (e.label for e in endpoints if e.status and e.status.leader == e.status.member_id)
    return next(leads, "?")


def _size(statuses: list[EndpointStatus], growth: Growth | None) -> str:
    if not statuses:
        return "?"
    largest = max(statuses, key=lambda status: status.db_size)
    told = f"{format_bytes(largest.db_size)}, {format_bytes(largest.db_size_in_use)} in use"
    if largest.db_quota:
        share = 100 * largest.db_size / largest.db_quota
        told += f", {share:.0f} % of {format_bytes(largest.db_quota)}"
    if growth is not None and growth.days_left is not None:
        told += f", {growth.days_left:.0f} days left"
    return told


def _expiry(row: FleetRow, now: datetime) -> str:
    first = row.first_expiry
    if first is None or first.not_after is None:
        return "?"
    return f"{format_residual(first.not_after - now)}: {first.label} of {first.host}"


def _snapshot(row: FleetRow, now: datetime) -> str:
    if row.proven is not None:
        told = f"{format_age(now - row.proven.taken)} ago"
    elif row.newest is not None:
        told = f"none; one of {format_age(now - row.newest.taken)} ago is not proven"
    else:
        told = "none"
    return f"{told} (too old)" if row.is_stale and row.proven else told


def _past(run: PastRun) -> str:
    return f"{run.when:%Y-%m-%d %H:%M} {run.runbook} by {run.by}"
