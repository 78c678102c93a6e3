"""A diagnosis as a table, the worst first, and as the artifact."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.model.cluster import ClusterHealth
from tasks.model.diagnosis import Line, State
from tasks.report.health import health_table
from tasks.report.tables import Table

COLUMNS = ("", "what", "where", "value", "normal", "what it means")
WORDS = {State.BAD: "bad", State.NOTABLE: "look", State.UNKNOWN: "?", State.NORMAL: "ok"}


def diagnosis_table(lines: Sequence[Line]) -> Table:
    """Write a line as a row."""
    return Table(
        COLUMNS,
        tuple(
            (WORDS[one.state], one.what, one.where, one.value, one.normal, one.meaning)
            for one in lines
        ),
    )


def diagnosis_verdict(lines: Sequence[Line]) -> str:
    """Count them in one line."""
    counts = {state: sum(line.state is state for line in lines) for state in State}
    return (
        f"{counts[State.BAD]} bad, {counts[State.NOTABLE]} to look at, "
        f"{counts[State.UNKNOWN]} not seen, {counts[State.NORMAL]} normal"
    )


def diagnosis_markdown(cluster: str, health: ClusterHealth, lines: Sequence[Line]) -> str:
    """Write the artifact."""
    tables = (health_table(health).to_markdown(), diagnosis_table(lines).to_markdown())
    return "\n\n".join((f"# Diagnosis of {cluster}", diagnosis_verdict(lines), *tables))
