"""What reclaim_space tells: what fills a database, and what was given back."""

from __future__ import annotations

from tasks.model.space import Freed, Survey
from tasks.report.tables import Table, format_bytes

COLUMNS = ("prefix", "keys", "size (by a sample)", "written (by a sample)", "of bytes")
SHOWN = 20


def fillers_table(survey: Survey) -> Table:
    """One row a prefix, the largest first, then small ones that made the most history.

    No key and no value.
    """
    largest = survey.prefixes[:SHOWN]
    shown = (*largest, *(one for one in survey.most_written(SHOWN) if one not in largest))
    rows = [
        (
            *(one.name, str(one.keys), format_bytes(one.size)),
            *(f"{one.writes} times", format_bytes(one.written)),
        )
        for one in shown
    ]
    if left := survey.keys - sum(one.keys for one in shown):
        rows.append(("others", str(max(left, 0)), "", "", ""))
    return Table(COLUMNS, tuple(rows))


def freed_fact(done: Freed) -> tuple[str, str]:
    """Tell one defragmentation, for the report's facts."""
    given = format_bytes(max(done.before - done.after, 0))
    sizes = f"{format_bytes(done.before)} to {format_bytes(done.after)}"
    return f"{done.host} gave back", f"{given} in {done.seconds:.2f} s ({sizes})"
