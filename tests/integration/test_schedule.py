"""What a team asks of its server: a deployed schedule yields runs, and they execute."""

from __future__ import annotations

import json
import re
import shutil
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tasks.engine.journal import read_journal
from tasks.model.record import Event, Record
from tests.integration.homes import prepare_home
from tests.integration.postgres import postgres
from tests.integration.runbooks import (
    HANG_SECONDS,
    ROOT,
    Prefect,
    etcdctl,
    prefect_server,
    run_runbook,
)
from tests.integration.teams import copy_checkout, deploy, worker
from tests.integration.test_space import compact, rewrite, sizes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

NAME = "check_certificates/check_certificates"
SPACE = ROOT / "docs" / "space.md"
NIGHTS = 2
FILLED_MB = 120
"""More than the rules leave as it is."""


@pytest.fixture(scope="module")
def lab(start_module_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Bootstrap a cluster."""
    lab, home = start_module_lab(hosts=3), prepare_home(tmp_path_factory.mktemp("home"))
    ended = run_runbook(Prefect(home), "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output
    return lab


def list_runs(prefect: Prefect, deployment: str) -> list[dict[str, Any]]:
    """List a deployment's runs."""
    body = {"deployments": {"id": {"any_": [deployment]}}, "limit": 100}
    found: list[dict[str, Any]] = prefect.ask("/flow_runs/filter", body)
    return found


@pytest.mark.chaos
def test_the_nights_schedule_gives_space_back(lab: Lab, tmp_path: Path) -> None:
    """With the lines of docs/space.md in prefect.yaml, as often as the test can wait.

    The first night gives back what a compaction has left free; the second has nothing to do.
    """
    rewrite(lab, FILLED_MB)
    compact(lab)
    for number in range(3):  # etcd counts what a compaction has freed at its next writes alone
        etcdctl(lab, "put", "later", str(number))
        time.sleep(0.3)
    before = sizes(lab)
    assert min(before.values()) > FILLED_MB << 20
    (lines,) = re.findall(
        r"^```\n(    schedules:\n.*?)```", SPACE.read_text(), re.MULTILINE | re.DOTALL
    )
    often = lines.replace('cron: "40 2 * * *"', "interval: 45").replace(
        "cluster: main", f"cluster: {lab.name}"
    )
    assert often.count(lab.name) == often.count("interval") == 1
    checkout = copy_checkout(tmp_path / "elsewhere")
    shutil.copy(lab.inventory, checkout / "deployments" / "clusters" / f"{lab.name}.yaml")
    file = checkout / "prefect.yaml"
    head, entry, rest = file.read_text().partition("  - name: reclaim_space\n")
    file.write_text(f"{head}{entry}{often}{rest}")
    home = tmp_path / "home"
    home.mkdir()
    with prefect_server(home) as prefect:
        deploy(prefect, "--name", "reclaim_space", checkout=checkout)
        deployment = prefect.get("/deployments/name/reclaim_space/reclaim_space")
        with worker(prefect, checkout):
            deadline = time.monotonic() + HANG_SECONDS
            while len(done := list_done(prefect, deployment["id"])) < NIGHTS:
                assert time.monotonic() < deadline, (home / "worker.log").read_text()[-5000:]
                time.sleep(1)
        nights = [read_journal(path) for path in prefect.journals]
    assert all(run["auto_scheduled"] and run["parameters"]["dry_run"] is False for run in done)
    reasons = [r.details["reason"] for n in nights for r in n if r.event is Event.RUN_STARTED]
    assert set(reasons) == {"nightly"}
    assert [count_defragmented(records) for records in nights[:NIGHTS]] == [3, 0]
    assert all(size < before[name] // 10 for name, size in sizes(lab).items())


def count_defragmented(records: list[Record]) -> int:
    """Count the members that a run gave a new database."""
    return sum(
        r.event is Event.STEP_FINISHED and r.details["step"].startswith("defragment ")
        for r in records
    )


def list_done(prefect: Prefect, deployment: str) -> list[dict[str, Any]]:
    """List a deployment's runs that are done; raises AssertionError where one has failed."""
    runs = list_runs(prefect, deployment)
    bad = [run for run in runs if run["state"]["type"] in {"FAILED", "CRASHED"}]
    assert not bad, (bad[0]["state"], (prefect.home / "worker.log").read_text()[-5000:])
    return [run for run in runs if run["state"]["type"] == "COMPLETED"]


@pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.chaos)]
)
def test_a_deployed_schedule_yields_runs_that_execute(
    lab: Lab, database: str, tmp_path: Path
) -> None:
    """Deployed in one checkout, run by a worker in another, without a variable for either."""
    home = tmp_path / "home"
    home.mkdir()
    with ExitStack() as stack:
        settings = {}
        if database == "postgresql":
            url = stack.enter_context(postgres()).url
            settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = url
        prefect = stack.enter_context(prefect_server(home, **settings))
        deploy(prefect, *(["--all"] if database == "sqlite" else ["--name", "check_certificates"]))
        deployment = prefect.get(f"/deployments/name/{NAME}")
        assert str(ROOT) not in json.dumps(deployment)
        assert [one["schedule"]["cron"] for one in deployment["schedules"]] == ["0 6 * * *"]
        checkout = copy_checkout(tmp_path / "elsewhere")
        shutil.copy(lab.inventory, checkout / "deployments" / "clusters" / f"{lab.name}.yaml")
        stack.enter_context(worker(prefect, checkout))
        schedule = {
            "schedule": {"interval": 20},
            "active": True,
            "parameters": {"clusters": [lab.name]},
        }
        prefect.ask(f"/deployments/{deployment['id']}/schedules", [schedule])
        deadline = time.monotonic() + HANG_SECONDS
        while len(done := list_done(prefect, deployment["id"])) < NIGHTS:
            assert time.monotonic() < deadline, (home / "worker.log").read_text()[-5000:]
            time.sleep(1)
        assert all(run["auto_scheduled"] for run in done)
        assert all("etcd-runbooks" in run["tags"] for run in done)
