"""A plan and preflight's findings, for people."""

from __future__ import annotations

from tasks.model.plan import Finding, Plan, Severity


def plan_markdown(plan: Plan, findings: tuple[Finding, ...] = ()) -> str:
    """Write a plan as the artifact that is published before anything changes."""
    lines = [f"# Plan: {plan.runbook} {plan.cluster}", "", f"**Goal:** {plan.goal}", ""]
    if not plan.steps:
        lines.append("Nothing is to be done: everything is as the inventory wants it.")
    for stage in plan.stages():
        lines += [f"## {stage.title[0].upper()}{stage.title[1:]}", ""]
        for host, steps in plan.tracks(stage).items():
            lines.append(f"**{host or 'runner'}**")
            lines += [_item(f"{number}.", step.sentence) for number, step in enumerate(steps, 1)]
            lines.append("")
    if plan.warnings:
        lines += ["## For the operator", "", *(_item("-", text) for text in plan.warnings)]
    lines += findings_sections(findings)
    return "\n".join(lines)


def _item(mark: str, text: str) -> str:
    """Write an item of a list; lines after its first one, such as a diff, keep their breaks."""
    first, _, rest = text.partition("\n")
    if not rest:
        return f"{mark} {first}"
    indent = " " * (len(mark) + 1)
    quoted = "".join(f"{indent}{line}\n" for line in ("```diff", *rest.split("\n"), "```"))
    return f"{mark} {first}\n\n{quoted}"


def findings_sections(findings: tuple[Finding, ...]) -> list[str]:
    """Write what preflight found, refusals first."""
    lines = []
    for severity, title in ((Severity.REFUSAL, "Refusals"), (Severity.WARNING, "Warnings")):
        chosen = [finding for finding in findings if finding.severity is severity]
        if chosen:
            lines += ["", f"## {title}", "", *(f"- {finding}" for finding in chosen)]
    return lines


def findings_markdown(runbook: str, cluster: str, findings: tuple[Finding, ...]) -> str:
    """Write the artifact of a run that preflight refused."""
    return "\n".join([f"# {runbook} {cluster}: refused by preflight", *findings_sections(findings)])
