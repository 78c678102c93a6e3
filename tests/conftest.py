"""How the tests are spread over several workers (`pytest -n`), so that they wait side by side.

The tests of a module stay together (`--dist loadfile`), and share its lab. What takes longest
begins first, so that no long module is left over at the end.
"""

from __future__ import annotations

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in order."""
    last = len(LONGEST_FIRST)
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    needs_hosts = {item.path for item in items if item.get_closest_marker("lab")}
    items.sort(key=lambda item: ranks.get(item.path.stem, last + (item.path not in needs_hosts)))
