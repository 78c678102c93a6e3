"""A plan waits for a person: on the command line, over the API, with a worker and without one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.homes import prepare_home
from tests.integration.members import Scene, check_cluster, list_members, raise_cluster
from tests.integration.runbooks import HANG_SECONDS, ROOT, Ended, Prefect, finish, start_runbook
from tests.integration.teams import copy_checkout, deploy, worker

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


@pytest.fixture
def scene(start_lab: StartLab, prefect: Prefect, tmp_path: Path) -> Scene:
    """Two of three members are up, and a spare host."""
    scene = raise_cluster(start_lab, prefect, tmp_path)
    scene.lab["master02"].run("systemctl stop etcd").check()
    return scene


def words(scene: Scene) -> list[str]:
    """List the options of the replacement, with approval."""
    return [
        *("--member", "master02", "--replacement", scene.address("master04")),
        *("--write-inventory", "--approval"),
    ]


def wait_for_state(prefect: Prefect, kind: str, seconds: float = 60) -> dict[str, Any]:
    """Wait until the newest run is in a state; returns it."""
    deadline = time.monotonic() + seconds
    body = {"sort": "START_TIME_DESC", "limit": 1}
    while True:
        found: list[dict[str, Any]] = prefect.ask("/flow_runs/filter", body)
        if found and found[0]["state"]["type"] == kind:
            return found[0]
        assert time.monotonic() < deadline, [run["state"] for run in found]
        time.sleep(0.3)


def count_plans(prefect: Prefect, run: str) -> int:
    """Count the plans on a run's page: it begins anew after the answer, and shows the same one."""
    found = prefect.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    return sum(artifact["key"].endswith("-plan") for artifact in found)


def approve(prefect: Prefect, run: str, *options: str) -> Ended:
    """Answer on the command line."""
    ended = subprocess.run(
        [sys.executable, "-m", "flows", "approve", run, *options],
        cwd=ROOT,
        env=prefect.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def test_the_command_line_approves_and_the_run_goes_on(scene: Scene, prefect: Prefect) -> None:
    """Nothing is changed before; who said yes is in the report; a second answer is refused."""
    process = start_runbook(prefect, "replace_member", scene.inventory, *words(scene))
    run = wait_for_state(prefect, "PAUSED")
    assert set(list_members(scene.lab, "master01")) == {"master01", "master02", "master03"}
    assert not (scene.lab["master04"].root / "etc/etcd").exists()
    said = approve(prefect, run["id"], "--by", "Ada", "--note", "go")
    assert said.status == 0, said.output
    ended = finish(process)
    assert ended.status == 0, ended.output
    assert f"python -m flows approve {run['id']}" in ended.output
    assert "approved by Ada" in ended.output
    check_cluster(prefect, scene, ["master01", "master04", "master03"])
    assert approve(prefect, run["id"]).status == 2
    report = prefect.ask("/artifacts/filter", {"sort": "CREATED_DESC", "limit": 20})
    assert any("**approved by:** Ada" in str(artifact["data"]) for artifact in report)
    assert count_plans(prefect, run["id"]) == 1


def test_a_rejected_plan_and_an_answer_without_a_word_change_nothing(
    scene: Scene, prefect: Prefect
) -> None:
    """A resume without the form's field is not a yes."""
    process = start_runbook(prefect, "replace_member", scene.inventory, *words(scene))
    run = wait_for_state(prefect, "PAUSED")
    for body in ({}, {"run_input": {"by": "Eve"}}):
        assert prefect.ask(f"/flow_runs/{run['id']}/resume", body)["status"] == "REJECT"
    assert approve(prefect, run["id"], "--reject", "--note", "not tonight").status == 0
    ended = finish(process)
    assert ended.status == 2, ended.output
    assert "rejected: " in ended.output
    assert "not tonight" in ended.output
    assert "master04" not in list_members(scene.lab, "master01")
    assert approve(prefect, "00000000-0000-0000-0000-000000000000").status == 2


@pytest.mark.chaos
def test_a_plan_that_is_not_the_approved_one_any_more_is_refused(
    scene: Scene, prefect: Prefect
) -> None:
    """The cluster changed while the form was open."""
    process = start_runbook(prefect, "replace_member", scene.inventory, *words(scene))
    run = wait_for_state(prefect, "PAUSED")
    scene.lab["master04"].run("useradd --system etcd").check()
    assert approve(prefect, run["id"], "--by", "Ada").status == 0
    ended = finish(process)
    assert ended.status == 2, ended.output
    assert "the cluster has changed since the plan was shown" in ended.output
    assert "master04" not in list_members(scene.lab, "master01")


@pytest.mark.chaos
def test_without_a_server_the_command_line_finds_the_run_in_the_same_home(
    scene: Scene, tmp_path: Path
) -> None:
    """Both processes bring an API of their own over one database."""
    alone = Prefect(prepare_home(tmp_path / "home"))
    process = start_runbook(alone, "replace_member", scene.inventory, *words(scene))
    run, deadline = None, time.monotonic() + HANG_SECONDS
    while run is None:
        assert time.monotonic() < deadline
        time.sleep(0.5)
        for journal in alone.journals:
            lines = [json.loads(line) for line in journal.read_text().splitlines()]
            if any(line["event"] == "run-finished" for line in lines):
                run = next(line["run"] for line in lines if line["event"] == "run-started")
    said = approve(alone, run, "--by", "Ada")
    assert said.status == 0, said.output
    ended = finish(process)
    assert ended.status == 0, ended.output


def test_under_a_worker_the_run_is_suspended_and_resumed(
    scene: Scene, prefect: Prefect, tmp_path: Path
) -> None:
    """Its process ends; the answer comes over the API, as the UI sends it."""
    deploy(prefect, "--name", "replace_member")
    checkout = copy_checkout(tmp_path / "checkout")
    inventory = checkout / "deployments" / "clusters" / f"{scene.lab.name}.yaml"
    shutil.copy(scene.inventory, inventory)
    with worker(prefect, checkout):
        deployment = prefect.get("/deployments/name/replace_member/replace_member")
        parameters = {
            "cluster": scene.lab.name,
            "member": ["master02"],
            "replacement": [scene.address("master04")],
            "write_inventory": True,
            "approval": True,
            "dry_run": False,
        }
        body = {"parameters": parameters}
        prefect.ask(f"/deployments/{deployment['id']}/create_flow_run", body)
        run = wait_for_state(prefect, "PAUSED", 90)
        assert run["state"]["name"] == "Suspended"
        answer = {"run_input": {"answer": "approve", "by": "Ada", "note": ""}}
        assert prefect.ask(f"/flow_runs/{run['id']}/resume", answer)["status"] == "ACCEPT"
        wait_for_state(prefect, "COMPLETED", 120)
    assert count_plans(prefect, run["id"]) == 1
    told = replace(scene, inventory=inventory)
    check_cluster(prefect, told, ["master01", "master04", "master03"])
