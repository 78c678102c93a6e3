"""Parts of a team's server, or its worker, die while a worker's run rotates certificates.

No step stays half-done, Prefect ends no run, and every step is recorded at the end.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tests.integration.faults import check_record, see_whole_record
from tests.integration.homes import prepare_home
from tests.integration.rotations import find_strangers, serials
from tests.integration.runbooks import Prefect, run_runbook
from tests.integration.servers import TeamServer
from tests.integration.teams import copy_checkout, deploy, kill_all, worker

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures"]
pytestmark = [
    pytest.mark.lab,
    pytest.mark.chaos,
    pytest.mark.one_etcd,
    pytest.mark.timeout(900),
]

STEPS = 30
RUN_SECONDS = 150.0
ENDS = {"Completed", "Failed", "Refused", "Crashed", "Cancelled", "Interrupted", "LockedOut"}
PARTS = ("postgresql", "redis", "one", "other", "services", "proxy")
SEEDS = range(1, 4)
DEPLOYED = ("--name", "stepping", "--name", "rotate_certificates")
"""None of those that have a schedule, whose runs would wait for ever."""
STEPPING = """
import asyncio
from tasks.engine.frame import runbook
from tasks.engine.run import Run, open_run, step

@step("wait a moment")
async def wait(run: Run, number: int) -> bool:
    await asyncio.sleep(0.3)
    return True

@runbook(flow_run_name="step {steps} times")
async def stepping(cluster: str, steps: int) -> None:
    async with open_run(cluster, "stepping") as run:
        for number in range(steps):
            await wait(run, number)
"""
"""A runbook without hosts, whose steps are journalled and recorded as all others' are."""
NOWHERE = """
name: nowhere
hosts: [{name: m1, address: 127.0.0.9}]
ssh: {user: nobody, key: key, known_hosts: known}
etcd: {version: 3.6.16, binaries: {source: installed}}
authority: {certificate: ca.pem, key: ca-key.pem, passphrase: {env: NONE}}
"""


