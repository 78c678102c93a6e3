"""A worker's start: by the unit of deployments/, and in a place that has none of the flows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.runbooks import HANG_SECONDS, ROOT, prefect_server
from tests.integration.teams import CHECKOUT as HOME
from tests.integration.teams import PREFECTS, checkout_on, deploy, worker

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.host import Host

pytest_plugins = ["tests.lab.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.timeout(300)]

UNIT = "etcd-runbooks-worker@.service"
WORKER = "etcd-runbooks-worker@1"
PREFECT = f"cd {HOME} && PREFECT_API_URL=http://127.0.0.1:4200/api .venv/bin/prefect --no-prompt"
SECONDS = 120.0


def test_a_worker_outside_a_checkout_has_its_runs_refused(tmp_path: Path) -> None:
    """In a sentence that says where it was started, and the command that starts it right."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    with prefect_server(home) as prefect:
        deploy(prefect, "--name", "check_health")
        deployment = prefect.get("/deployments/name/check_health/check_health")["id"]
        body = {"parameters": {"cluster": "nowhere"}}
        run = prefect.ask(f"/deployments/{deployment}/create_flow_run", body)["id"]
        with worker(prefect, elsewhere, PREFECTS):
            deadline = time.monotonic() + HANG_SECONDS
            while "Process exited with status code" not in (
                log := (home / "worker.log").read_text()
            ):
                assert time.monotonic() < deadline, log
                time.sleep(0.5)
        state = prefect.get(f"/flow_runs/{run}")["state"]
    assert (state["name"], state["type"]) == ("Refused", "FAILED")
    assert state["message"].startswith(f"the worker was started in {elsewhere}, which is no")
    assert "`cd CHECKOUT && .venv/bin/prefect worker start --pool etcd" in state["message"]


@pytest.fixture
def host(start_lab: StartLab) -> Iterator[Host]:
    """Put a checkout with its environment where the unit expects them on a host."""
    host = start_lab(hosts=1)["master01"]
    with checkout_on(host):
        yield host


def wait(host: Host, command: str) -> str:
    """Run a command on the host until it succeeds; returns what it said."""
    deadline = time.monotonic() + SECONDS
    while (ended := host.run(command, timeout=SECONDS)).status != 0:
        journal = host.run("journalctl --no-pager -n 60").stdout
        assert time.monotonic() < deadline, ended.stdout + ended.stderr + journal
        time.sleep(0.5)
    return ended.stdout


@pytest.mark.chaos
def test_the_unit_starts_a_worker_that_executes_a_run(host: Host) -> None:
    """Installed as its head says, beside a server."""
    server = f"{HOME}/.venv/bin/prefect server start"
    host.run(f"systemd-run --unit=server --setenv=PREFECT_HOME=/var/lib/server {server}").check()
    wait(host, f"{PREFECT} work-pool create etcd --type process")
    host.run(f"{PREFECT} deploy --name check_health", timeout=SECONDS).check()
    for step in comments(UNIT):
        host.run(step, timeout=SECONDS).check()
    start = f"{PREFECT} deployment run check_health/check_health --param cluster=nowhere"
    said = host.run(f"{start} --watch", timeout=SECONDS)
    assert "Refused" in said.stdout + said.stderr, host.run(f"journalctl -u {WORKER}").stdout
    assert host.run(f"systemctl is-active {WORKER}").check().stdout.strip() == "active"
    told = host.run("cat /var/lib/etcd-runbooks-worker/etcd-runbooks/runs/*.jsonl").check().stdout
    assert "no such inventory file" in told
    for step in comments("etcd-runbooks-forms.service"):
        host.run(step, timeout=SECONDS).check()
    host.run(f"printf 'name: [' > {HOME}/deployments/clusters/new.yaml").check()
    wait(host, f"{PREFECT} deployment inspect check_health/check_health | grep -q '\\bnew\\b'")


def comments(unit: str) -> list[str]:
    """List the commands in a unit's head."""
    head = (ROOT / "deployments" / unit).read_text().split("[Unit]")[0].splitlines()
    return [line.removeprefix("#   ") for line in head if line.startswith("#   ")]
