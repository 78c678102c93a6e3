"""The report of a run: who, why, what was done to which host, and what is true at the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tasks.model.cluster import ClusterHealth
from tasks.model.gap import Gap
from tasks.model.plan import Finding, Plan
from tasks.report.gaps import gap_section
from tasks.report.health import health_table
from tasks.report.plans import findings_sections
from tasks.report.tables import Table


def report_markdown(
    plan: Plan,
    facts: dict[str, str],
    steps: Iterable[dict[str, Any]],
    findings: tuple[Finding, ...],
    health: ClusterHealth | None,
    *,
    gaps: tuple[Gap, ...] = (),
    pairs: Table | None = None,
) -> str:
    """Write the report artifact; `steps` are the journal's lines of finished and failed steps."""
    lines = [f"# {plan.runbook} {plan.cluster}", "", f"**Goal:** {plan.goal}", ""]
    lines += [f"- **{name}:** {value}" for name, value in facts.items()]
    if health is not None:
        lines += ["", "## Members", "", health_table(health).to_markdown()]
    if pairs is not None:
        lines += ["", "## Certificates", "", pairs.to_markdown()]
    if gaps:
        lines += ["", *gap_section(gaps)]
    lines += [
        "",
        "## What was done",
        "",
        steps_table(steps).to_markdown(),
        *findings_sections(findings),
    ]
    return "\n".join(lines)


def steps_table(steps: Iterable[dict[str, Any]]) -> Table:
    """Make the table of steps and how each ended."""
    # The outcome last: Prefect's pages cut off on the right what a failure says.
    return Table(
        ("step", "seconds", "outcome"),
        tuple((row["step"], f"{row['seconds']:.2f}", _outcome(row)) for row in steps),
    )


def _outcome(row: dict[str, Any]) -> str:
    if str(row.get("error", "")).startswith("CancelledError"):
        return "interrupted"
    if "error" in row:
        return f"failed: {row['error']}"
    return {True: "changed", False: "was so already", None: "done"}[row.get("changed")]