@dataclass(frozen=True)
class Team:
    """A cluster, a server, and the checkout that its workers run from."""

    server: TeamServer
    checkout: Path
    cluster: str = "nowhere"

    @property
    def prefect(self) -> Prefect:
        """The API, by way of the proxy, and where journals are."""
        return self.server.prefect

    def start(self, runbook: str, **parameters: object) -> str:
        """Start a run as the UI does; returns its id."""
        deployment = self.prefect.get(f"/deployments/name/{runbook}/{runbook}")["id"]
        body = {"parameters": {"cluster": self.cluster, **parameters}}
        run = self.prefect.ask(f"/deployments/{deployment}/create_flow_run", body)["id"]
        return str(run)

    def take_a_step(self) -> None:
        """Run what does one thing, to its end."""
        assert self.wait(self.start("stepping", cluster="nowhere", steps=1))[-1] == "Completed"

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
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Bring up a server, and deploy from a checkout with one runbook more."""
    checkout = copy_checkout(tmp_path_factory.mktemp("checkout"))
    (checkout / "deployments" / "clusters" / "nowhere.yaml").write_text(NOWHERE)
    (checkout / "flows" / "stepping.py").write_text(STEPPING)
    yaml = YAML()
    content = yaml.load(checkout / "prefect.yaml")
    first = content["deployments"][0]
    one = {"name": "stepping", "entrypoint": "flows/stepping.py:stepping"}
    content["deployments"].append(one | {key: first[key] for key in ("tags", "work_pool")})
    yaml.dump(content, checkout / "prefect.yaml")
    with TeamServer(tmp_path_factory.mktemp("server")) as server:
        deploy(server.prefect, *DEPLOYED, checkout=checkout)
        automations = [sys.executable, "-m", "tasks.engine.automations"]
        subprocess.run(automations, cwd=checkout, env=server.prefect.environment, check=True)
        yield Team(server, checkout)


@pytest.fixture
def working(team: Team) -> Iterator[Any]:
    """Start a worker for a test that does not kill it."""
    with worker(team.prefect, team.checkout) as process:
        yield process


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_server_that_is_killed_ends_no_run(team: Team, part: str, seed: int) -> None:
    """It is away for some seconds, from a random step on; in the end each step is recorded."""
    chance = random.Random(f"{part} {seed}")  # noqa: S311 - not a secret
    run = team.start("stepping", steps=STEPS)
    team.wait_for_step(run, chance.randint(1, STEPS // 2))
    team.server.restart(part, chance.uniform(0, 8))
    assert team.wait(run)[-1] == "Completed"
    assert "Crashed" not in team.states(run)
    see_whole_record(team.prefect, team.take_a_step)


@pytest.mark.usefixtures("working")
def test_a_server_that_is_away_for_minutes_ends_no_run(team: Team) -> None:
    """Prefect's own worker gives up by then, and ends its runs with it.

    The automation misses the heartbeats and calls the run Crashed; its end puts that right.
    """
    run = team.start("stepping", steps=1000)
    team.wait_for_step(run, 3)
    for part in ("one", "other"):
        team.server.kill(part)
    time.sleep(240)
    for part in ("one", "other"):
        team.server.start(part)
    deadline = time.monotonic() + RUN_SECONDS
    while team.states(run)[-1] != "Completed":
        assert time.monotonic() < deadline, team.states(run)
        time.sleep(2)
    assert set(team.states(run)[:-1]) <= {
        "Scheduled",
        "Pending",
        "Submitting",
        "Running",
        "Crashed",
    }
    see_whole_record(team.prefect, team.take_a_step)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_worker_that_is_told_to_stop_ends_its_run_first(team: Team, seed: int) -> None:
    """And takes no further one, which another worker does meanwhile."""
    chance = random.Random(f"drain {seed}")  # noqa: S311 - not a secret
    with worker(team.prefect, team.checkout) as draining:
        run = team.start("stepping", steps=STEPS)
        team.wait_for_step(run, chance.randint(1, STEPS // 2))
        draining.send_signal(signal.SIGTERM)
        with worker(team.prefect, team.checkout):
            other = team.start("stepping", steps=1)
            assert team.wait(other)[-1] == "Completed"
            assert team.wait(run)[-1] == "Completed"
            assert draining.wait(30) == 0
    assert check_record(team.prefect) == (0, 0, 0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("whole", [True, False], ids=["power cut", "worker alone"])
def test_a_worker_that_is_killed_is_told_and_its_steps_are_recorded(
    team: Team, seed: int, whole: bool
) -> None:
    """By the next run on that machine; a run whose worker alone died goes on to its end."""
    chance = random.Random(f"worker {seed} {whole}")  # noqa: S311 - not a secret
    with worker(team.prefect, team.checkout) as dying:
        run = team.start("stepping", steps=STEPS)
        team.wait_for_step(run, chance.randint(1, STEPS - 5))
        if whole:
            kill_all(dying.pid)
        else:
            os.kill(dying.pid, signal.SIGKILL)
        dying.wait()
    with worker(team.prefect, team.checkout):
        if not whole:
            assert team.wait(run)[-1] == "Completed"
        again = team.start("stepping", steps=1)
        assert team.wait(again)[-1] == "Completed"
        assert team.wait(run)[-1] == ("Crashed" if whole else "Completed")
        see_whole_record(team.prefect, team.take_a_step)


@pytest.fixture(scope="module")
def rotating(
    team: Team, start_module_lab: StartLab, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Team, Lab]:
    """Bring up a cluster for the same workers."""
    lab = start_module_lab(hosts=3)
    alone = Prefect(prepare_home(tmp_path_factory.mktemp("alone")))
    assert run_runbook(alone, "bootstrap_cluster", lab).status == 0
    inventory = team.checkout / "deployments" / "clusters" / f"{lab.name}.yaml"
    shutil.copy(lab.inventory, inventory)
    return replace(team, cluster=lab.name), lab


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("part", PARTS)
def test_a_rotation_goes_on_without_a_part_of_the_server(
    rotating: tuple[Team, Lab], part: str
) -> None:
    """No pair stays half-done, on hosts."""
    team, lab = rotating
    chance = random.Random(part)  # noqa: S311 - not a secret
    before = serials(lab)
    run = team.start("rotate_certificates", which="all", dry_run=False, reason=f"{part} away")
    team.wait_for_step(run, chance.randint(1, STEPS))
    team.server.restart(part, chance.uniform(0, 8))
    assert team.wait(run)[-1] == "Completed"
    assert all(before[name] != now for name, now in serials(lab).items())
    assert not find_strangers(lab)
    see_whole_record(team.prefect, team.take_a_step)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rotation_whose_worker_is_killed_is_finished_by_another(
    rotating: tuple[Team, Lab], seed: int
) -> None:
    """Which finds the hosts as they are, and brings the record of the dead one."""
    team, lab = rotating
    chance = random.Random(f"rotation {seed}")  # noqa: S311 - not a secret
    before = serials(lab)
    words = {"which": "all", "dry_run": False, "reason": "a power cut"}
    with worker(team.prefect, team.checkout) as dying:
        run = team.start("rotate_certificates", **words)
        team.wait_for_step(run, chance.randint(5, STEPS))
        kill_all(dying.pid)
        dying.wait()
    with worker(team.prefect, team.checkout):
        assert team.wait(team.start("rotate_certificates", **words))[-1] == "Completed"
        assert team.wait(run)[-1] == "Crashed"
        see_whole_record(team.prefect, team.take_a_step)
    assert all(before[name] != now for name, now in serials(lab).items())
    assert not find_strangers(lab)
