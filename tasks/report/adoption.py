"""What an adoption found, for people."""

from __future__ import annotations

from tasks.model.adoption import FoundEtcd
from tasks.report.tables import Table

COLUMNS = ("host", "member", "version", "runs", "account", "settings from", "certificate")


def adoption_table(found: tuple[FoundEtcd, ...]) -> Table:
    """One row a host: what runs there, and where it has its settings from."""
    return Table(
        COLUMNS,
        tuple(
            (
                one.host,
                one.setting("NAME", "?"),
                one.version or "?",
                "yes" if one.is_running else "no",
                one.account,
                one.environment_file or one.unit_path or one.manifest,
                one.setting("CERT_FILE", "none"),
            )
            for one in found
        ),
    )


def adoption_markdown(
    cluster: str, path: str, text: str, table: Table, remarks: tuple[str, ...]
) -> str:
    """Write the artifact: the inventory, what runs, and what the operator should know."""
    lines = [f"# Adopted: {cluster}", "", f"The inventory is {path}.", "", table.to_markdown(), ""]
    lines += ["## To be seen to", "", *(f"- {remark}" for remark in remarks or ("nothing",)), ""]
    return "\n".join([*lines, "## The inventory", "", "```yaml", text.rstrip(), "```"])
