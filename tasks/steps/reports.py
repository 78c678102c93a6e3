"""Artifacts: the plan before anything changes, the report at the end."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from tasks.engine.frame import publish, sealed
from tasks.engine.journal import read_journal
from tasks.engine.run import Run
from tasks.model.cluster import ClusterHealth
from tasks.model.diagnosis import Line
from tasks.model.errors import PreflightFailed
from tasks.model.gap import Gap
from tasks.model.outcome import work_of
from tasks.model.plan import Finding, Plan, Severity
from tasks.model.record import Event
from tasks.report.diagnosis import diagnosis_markdown, diagnosis_table, diagnosis_verdict
from tasks.report.gaps import absence_facts, gap_summary
from tasks.report.health import health_markdown, health_table
from tasks.report.plans import findings_markdown, plan_markdown
from tasks.report.runs import report_markdown
from tasks.report.tables import Table


def artifact_key(*words: str) -> str:
    """Join words to a key that Prefect takes: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


async def publish_plan(
    run: Run, plan: Plan, findings: tuple[Finding, ...], *, is_known: bool = False
) -> None:
    """Write the plan to the journal, and publish it unless this run has: one `is_known`."""
    run.journal.append(
        Event.PLANNED,
        goal=plan.goal,
        steps=[{"host": step.host, "sentence": step.sentence} for step in plan.in_order()],
        findings=[
            *({"severity": f.severity, "finding": str(f)} for f in findings),
            *({"severity": "for the operator", "finding": text} for text in plan.warnings),
        ],
    )
    if is_known:
        return
    await publish(
        markdown=plan_markdown(plan, findings),
        key=artifact_key(plan.runbook, plan.cluster, "plan"),
        description=plan.goal,
    )


async def refuse_on_findings(run: Run, findings: tuple[Finding, ...]) -> None:
    """Publish what preflight found and raise PreflightFailed, if a finding forbids the run."""
    refusals = tuple(str(f) for f in findings if f.severity is Severity.REFUSAL)
    if not refusals:
        return
    await publish(
        markdown=findings_markdown(run.runbook, run.inventory.name, findings),
        key=artifact_key(run.runbook, run.inventory.name, "preflight"),
        description="refused by preflight",
    )
    raise PreflightFailed(refusals)


async def publish_health(
    run: Run, health: ClusterHealth, problems: tuple[str, ...], remarks: tuple[str, ...] = ()
) -> None:
    """Publish the member table, and tell it to the journal for the terminal.

    The terminal hears the problems once, from the run's end, which fails for them.
    """
    table = health_table(health)
    run.journal.append(
        Event.OBSERVED, columns=table.columns, rows=table.rows, problems=(), remarks=remarks
    )
    await publish(
        markdown=health_markdown(run.inventory.name, table, problems, remarks),
        key=artifact_key(run.runbook, run.inventory.name),
        description="healthy" if not problems else f"{len(problems)} problem(s)",
    )


async def publish_diagnosis(run: Run, health: ClusterHealth, lines: Sequence[Line]) -> None:
    """Publish the page, and tell it to the journal for the terminal."""
    table = diagnosis_table(lines)
    run.journal.append(
        Event.OBSERVED,
        columns=table.columns,
        rows=table.rows,
        problems=(),
        remarks=(diagnosis_verdict(lines),),
    )
    await publish(
        markdown=diagnosis_markdown(run.inventory.name, health, lines),
        key=artifact_key("diagnose", run.inventory.name),
        description=diagnosis_verdict(lines),
        report=True,
    )


async def publish_report(
    run: Run,
    plan: Plan,
    findings: tuple[Finding, ...],
    health: ClusterHealth | None,
    reason: str | None,
    *,
    gaps: tuple[Gap, ...] = (),
    tables: Mapping[str, Table] | None = None,
    facts: dict[str, str] | None = None,
) -> None:
    """Publish the report, made from the journal; `tables` are the runbook's own, by their titles.

    The gap in service goes to the journal too, and so to the terminal.
    """
    if gaps:
        run.journal.append(
            Event.MEASURED, summary=gap_summary(gaps), gaps=[asdict(g) for g in gaps]
        )
    steps = work_of(read_journal(run.journal.path)).steps
    told = {
        "started by": run.operator,
        "reason": reason or "not given",
        "run": run.id,
        "took": f"{(datetime.now(UTC) - run.started).total_seconds():.1f} s",
        "changes": str(sum(row.get("changed") is True for row in steps)),
        **(facts or {}),
        **absence_facts(run.absences),
        **({"snapshot": run.snapshot} if run.snapshot else {}),
        "journal": str(run.journal.path),
        **sealed([run.journal.path]),
    }
    await publish(
        markdown=report_markdown(plan, told, steps, findings, health, gaps=gaps, tables=tables),
        key=artifact_key(plan.runbook, plan.cluster, "report"),
        description=f"{plan.runbook} {plan.cluster}",
        report=True,
    )
