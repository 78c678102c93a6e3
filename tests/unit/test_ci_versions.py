"""What CI runs on which etcd is what `IN_CI` says, and nothing waits for a build at the start."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from tests.conftest import LONGEST_FIRST, Spread
from tests.lab.go_modules import RELEASES
from tests.lab.versions import IN_CI, VERSIONS

WORKERS = 3
"""As the Makefile has it."""


def test_each_module_that_is_named_is_there_and_runs_on_one_version() -> None:
    """A name that no module has would run on 3.5 without a word."""
    named = list(chain.from_iterable(IN_CI.values()))
    there = {path.stem for path in (Path(__file__).parents[1] / "integration").glob("test_*.py")}
    assert set(named) | set(LONGEST_FIRST) <= there
    assert len(named) == len(set(named))
    assert set(IN_CI) <= set(VERSIONS)


def test_the_first_modules_wait_for_no_build() -> None:
    """What runs first is on no release that is built, so that the build goes on beside it."""
    built = {v for v, release in VERSIONS.items() if RELEASES.fullmatch(release)}
    waiting = set(chain.from_iterable(IN_CI[version] for version in built))
    assert not waiting & set(LONGEST_FIRST[:WORKERS])


@pytest.mark.parametrize(
    ("test", "scope"),
    [
        ("tests/integration/test_a.py::test_it[1.37.2]", "nodes of 1.37.2"),
        ("tests/integration/test_b.py::Test::test_it[name-1.37.2]", "nodes of 1.37.2"),
        ("tests/integration/test_b.py::test_it[1.34.4]", "nodes of 1.34.4"),
        ("tests/integration/test_b.py::test_it[3.7]", "tests/integration/test_b.py"),
        ("tests/contract/test_etcd.py::test_it[real-3.7.3]", "tests/contract/test_etcd.py 3.7.3"),
    ],
)
def test_nodes_of_one_release_are_one_workers(test: str, scope: str) -> None:
    """Modules stay together, and three nodes at a time are enough for a small machine."""
    assert Spread.__new__(Spread)._split_scope(test) == scope
