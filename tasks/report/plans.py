"""A plan and preflight's findings, for people."""

from __future__ import annotations

from itertools import groupby

from tasks.model.plan import Finding, Plan, Severity, Stage, Step


def plan_markdown(plan: Plan, findings: tuple[Finding, ...] = ()) -> str:
    """Write a plan as the artifact that is published before anything changes."""
    lines = [f"# Plan: {plan.runbook} {plan.cluster}", "", f"**Goal:** {plan.goal}", ""]
    if not plan.steps:
        lines.append("Nothing is to be done: everything is as the inventory wants it.")
    for stage in plan.stages():
        lines += [f"## {stage.title[0].upper()}{stage.title[1:]}", ""]
        for host, numbered in _turns(plan, stage):
            lines.append(f"**{host or 'runner'}**")
            lines += [_item(f"{number}.", step.sentence) for number, step in numbered]
            lines.append("")
    if plan.warnings:
        lines += ["## For the operator", "", *(_item("-", text) for text in plan.warnings)]
    lines += findings_sections(findings)
    return "\n".join(lines)


def _turns(plan: Plan, stage: Stage) -> list[tuple[str | None, list[tuple[int, Step]]]]:
    """Group a stage's steps in the order in which they are done, each with its number.

    In a serial stage that is the plan's order, so a host comes again at each of its turns; in any
    other the hosts work side by side, and each has its own count.
    """
    if not stage.is_serial:
        return [(host, list(enumerate(s, 1))) for host, s in plan.tracks(stage).items()]
    numbered = enumerate((step for step in plan.steps if step.stage == stage), 1)
    return [(host, list(turn)) for host, turn in groupby(numbered, key=lambda one: one[1].host)]


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
