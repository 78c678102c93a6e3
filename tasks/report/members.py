"""A member's settings, for people: what its files say, what runs, what the cluster reports."""

from __future__ import annotations

from tasks.report.tables import Table

COLUMNS = ("member", "setting", "its files say", "what runs has", "the cluster reports", "note")
SAME = "the same"


def member_markdown(cluster: str, lines: tuple[str, ...], table: Table) -> str:
    """Write the artifact: what each member is, then every setting, those that differ first."""
    told = [f"# Members of {cluster}", "", *(f"- {line}" for line in lines), ""]
    return "\n".join([*told, table.to_markdown()])


def member_row(host: str, setting: tuple[str, str, str, str, str]) -> tuple[str, ...]:
    """Make one row of a setting's name, its values and mark; what is the same is not told twice."""
    name, written, runs, reported, mark = setting
    return (host, name, written or "-", SAME if runs == written else runs or "-", reported, mark)
