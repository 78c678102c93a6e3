"""The report of a run that has none of its own: refused, rejected, failed, interrupted, looked."""

from __future__ import annotations

import textwrap

from tasks.model.outcome import Outcome, Work
from tasks.report.runs import steps_table


def end_markdown(runbook: str, outcome: Outcome, work: Work, facts: dict[str, str]) -> str:
    """Write the report artifact: how it ended, what was done and what was not."""
    # Bold ends with its paragraph: findings are a list of their own below.
    first, _, rest = outcome.message.partition("\n")
    lines = [f"# {runbook}", "", f"**{outcome.word}{': ' if first else ''}{first}**", ""]
    if rest:
        lines += [textwrap.dedent(rest), ""]
    lines += [work.count(), ""]
    if work.goal:
        lines += [f"**Goal:** {work.goal}", ""]
    lines += [f"- **{name}:** {value}" for name, value in facts.items()]
    if work.done:
        lines += ["", "## Done", "", *(f"- {one}" for one in work.done)]
    if work.broken:
        lines += ["", "## Ended in the middle", "", *(f"- {one}" for one in work.broken)]
    if work.left:
        lines += ["", "## Not done", "", *(f"- {one}" for one in work.left)]
    if work.steps:
        lines += ["", "## Steps", "", steps_table(work.steps).to_markdown()]
    return "\n".join(lines)
