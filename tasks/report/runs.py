"""The report of a run: who, why, what was done to which host, and what is true at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from tasks.model.cluster import ClusterHealth
from tasks.model.gap import Gap
from tasks.model.plan import Finding, Plan
from tasks.model.record import Event, Record
from tasks.report.gaps import gap_section
from tasks.report.health import health_table
from tasks.report.plans import findings_sections
from tasks.report.tables import Table

NAMED = 3
"""Of so many a run's name tells the names."""


def run_name(template: str, given: Mapping[str, Any]) -> str:
    """Say what a run does to whom, by the template over its parameters that its runbook has."""
    dry = "dry run: " if given.get("dry_run") else ""
    return dry + template.format_map({name: _word(name, value) for name, value in given.items()})


def _word(name: str, value: object) -> str:
    if name == "clusters" and not value:
        return "every cluster"
    values = [str(one) for one in (value if isinstance(value, list | tuple) else [value])]
    if name in {"cluster", "clusters"}:
        values = [PurePath(one).stem if one.endswith((".yaml", ".yml")) else one for one in values]
    more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
    return ", ".join(one.partition("=")[0] for one in values[:NAMED]) + more


def report_markdown(
    plan: Plan,
    facts: dict[str, str],
    steps: Iterable[dict[str, Any]],
    findings: tuple[Finding, ...],
    health: ClusterHealth | None,
    *,
    gaps: tuple[Gap, ...] = (),
    tables: Mapping[str, Table] | None = None,
) -> str:
    """Write the report artifact; `steps` are the journal's lines of finished and failed steps."""
    lines = [f"# {plan.runbook} {plan.cluster}", "", f"**Goal:** {plan.goal}", ""]
    lines += [f"- **{name}:** {value}" for name, value in facts.items()]
    if health is not None:
        lines += ["", "## Members", "", health_table(health).to_markdown()]
    for title, table in (tables or {}).items():
        lines += ["", f"## {title}", "", table.to_markdown()]
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
        ("time (UTC)", "step", "seconds", "outcome"),
        tuple(
            (
                f"{datetime.fromtimestamp(row['ended'], UTC):%H:%M:%S}",
                row["step"],
                f"{row['seconds']:.2f}",
                _outcome(row),
            )
            for row in steps
        ),
    )


def _outcome(row: dict[str, Any]) -> str:
    if str(row.get("error", "")).startswith("CancelledError"):
        return "interrupted"
    if "error" in row:
        return f"failed: {row['error']}"
    return {True: "changed", False: "was so already", None: "done"}[row.get("changed")]


def stage_facts(plan: Plan, records: Iterable[Record]) -> dict[str, str]:
    """Tell how long each stage of a plan took, and since when the run has begun all was done."""
    ends, begun, planned = defaultdict[tuple[str | None, str], list[float]](list), 0.0, 0.0
    for record in records:
        if record.event is Event.RUN_STARTED:
            begun = record.time
        elif record.event is Event.PLANNED:
            planned = record.time
        elif record.event is Event.PERFORMED:
            ends[record.details["host"], record.details["sentence"]].append(record.time)
    facts, before = {"to look and plan": f"{planned - begun:.1f} s"}, planned
    for stage in plan.stages():
        # A step of two stages comes twice, in their order.
        own = [ends[s.host, s.sentence].pop(0) for s in plan.steps if s.stage == stage]
        facts[stage.title] = f"{max(own) - before:.1f} s"
        before = max(own)
    return facts | {"from the begin to the last stage's end": f"{before - begun:.1f} s"}
