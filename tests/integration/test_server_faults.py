"""Parts of a team's server, or its worker, die while a worker's run rotates certificates.

No step stays half-done, Prefect ends no run, and every step is recorded at the end.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tests.integration.faults import check_record
from tests.integration.rotations import find_strangers, serials
from tests.integration.runbooks import Prefect, run_runbook
from tests.integration.servers import TeamServer
from tests.integration.teams import copy_checkout, deploy, kill_all, worker

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(400)]

STEPS = 30
RUN_SECONDS = 150.0
ENDS = {"Completed", "Failed", "Refused", "Crashed", "Cancelled", "Interrupted", "LockedOut"}
PARTS = ("postgresql", "redis", "one", "other", "services", "proxy")
SEEDS = range(1, 4)


@dataclass(frozen=True)
class Team:
    """A cluster, a server, and the checkout that its workers run from."""

    lab: Lab
    server: TeamServer
    checkout: Path

    @property
    def prefect(self) -> Prefect:
        """The API, by way of the proxy, and where journals are."""
        return self.server.prefect

    def start(self, runbook: str, **parameters: object) -> str:
        """Start a run as the UI does; returns its id."""
        deployment = self.prefect.get(f"/deployments/name/{runbook}/{runbook}")["id"]
        body = {"parameters": {"cluster": self.lab.name, **parameters}}
        run = self.prefect.ask(f"/deployments/{deployment}/create_flow_run", body)["id"]
        return str(run)

    def wait(self, run: str) -> list[str]:
        """Wait for a run's end; returns the names of its states."""
        deadline = time.monotonic() + RUN_SECONDS
        while (states := self.states(run))[-1] not in ENDS:
            log = (self.prefect.home / "worker.log").read_text()
            assert time.monotonic() < deadline, (states, log[-5000:])
            time.sleep(1)
        return states

    def states(self, run: str) -> list[str]:
        """Name the states that a run has been in."""
        found = self.prefect.get(f"/flow_run_states/?flow_run_id={run}")
        return [one["name"] for one in sorted(found, key=lambda one: one["timestamp"])]

    def wait_for_step(self, run: str, number: int) -> None:
        """Wait until a run has begun so many steps."""
        deadline = time.monotonic() + RUN_SECONDS
        while True:
            for path in self.prefect.journals:
                begun = [r for r in read_journal(path) if r.event is Event.STEP_STARTED]
                if run in path.name and len(begun) >= number:
                    return
            assert time.monotonic() < deadline, (self.prefect.home / "worker.log").read_text()
            time.sleep(0.02)


@pytest.fixture(scope="module")
def team(start_module_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Bring up a cluster and a server, and deploy."""
    lab = start_module_lab(hosts=3)
    alone = Prefect(tmp_path_factory.mktemp("alone"))
    assert run_runbook(alone, "bootstrap_cluster", lab).status == 0
    checkout = copy_checkout(tmp_path_factory.mktemp("checkout"))
    shutil.copy(lab.inventory, checkout / "deployments" / "clusters" / f"{lab.name}.yaml")
    with TeamServer(tmp_path_factory.mktemp("server")) as server:
        deploy(server.prefect, "--all", checkout=checkout)
        yield Team(lab, server, checkout)


@pytest.fixture(scope="module")
def working(team: Team) -> Iterator[Any]:
    """Start a worker for the tests that do not kill it."""
    with worker(team.prefect, team.checkout) as process:
        yield process


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_server_that_is_killed_costs_nothing(
    team: Team, part: str, seed: int
) -> None:
    """It is away for some seconds, from a random step on."""
    chance = random.Random(f"{part} {seed}")  # noqa: S311 - not a secret
    before = serials(team.lab)
    run = team.start("rotate_certificates", which="all", dry_run=False, reason=f"{part} away")
    team.wait_for_step(run, chance.randint(1, STEPS))
    team.server.restart(part, chance.uniform(0, 8))
    assert team.wait(run)[-1] == "Completed"
    assert "Crashed" not in team.states(run)
    assert all(before[name] != now for name, now in serials(team.lab).items())
    assert not find_strangers(team.lab)
    team.wait(team.start("check_health"))
    assert check_record(team.prefect) == (0, 0, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_worker_that_is_told_to_stop_ends_its_run_first(team: Team, seed: int) -> None:
    """And takes no further one, which another worker does meanwhile."""
    chance = random.Random(f"drain {seed}")  # noqa: S311 - not a secret
    with worker(team.prefect, team.checkout) as draining:
        run = team.start("rotate_certificates", which="all", dry_run=False, reason="a stop")
        team.wait_for_step(run, chance.randint(1, STEPS))
        draining.send_signal(signal.SIGTERM)
        with worker(team.prefect, team.checkout):
            other = team.start("check_health")
            assert team.wait(run)[-1] == "Completed"
            assert draining.wait(30) == 0
            assert team.wait(other)[-1] == "Completed"
    assert check_record(team.prefect) == (0, 0, 0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("all_of_it", [True, False], ids=["power cut", "worker alone"])
def test_a_worker_that_is_killed_leaves_nothing_half_done(
    team: Team, seed: int, all_of_it: bool
) -> None:
    """Another worker's run goes on from there, and brings the record of the dead one."""
    chance = random.Random(f"worker {seed} {all_of_it}")  # noqa: S311 - not a secret
    before = serials(team.lab)
    with worker(team.prefect, team.checkout) as dying:
        run = team.start("rotate_certificates", which="all", dry_run=False, reason="a power cut")
        team.wait_for_step(run, chance.randint(5, STEPS))
        if all_of_it:
            kill_all(dying.pid)
        else:
            os.kill(dying.pid, signal.SIGKILL)
        dying.wait()
    with worker(team.prefect, team.checkout):
        if not all_of_it:
            assert team.wait(run)[-1] == "Completed"
        again = team.start("rotate_certificates", which="all", dry_run=False, reason="again")
        assert team.wait(again)[-1] == "Completed"
        assert team.wait(run)[-1] == ("Crashed" if all_of_it else "Completed")
    assert all(before[name] != now for name, now in serials(team.lab).items())
    assert not find_strangers(team.lab)
    assert check_record(team.prefect) == (0, 0, 0)
