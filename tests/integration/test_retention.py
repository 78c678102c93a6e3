"""Retention on a real host: what is old and done goes, everything else stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.engine.journal import Journal
from tasks.model.record import Event
from tests.integration.homes import prepare_home
from tests.integration.runbooks import Prefect, run_runbook

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.timeout(300)]

BACKUPS = "/var/backups/etcd-runbooks"
RULES = "\nretention: {journals_days: 30, backups_days: 60, backups_keep: 1}\n"


def write_run(folder: Path, days: int, run: str, outcome: str) -> tuple[Path, str]:
    """Write the journal of a run that changed something; returns it and its directory's name."""
    began = datetime.now(UTC) - timedelta(days=days)
    path = folder / f"{began:%Y%m%dT%H%M%S.%fZ}-{run}.jsonl"
    about = {"step": "write", "host": "master01", "task_run": None}
    with Journal(path) as journal:
        journal.append(Event.RUN_STARTED, runbook="rotate_certificates", run=run, operator="x")
        journal.append(Event.STEP_FINISHED, **about, seconds=1, changed=True)
        journal.append(Event.RUN_FINISHED, outcome=outcome)
    return path, f"{began:%Y%m%dT%H%M%SZ}-{run[:8]}"


def test_only_what_is_old_and_done_goes_and_a_dry_run_says_it(
    start_lab: StartLab, tmp_path: Path
) -> None:
    """The backups of an unfinished and of a stranger's run stay; journals are read as before."""
    lab = start_lab(hosts=1)
    host, prefect = lab["master01"], Prefect(prepare_home(tmp_path / "home"))
    inventory = tmp_path / f"{lab.name}.yaml"
    inventory.write_text(lab.inventory.read_text() + RULES)
    folder = prefect.home / "etcd-runbooks" / "journal" / lab.name
    done, old = write_run(folder, 90, "aaaaaaaa-1", "done")
    _, recent = write_run(folder, 50, "bbbbbbbb-1", "done")
    _, broken = write_run(folder, 80, "cccccccc-1", "Unverified: cut")
    # The one that stopped in the middle is the last one of its kind.
    last, unfinished = write_run(folder, 40, "dddddddd-1", "Unverified: cut")
    strangers = f"{datetime.now(UTC) - timedelta(days=99):%Y%m%dT%H%M%SZ}-eeeeeeee"
    names = (old, recent, broken, unfinished, strangers, "by-hand")
    host.run(f"mkdir -p {BACKUPS} && cd {BACKUPS} && mkdir {' '.join(names)}").check()
    dry = run_runbook(prefect, "apply_retention", inventory, "--dry-run", named="--clusters")
    assert dry.status == 0, dry.output
    assert "compress 4 journal(s)" in dry.output
    assert "remove what 2 run(s) have replaced" in dry.output
    assert len(host.run(f"ls {BACKUPS}").stdout.split()) == len(names)
    ended = run_runbook(prefect, "apply_retention", inventory, named="--clusters")
    assert ended.status == 0, ended.output
    left = host.run(f"ls {BACKUPS}").stdout.split()
    assert sorted(left) == sorted((recent, unfinished, strangers, "by-hand"))
    assert not done.exists()
    assert (folder / f"{last.name}.gz").exists()
    again = run_runbook(prefect, "apply_retention", inventory, named="--clusters")
    assert again.status == 0, again.output
    assert "compress" not in again.output
    shown = run_runbook(prefect, "verify", Path(lab.name), named="--cluster")
    assert (shown.status, "all as written" in shown.output) == (0, True), shown.output
