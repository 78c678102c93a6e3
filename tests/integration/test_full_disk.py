"""PREFECT_HOME on a disk that is full: no run begins there, and the operator is told in a sentence.

A disk that fills up in mid-run is in test_record_faults.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.faults import SmallDisk
from tests.integration.runbooks import ROOT, Prefect, run_runbook

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mount one of 16 MB."""
    with SmallDisk(tmp_path / "home", 16) as disk:
        yield disk


@pytest.mark.parametrize("left", [0, 4], ids="{} MB left".format)
def test_on_a_full_disk_a_run_is_refused_in_a_sentence(disk: SmallDisk, left: int) -> None:
    """Before Prefect, or anything on it, is touched."""
    disk.fill(left)
    before = sorted(disk.path.rglob("*"))
    ended = run_runbook(Prefect(disk.path), "check_health", disk.path / "nowhere.yaml")
    assert ended.status == 2
    assert not ended.stdout
    assert len(ended.stderr.splitlines()) == 1
    assert "(No space left on device); nothing was changed. Make room there" in ended.stderr
    assert set(disk.path.rglob("*")) <= {*before, *list_own(disk.path)}
    disk.free()
    again = run_runbook(Prefect(disk.path), "check_health", disk.path / "nowhere.yaml")
    assert "no such inventory" in again.stderr


def list_own(home: Path) -> list[Path]:
    """List the empty directory and file that may be there all the same."""
    own = home / "etcd-runbooks"
    return [own, own / "prefect.log"]


def test_a_workers_run_on_a_full_disk_is_refused_as_well(disk: SmallDisk) -> None:
    """It has no command line around it, and its record is on the server."""
    disk.fill(0)
    said = subprocess.run(
        [sys.executable, "-c", WORKER],
        cwd=ROOT,
        env=Prefect(disk.path).environment,
        capture_output=True,
        text=True,
        check=True,
    )
    name, message = json.loads(said.stdout.splitlines()[-1])
    assert name == "Refused"
    assert "No space left on device" in message
    assert message.endswith("Nothing was changed.")


WORKER = """
import asyncio, json
from flows.check_health import check_health
state = asyncio.run(check_health.fn(cluster="nowhere"))
print(json.dumps([state.name, state.message]))
"""
