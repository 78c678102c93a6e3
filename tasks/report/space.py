"""What reclaim_space tells: what fills a database, and what was given back."""

from __future__ import annotations

from tasks.model.space import Freed, Survey
from tasks.report.tables import Table, format_bytes

COLUMNS = ("prefix", "keys", "size (by a sample)", "written (by a sample)")
SHOWN = 20


def fillers_table(survey: Survey) -> Table:
    """One row a prefix, the largest first; no key and no value."""
    rows = [
        (one.name, str(one.keys), format_bytes(one.size), f"{one.writes} times")
        for one in survey.prefixes[:SHOWN]
    ]
    if left := survey.keys - sum(one.keys for one in survey.prefixes[:SHOWN]):
        rows.append(("others", str(max(left, 0)), "", ""))
    return Table(COLUMNS, tuple(rows))


def freed_fact(done: Freed) -> tuple[str, str]:
    """Tell one defragmentation, for the report's facts."""
    given = format_bytes(max(done.before - done.after, 0))
    sizes = f"{format_bytes(done.before)} to {format_bytes(done.after)}"
    return f"{done.host} gave back", f"{given} in {done.seconds:.2f} s ({sizes})"
