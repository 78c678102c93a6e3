"""pytest fixtures that start labs and take them down, whatever the test did.

    pytest_plugins = ["tests.lab.fixtures"]

    def test_a_power_cut(start_lab: StartLab) -> None:
        lab = start_lab(hosts=3)

Labs have unique names and may exist side by side; they belong to the pytest process, so those of
a killed one are removed by the next that starts a lab. Where labs cannot run, the test is skipped
with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.lab.lab import Lab
from tests.lab.preparedness import unavailable_reason

pytest_plugins = ["tests.lab.versions"]

StartLab = Callable[..., Lab]
"""Starts a lab; takes what `Lab.start` takes. Etcd is the test's `etcd_version` unless given."""


@pytest.fixture
def start_lab(etcd_version: str) -> Iterator[StartLab]:
    """Start labs that end with the test."""
    with _factory(etcd_version) as start:
        yield start


@pytest.fixture(scope="module")
def start_module_lab(etcd_version: str) -> Iterator[StartLab]:
    """Start labs that end with the module: for tests that leave their hosts as they were."""
    with _factory(etcd_version) as start:
        yield start


@contextmanager
def _factory(etcd: str) -> Iterator[StartLab]:
    if (reason := unavailable_reason()) is not None:
        pytest.skip(reason)
    with ExitStack() as labs:
        yield lambda *name, **options: labs.enter_context(
            Lab.start(*name, **{"etcd": etcd, **options})
        )
