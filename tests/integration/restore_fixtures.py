"""The cluster that tests of restores share in a module, and the words that its version needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.restores import KEYS
from tests.integration.runbooks import Prefect, etcdctl, run_runbook
from tests.lab.etcd_programs import INSTALLED

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab


@pytest.fixture(scope="module")
def lab(start_module_lab: StartLab, prefect: Prefect) -> Lab:
    """Bootstrap a cluster that has some keys, and save a snapshot of it."""
    lab = start_module_lab(hosts=3)
    ended = run_runbook(prefect, "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output
    for number in range(KEYS):
        etcdctl(lab, "put", f"key{number}", "x" * 1000)
    ended = run_runbook(prefect, "take_snapshot", lab.inventory, named="--clusters")
    assert ended.status == 0, ended.output
    return lab


@pytest.fixture
def words(lab: Lab, etcd_version: str) -> tuple[str, ...]:
    """Give consent, and what else this version needs a word for."""
    old = ("--accept", "old-revisions") if etcd_version == INSTALLED else ()
    return ("--consent", lab.name, *old)
