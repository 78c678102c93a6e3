"""Prefect's server, its database or the command line's own API dies at a random step of a run.

The work on the hosts goes on, the outcome is told, and after the next run nothing is missing.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from flows.__main__ import EXIT_SECONDS
from tasks.engine.launch import TOLD_SECONDS
from tests.integration.faults import (
    Server,
    SmallDisk,
    check_record,
    check_told,
    kill_embedded_api,
    read_end,
    see_whole_record,
    share,
    wait_for_step,
)
from tests.integration.homes import prepare_home
from tests.integration.postgres import postgres
from tests.integration.rotations import find_strangers, serials
from tests.integration.runbooks import Prefect, finish, run_runbook, start_runbook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

STEPS = 40
LEAVING_SECONDS = 10.0
"""What a process takes to end, on a machine that has nothing else to do."""
IN_CI = 7
SEEDS = [
    pytest.param(seed, marks=() if seed == IN_CI else pytest.mark.chaos) for seed in range(1, 11)
]
STEPS_BEFORE_CHANGES_END = 25


@pytest.fixture(scope="module")
def lab(start_module_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Three members that are up."""
    lab = start_module_lab(hosts=3)
    alone = Prefect(prepare_home(tmp_path_factory.mktemp("bootstrap")))
    assert run_runbook(alone, "bootstrap_cluster", lab).status == 0
    return lab


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server over SQLite."""
    running = Server(tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    running.kill()


def rotate(
    lab: Lab, prefect: Prefect, step: int, fault: Callable[[int], None], back: Callable[[], None]
) -> None:
    """Rotate all pairs with a fault at a step; then the next run, and the whole record."""
    before, known = serials(lab), set(prefect.journals)
    runner = start_runbook(prefect, "rotate_certificates", lab, "--which", "all")
    wait_for_step(prefect, known, step, runner)
    fault(runner.pid)
    ended = finish(runner)
    waited = time.time() - read_end(prefect)
    limit = TOLD_SECONDS + EXIT_SECONDS + share() * LEAVING_SECONDS
    back()
    check_told(ended)
    assert waited < limit, ended.output
    assert all(before[name] != now for name, now in serials(lab).items())
    assert not find_strangers(lab)
    see_whole_record(prefect, lambda: check_told(run_runbook(prefect, "check_health", lab)))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_server_that_is_killed_costs_nothing(lab: Lab, server: Server, seed: int) -> None:
    """It stays away, or comes back in mid-run."""
    chance = random.Random(f"server {seed}")  # noqa: S311 - not a secret

    def fault(_: int) -> None:
        server.kill()
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, 4))
            server.start()

    server.start()
    rotate(lab, server.prefect, chance.randint(1, STEPS), fault, server.start)


@pytest.fixture(scope="module")
def on_postgres(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, Callable[[float], None]]]:
    """Run a server over PostgreSQL; the function takes the database away for some seconds."""
    with postgres() as database:
        running = Server(tmp_path_factory.mktemp("on-postgres"), database.url)
        running.start()

        def take_away(seconds: float) -> None:
            database.stop()
            time.sleep(seconds)
            database.start()

        yield running, take_away
        running.kill()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_database_that_is_away_costs_nothing(
    lab: Lab, on_postgres: tuple[Server, Callable[[float], None]], seed: int
) -> None:
    """For two to twelve seconds."""
    chance = random.Random(f"database {seed}")  # noqa: S311 - not a secret
    server, take_away = on_postgres
    rotate(
        lab,
        server.prefect,
        chance.randint(1, STEPS),
        lambda _: take_away(chance.uniform(2, 12)),
        server.start,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Prefect:
    """Use no server."""
    return Prefect(prepare_home(tmp_path_factory.mktemp("alone")))


@pytest.mark.parametrize("seed", SEEDS)
def test_an_embedded_api_that_is_killed_costs_nothing(lab: Lab, alone: Prefect, seed: int) -> None:
    """It is started again."""
    chance = random.Random(f"embedded {seed}")  # noqa: S311 - not a secret
    rotate(lab, alone, chance.randint(1, STEPS), kill_embedded_api, lambda: None)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_disk_that_fills_up_in_mid_run_ends_it_as_failed(
    lab: Lab, tmp_path: Path, seed: int
) -> None:
    """PREFECT_HOME's, with the database on it; once there is room, the next run finishes."""
    chance = random.Random(f"disk {seed}")  # noqa: S311 - not a secret
    with SmallDisk(tmp_path / "home", 64) as disk:
        prefect = Prefect(disk.path)
        runner = start_runbook(prefect, "rotate_certificates", lab, "--which", "all")
        wait_for_step(prefect, set(), chance.randint(1, STEPS_BEFORE_CHANGES_END), runner)
        disk.fill()
        ended = finish(runner)
        assert ended.status == 1, ended.output
        assert ended.stderr.startswith("failed: "), ended.output
        assert "(No space left on device), and nothing is done" in ended.stderr
        assert "Traceback" not in ended.output
        disk.free()
        with sqlite3.connect(prefect.home / "prefect.db") as database:
            ((state, message),) = database.execute(
                "select state_name, (select message from flow_run_state "
                "where flow_run_state.id = flow_run.state_id) from flow_run"
            )
        assert state == "Failed"
        assert "No space left on device" in message
        check_told(run_runbook(prefect, "rotate_certificates", lab, "--which", "all"))
        assert not find_strangers(lab)
        assert check_record(prefect) == (0, 0, 0)
