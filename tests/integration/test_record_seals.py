"""Seals that Prefect's reports keep: a journal that is replaced as a whole is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.engine.journal import Journal
from tasks.model.record import Event
from tests.integration.homes import prepare_home
from tests.integration.runbooks import ROOT, Prefect

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.lab,
    pytest.mark.one_etcd,
    pytest.mark.timeout(300),
]


def flows(prefect: Prefect, *words: str) -> tuple[int, str]:
    """Run a command to its end; returns its status and what it said."""
    command = [sys.executable, "-m", "flows", *words]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=prefect.environment,
        check=False,
        capture_output=True,
        text=True,
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_a_replaced_journal_is_told_by_its_report_in_prefect(tmp_path: Path) -> None:
    """Its own seals fit each other; without a server, too, for the command brings one."""
    prefect = Prefect(prepare_home(tmp_path))
    inventory = tmp_path / "main.yaml"
    example = (ROOT / "deployments/clusters/example.yaml").read_text()
    inventory.write_text(example.replace("name: example", "name: main"))
    flows(prefect, "check_fleet", "--clusters", str(inventory))
    status, said = flows(prefect, "verify", "--reports")
    assert (status, "the seals of 1 journals are in Prefect's reports" in said) == (0, True), said
    (path,) = prefect.journals
    path.unlink()
    with Journal(path) as journal:
        journal.append(Event.RUN_STARTED, runbook="check_fleet", cluster="main", operator="nobody")
        journal.append(Event.RUN_FINISHED, outcome="done")
    assert flows(prefect, "verify")[0] == 0
    status, said = flows(prefect, "verify", "--reports")
    assert status == 1
    assert "it is not the one whose seal its run's report has: it was replaced" in said
