"""An inventory's change, as a diff."""

from __future__ import annotations

from difflib import unified_diff


def inventory_diff(before: str, after: str, name: str) -> str:
    """Write what changes in the file, two lines of context about each change."""
    lines = unified_diff(
        before.splitlines(), after.splitlines(), name, f"{name} (wanted)", n=2, lineterm=""
    )
    return "\n".join(lines)
