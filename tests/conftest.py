"""How the tests are spread over several workers (`pytest -n`), so that they wait side by side.

Tests that share a lab, a server or another fixture of their module stay together, in their order;
every other test goes to whoever is free. What takes longest begins first, so that no long group is
left over at the end.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

LONGEST_FIRST = [
    "test_rotation_interruption",
    "test_secrets",
    "test_rotation",
    "test_demo",
    "test_recovery",
    "test_members",
    "test_refusals",
    "test_members_interruption",
    "test_exclusion",
    "test_rotation_faults",
    "test_approval",
    "test_adoption",
    "test_check_certificates",
    "test_bootstrap",
    "test_interruption",
    "test_dependents",
    "test_schedule",
    "test_automations",
]
"""Modules that take more than a minute, measured with `--durations=0`."""

AT_MOST = {
    "test_interruption": 3,
    "test_exclusion": 4,
    "test_members": 3,
    "test_members_interruption": 10,
    "test_rotation": 6,
    "test_rotation_interruption": 5,
}
"""Long modules whose tests can do without each other: so many tests make a group, with its lab."""


def _shares(item: pytest.Item) -> bool:
    """Tell whether a test uses a fixture that lives longer than the test."""
    information: Any = getattr(item, "_fixtureinfo", None)
    found = information.name2fixturedefs.values() if information is not None else ()
    return any(last.scope == "module" for *_, last in found)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in order, and mark their groups."""
    last = len(LONGEST_FIRST)
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    needs_hosts = {item.path for item in items if item.get_closest_marker("lab")}
    items.sort(key=lambda item: ranks.get(item.path.stem, last + (item.path not in needs_hosts)))
    seen: Counter[str] = Counter()
    for item in items:
        if _shares(item):
            # Chaos runs are counted apart, for CI's groups hold none of them.
            module = item.path.stem + ("-chaos" if item.get_closest_marker("chaos") else "")
            part = seen[module] // AT_MOST.get(item.path.stem, 1000)
            item.add_marker(pytest.mark.xdist_group(f"{module}-{part}"))
            seen[module] += 1
