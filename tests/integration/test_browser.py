"""Approval as people see it: Prefect's own pages in Chromium, from the form to the report.

`make test-browser`, which brings Chromium and Playwright; elsewhere these tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.members import raise_cluster
from tests.integration.runbooks import ROOT, Prefect
from tests.integration.teams import copy_checkout, deploy, environment, worker
from tests.integration.test_approval import count_plans, wait_for_state

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [
    pytest.mark.lab,
    pytest.mark.one_etcd,
    pytest.mark.chaos,
    pytest.mark.timeout(600),
]
PYTHON = ROOT / ".venv-browser" / "bin" / "python"
WALK = ROOT / "tests" / "browser" / "walk.py"
Walk = Callable[..., str]


@pytest.fixture
def walk(prefect: Prefect, tmp_path: Path) -> Iterator[Walk]:
    """Give a person at the server's UI; pictures go to $PICTURES, where it is set."""
    if not PYTHON.exists() or shutil.which("chromium") is None:
        pytest.skip("it needs Chromium and Playwright: make test-browser")
    pictures = os.environ.get("PICTURES", str(tmp_path))
    process = subprocess.Popen(
        [PYTHON, WALK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    own = {"url": str(prefect.api).removesuffix("/api"), "pictures": pictures}

    def act(ui: str, name: str, **words: str) -> str:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps({**own, "ui": ui, "act": name, **words}) + "\n")
        process.stdin.flush()
        said = process.stdout.readline()
        assert said, f"{ui}: {name} did not end"
        return str(json.loads(said))

    yield act
    process.stdin.close()
    process.wait(30)


@pytest.fixture
def deployment(start_lab: StartLab, prefect: Prefect, tmp_path: Path) -> Iterator[str]:
    """Give the form of move_leader for a cluster that wants another person's approval."""
    scene = raise_cluster(start_lab, prefect, tmp_path, spare=0)
    checkout = copy_checkout(tmp_path / "checkout")
    for path in (clusters := checkout / "deployments" / "clusters").glob("*.yaml"):
        path.unlink()
    name = scene.lab.name
    text = scene.inventory.read_text()
    (clusters / f"{name}.yaml").write_text(f"{text}\napproval: second_person\n")
    deploy(prefect, "--name", "move_leader", checkout=checkout)
    subprocess.run(
        [sys.executable, "-m", "tasks.engine.forms"],
        cwd=checkout,
        env=environment(prefect),
        check=True,
    )
    with worker(prefect, checkout):
        yield str(prefect.get(f"/deployments/name/move_leader/move_leader-{name}")["id"])


def test_plans_are_approved_and_rejected_with_the_mouse(
    walk: Walk, deployment: str, prefect: Prefect
) -> None:
    """In both UIs; the second person reads who asked and why, and their note is in the record."""
    reason = "master01 gets new memory"

    def ask(ui: str) -> dict[str, Any]:
        walk(ui, "start", deployment=deployment, reason=reason, tag="asked-by:ada")
        run = wait_for_state(prefect, "PAUSED", 90)
        assert run["parameters"]["dry_run"] is False
        return run

    no = ask("v1")["id"]
    asked = walk("v1", "answer", run=no, answer="reject", by="grace", note="not tonight")
    assert f"reason: {reason}" in asked
    assert "asked for by: ada" in asked
    assert "hand leadership from" in asked
    assert wait_for_state(prefect, "CANCELLED", 90)["state"]["name"] == "Rejected"
    assert "Rejected" in walk("v1", "show", run=no)
    yes = ask("v2")["id"]
    walk("v2", "answer", run=yes, answer="approve", by="grace", note="go")
    wait_for_state(prefect, "COMPLETED", 90)
    page = walk("v2", "show", run=yes)
    assert "waiting for approval" in page
    assert "ERROR" not in page
    own = ask("v2")["id"]
    walk("v2", "answer", run=own, answer="approve", by="Ada", note="mine")
    assert wait_for_state(prefect, "FAILED", 90)["state"]["name"] == "Refused"
    assert count_plans(prefect, yes) == 1
    found = prefect.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [yes]}}})
    report = next(str(one["data"]) for one in found if one["key"].endswith("-report"))
    assert "**approved by:** grace" in report
    listed = walk("v2", "list_runs", states="Rejected,Refused")
    assert "2 Flow runs" in listed
