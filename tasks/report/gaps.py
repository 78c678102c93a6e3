"""The measured gap in service, for people."""

from __future__ import annotations

from tasks.model.gap import Absences, Gap
from tasks.report.tables import Table

COLUMNS = ("stage", "seconds", "reads", "failed", "longest gap", "failed by endpoint")


def gap_section(gaps: tuple[Gap, ...]) -> list[str]:
    """Write the report's section: a row a stage, and what was measured."""
    writes = any(gap.longest_write is not None for gap in gaps)
    rows = tuple(
        (
            gap.stage,
            f"{gap.seconds:.1f}",
            str(gap.reads),
            str(gap.failures),
            format_gap(gap.longest),
            ", ".join(f"{e.name} {e.failures}" for e in gap.endpoints if e.failures) or "none",
            *((format_gap(gap.longest_write or 0.0),) if writes else ()),
        )
        for gap in gaps
    )
    return [
        "## Service during the run",
        "",
        Table((*COLUMNS, *(("longest gap in writes",) if writes else ())), rows).to_markdown(),
        "",
        "Measured with linearizable reads, 20 a second: a careful client, which goes to the next "
        "endpoint at once when a read fails, and one of each endpoint, which never does. A gap is "
        "the time between two reads that were acknowledged"
        + (", or two writes, of a lease that no key knows of." if writes else "."),
    ]


def gap_summary(gaps: tuple[Gap, ...]) -> str:
    """Say in one line how long a careful client had to wait at most, and when."""
    worst = max(gaps, key=lambda gap: gap.longest)
    written = [gap for gap in gaps if gap.longest_write is not None]
    longest = max(written, key=lambda gap: gap.longest_write or 0.0, default=None)
    writing = (
        f"in writes: {format_gap(longest.longest_write or 0.0)} in '{longest.stage}'; "
        if longest
        else ""
    )
    reads, failures = sum(g.reads for g in gaps), sum(g.failures for g in gaps)
    return (
        f"longest gap in linearizable reads: {format_gap(worst.longest)} in '{worst.stage}'; "
        f"{writing}{failures} of {reads + failures} reads failed and were tried on another member"
    )


def absence_facts(absences: Absences) -> dict[str, str]:
    """Say for how long API servers were away, and how many at once; nothing where none was."""
    if not absences.longest:
        return {}
    told = ", ".join(f"{host} {format_gap(away)}" for host, away in absences.longest.items())
    together = "one at a time" if absences.at_once == 1 else f"{absences.at_once} at once"
    return {"API servers away, until ready again": f"{told}; {together}"}


def format_gap(seconds: float) -> str:
    """Write a gap in milliseconds, or in seconds from one on."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
