"""What somebody who may write to Prefect's API can make a worker's account do.

Each attack would run code of the attacker's, which leaves a mark. On Prefect's own worker it does:
else the attack would prove nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runbooks import Prefect, prefect_server
from tests.integration.teams import BOUNDED, PREFECTS, copy_checkout, deploy, worker

pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.timeout(300)]

ASKED = {"parameters": {"cluster": "nowhere"}}
SECONDS = 120.0
Variables = dict[str, Any]
CODE = """
import pathlib
pathlib.Path({mark!r}).touch()
from prefect import flow

@flow
def check_health(cluster: str, reason: str | None = None):
    pass
"""


class Attacker:
    """Who may write to the API, and has put code somewhere on the worker's machine."""

    def __init__(self, prefect: Prefect, place: Path) -> None:
        self.prefect, self.place = prefect, place
        self.deployment = prefect.get("/deployments/name/check_health/check_health")

    def mark(self, attack: str) -> Path:
        """Say where an attack leaves its mark."""
        return self.place / f"{attack}.mark"

    def write(self, attack: str, name: str) -> Path:
        """Put code there; returns the directory."""
        path = self.place / attack / name
        path.parent.mkdir(parents=True)
        path.write_text(CODE.format(mark=str(self.mark(attack))))
        return self.place / attack

    def start(self, variables: Variables) -> str:
        """Start a run; returns its id."""
        path = f"/deployments/{self.deployment['id']}/create_flow_run"
        given = {"job_variables": variables} if variables else {}
        return str(self.prefect.ask(path, {**ASKED, **given})["id"])

    def run(self, variables: Variables) -> dict[str, Any]:
        """Start a run and wait for its end; returns its state."""
        run = self.start(variables)
        deadline = time.monotonic() + SECONDS
        while True:
            state: dict[str, Any] = self.prefect.get(f"/flow_runs/{run}")["state"]
            if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return state
            assert time.monotonic() < deadline, state
            time.sleep(0.3)

    def change(self, path: str, body: dict[str, Any]) -> None:
        """PATCH something of Prefect's."""
        self.prefect.ask(path, body, "PATCH")

    def change_deployment(self, **body: Any) -> None:  # noqa: ANN401 - its fields
        """PATCH the deployment."""
        self.change(f"/deployments/{self.deployment['id']}", body)


def command(attacker: Attacker) -> Variables:
    """Give the run a command of its own."""
    return {"command": f"touch {attacker.mark('command')}"}


def env(attacker: Attacker) -> Variables:
    """Let Python load a module of the attacker's when it starts."""
    return {"env": {"PYTHONPATH": str(attacker.write("env", "sitecustomize.py"))}}


def working_dir(attacker: Attacker) -> Variables:
    """Let the runbook be taken from another directory."""
    there = attacker.write("working_dir", "flows/check_health.py")
    (there / "flows" / "__main__.py").touch()
    return {"working_dir": str(there)}


def pull_steps(attacker: Attacker) -> Variables:
    """Let the deployment run a script before the flow."""
    script = {"script": f"touch {attacker.mark('pull_steps')}"}
    attacker.change_deployment(pull_steps=[{"prefect.deployments.steps.run_shell_script": script}])
    return {}


def entrypoint(attacker: Attacker) -> Variables:
    """Let the deployment name another file."""
    there = attacker.write("entrypoint", "evil.py") / "evil.py"
    attacker.change_deployment(entrypoint=f"{there}:check_health")
    return {}


def template(attacker: Attacker) -> Variables:
    """Let the work pool's template fix the command."""
    pool = attacker.prefect.get("/work_pools/etcd")["base_job_template"]
    pool["job_configuration"]["command"] = f"touch {attacker.mark('template')}"
    attacker.change("/work_pools/etcd", {"base_job_template": pool})
    return {}


ATTACKS: tuple[Callable[[Attacker], Variables], ...] = (
    command,
    env,
    working_dir,
    entrypoint,
    pull_steps,
    template,
)


@contextlib.contextmanager
def attacked(place: Path, program: tuple[str, ...]) -> Iterator[Attacker]:
    """Start a server, and a worker of that kind in a checkout of its own."""
    home = place / "home"
    home.mkdir()
    checkout = copy_checkout(place / "checkout")
    with prefect_server(home) as prefect:
        deploy(prefect, "--name", "check_health", checkout=checkout)
        with worker(prefect, checkout, program):
            yield Attacker(prefect, place)


def test_the_api_says_which_runbook_runs_and_no_more(tmp_path: Path) -> None:
    """All at once are answered by the runbook; a flow that is none of its own is refused."""
    with attacked(tmp_path, BOUNDED) as attacker:
        variables: Variables = {}
        for attack in ATTACKS:
            variables |= attack(attacker)
        expect_the_runbook(attacker.run(variables))
        other = attacker.prefect.ask("/flows/", {"name": "evil"})["id"]
        body = {"name": "evil", "flow_id": other, "work_pool_name": "etcd", "entrypoint": "e.py:e"}
        attacker.deployment = attacker.prefect.ask("/deployments/", body)
        state = attacker.run({})
        assert (state["name"], state["type"]) == ("Refused", "FAILED")
        assert state["message"].startswith("evil is no runbook of this worker's checkout")
        assert not list(tmp_path.glob("*.mark"))
        # By its name the UI's list of runs finds them.
        named = {"flow_runs": {"state": {"name": {"any_": ["Refused"]}}}}
        found = attacker.prefect.ask("/flow_runs/filter", named)
        assert len(found) == 2
        seen = attacker.prefect.get("/observed-states")
        assert "Refused" in {one["state_name"] for one in seen}


@pytest.mark.chaos
@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_does_what_it_would_on_prefects_own_worker_alone(
    tmp_path: Path, attack: Callable[[Attacker], Variables]
) -> None:
    """Else the test above would hold whatever the worker did."""
    with attacked(tmp_path, PREFECTS) as attacker:
        # Its state is the attacker's, too: a command that ends well leaves the run under way.
        attacker.start(attack(attacker))
        deadline = time.monotonic() + SECONDS
        while not attacker.mark(attack.__name__).exists():
            assert time.monotonic() < deadline, (attacker.place / "home/worker.log").read_text()
            time.sleep(0.3)


def expect_the_runbook(state: dict[str, Any]) -> None:
    """Raise unless check_health itself has answered, that there is no such cluster."""
    assert state["name"] == "Refused", state
    assert "no such inventory file" in state["message"], state
