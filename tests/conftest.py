"""How the tests are spread over several workers (`pytest -n`), so that they wait side by side.

The tests of a module stay together (`--dist loadfile`), and share its lab. What takes longest
begins first, so that no long module is left over at the end. What needs Kubernetes nodes begins
last: their programs take the longest to build, beside everything else, and three control planes
slow down what runs beside them, elections of the contract's etcd among it. The contract's tests are
apart by etcd's version, each of which has a cluster of its own.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

LONGEST_FIRST = [
    "test_rotation_interruption",
    "test_secrets",
    "test_automations",
    "test_schedule",
    "test_rotation",
    "test_members",
    "test_record_faults",
    "test_members_interruption",
    "test_exclusion",
    "test_recovery",
    "test_dead_hosts",
    "test_ends",
    "test_odd_hosts",
    "test_restarts",
    "test_rotation_faults",
    "test_refusals",
    "test_repeated_replacements",
    "test_demo",
    "test_adoption",
    "test_field_life",
    "test_field_upkeep",
    "test_full_disk",
    "test_truth_of_health",
    "test_approval",
    "test_bootstrap",
    "test_check_certificates",
    "test_interruption",
    "test_dependents",
]
"""Modules that take more than a minute, by what was seen of each.

The first ones, as many as workers, run on no etcd that is built (`IN_CI` in `lab/versions.py`):
building takes a minute and a half, beside them.
"""

# A busy machine stops a test for longer than Hypothesis's limit of 200 ms for an example.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


VERSION = re.compile(r"\[[^]]*?(\d+\.\d+\.\d+)")
NODES = re.compile(r"\[[^]]*?\b(1\.\d\d\.\d+)")
"""A release of Kubernetes in a test's id: etcd's begin with 3."""


class Spread(LoadFileScheduling):  # type: ignore[misc]
    """Modules, and of the contract's modules the tests of one version, to one worker each.

    All tests on nodes of one release of Kubernetes go to one worker: three nodes are as much as a
    small machine holds.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodes := NODES.search(nodeid):
            return f"nodes of {nodes[1]}"
        module = str(super()._split_scope(nodeid))
        version = VERSION.search(nodeid) if module.startswith("tests/contract/") else None
        return f"{module} {version[1]}" if version else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spread | None:  # noqa: ANN401 - xdist's
    """Spread them so where modules are to stay together."""
    return Spread(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in order."""
    last = len(LONGEST_FIRST)
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    needs_hosts = {item.path for item in items if item.get_closest_marker("lab")}
    needs_nodes = {item.path for item in items if "kubernetes_version" in fixtures_of(item)}

    def rank(item: pytest.Item) -> int:
        if item.path in needs_nodes:
            return last + 2
        return ranks.get(item.path.stem, last + (item.path not in needs_hosts))

    items.sort(key=rank)


def fixtures_of(item: pytest.Item) -> list[str]:
    """List the names of a test's fixtures, indirect ones too."""
    return getattr(item, "fixturenames", [])
