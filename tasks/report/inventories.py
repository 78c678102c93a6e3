"""A change of an inventory, or of another file, as a diff."""

from __future__ import annotations

from difflib import unified_diff


def inventory_diff(before: str, after: str, name: str) -> str:
    """Write what changes in the file, two lines of context about each change."""
    return _diff(before, after, name, f"{name} (wanted)", 2)


def file_diff(before: str, after: str, path: str, model: str, host: str) -> str:
    """Write how a host's file differs from a model's; lines that do not may be secret."""
    said = _diff(before, after, f"{model}:{path}", f"{host}:{path}", 0)
    return said or f"{host}:{path} is as on {model}"


def _diff(before: str, after: str, old: str, new: str, context: int) -> str:
    lines = unified_diff(before.splitlines(), after.splitlines(), old, new, n=context, lineterm="")
    return "\n".join(lines)
