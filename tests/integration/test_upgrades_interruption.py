"""kill -9 of the runner at the boundaries of upgrades; the next run goes on, or back.

A kill point is a line of the journal, "#n" its n-th: the runner dies right after it is on disk.
The tables of steps are checked against whole runs, up and down. Writers that never pause must not
lose a write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tests.integration.members import Scene, find_leader, raise_cluster
from tests.integration.rotations import wait_for_restarts
from tests.integration.runbooks import Prefect, etcdctl, finish, start_runbook
from tests.integration.upgrades import (
    LATER,
    MIDDLE,
    NEWEST,
    OLD,
    aim_at,
    leftovers,
    upgrade,
    versions,
)
from tests.integration.writers import Writers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.one_etcd]

HOSTS = ("master01", "master02", "master03")
# How often a whole run does each step, on each host where it has one.
BOTH = {
    "lock the cluster on {}": 1,
    "see what would start on {}": 1,
    "see programs and log on {}": 1,
    "try places and ways on {}": 1,
    "put programs beside on {}": 1,
    "move leadership away from {}": 1,
    "edit the settings of {}": 1,
    "put programs in place on {}": 1,
    "restart etcd on {}": 1,
    "remove what was put beside on {}": 1,
    "read the cluster's health": 3,
    "save a snapshot": 1,
    "compare the members' data": 3,
    "verify the cluster": 4,
}
UP = BOTH | {
    "look for members noted as removed on {}": 2,
    "look for v2 entries on {}": 1,
    "wait for the cluster's version": 1,
}
DOWN = BOTH | {"let the cluster go down": 1, "wait for the cluster's version": 2}
LOOKS = ("see what would", "see programs", "try places", "look for", "read the", "lock the")


def step_counts(table: dict[str, int]) -> Counter[str]:
    """Count the steps of a whole run by their full names."""
    return Counter(
        {
            name.format(host): count
            for name, count in table.items()
            for host in (HOSTS if "{}" in name else ("",))
        }
    )


def kill_points(table: dict[str, int]) -> tuple[str, ...]:
    """List the kill points: begin and end of each step; of those that look, one."""
    points = [f"{Event.PLANNED}|"]
    for step, count in step_counts(table).items():
        if step.startswith(LOOKS) and not step.endswith(HOSTS[1]):
            continue
        for number in range(1, count + 1):
            points += [f"{e}|{step}#{number}" for e in (Event.STEP_STARTED, Event.STEP_FINISHED)]
    return tuple(points)


UP_SAMPLE = (
    "step-finished|put programs in place on master02#1",
    "step-started|wait for the cluster's version#1",
)
DOWN_SAMPLE = ("step-finished|let the cluster go down#1",)


@pytest.fixture(scope="module")
def scene(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """Bootstrap a cluster of the older version; writers go on through all tests."""
    files = tmp_path_factory.mktemp("scene")
    made = raise_cluster(start_module_lab, prefect, files, spare=0, etcd=MIDDLE)
    with Writers(made.lab, files, files=made.clients) as writers:
        yield made
    report = writers.check()
    assert report.acknowledged > 100
    assert report.lost == ()


def bring(prefect: Prefect, scene: Scene, version: str) -> None:
    """Bring all members to a version, from wherever they are."""
    ended = upgrade(prefect, aim_at(scene, version, MIDDLE, LATER))
    assert ended.status == 0, ended.output
    assert set(versions(scene.lab, scene.members).values()) == {version}
    assert leftovers(scene.lab) == ""
    etcdctl(scene.lab, "put", "written", version)
    assert etcdctl(scene.lab, "get", "written", "--print-value-only").strip() == version


def kill_on_the_way(prefect: Prefect, scene: Scene, start: str, goal: str, point: str) -> None:
    """Let a run die at a point on its way."""
    bring(prefect, scene, start)
    aimed = aim_at(scene, goal, MIDDLE, LATER)
    killer = ("-m", "tests.integration.killed_run", point)
    killed = finish(start_runbook(prefect, "upgrade_cluster", aimed.inventory, launcher=killer))
    assert killed.status == -9, killed.output
    wait_for_restarts(scene.lab)


def count_steps(prefect: Prefect) -> Counter[str]:
    """Count the steps that the last run did."""
    records = read_journal(prefect.journals[-1])
    return Counter(r.details["step"] for r in records if r.event is Event.STEP_FINISHED)


@pytest.mark.chaos
def test_the_tables_are_the_steps_of_whole_runs(scene: Scene, prefect: Prefect) -> None:
    """A step that is added to the runbook must be added here."""
    bring(prefect, scene, MIDDLE)
    bring(prefect, scene, LATER)
    assert count_steps(prefect) == step_counts(UP)
    bring(prefect, scene, MIDDLE)
    assert count_steps(prefect) == step_counts(DOWN)
    assert set(UP_SAMPLE) <= set(kill_points(UP))
    assert set(DOWN_SAMPLE) <= set(kill_points(DOWN))


@pytest.mark.chaos
@pytest.mark.parametrize("back", [False, True], ids=["on", "back"])
@pytest.mark.parametrize("point", kill_points(UP))
def test_an_upgrade_killed_anywhere_is_finished_or_undone_by_the_next(
    scene: Scene, prefect: Prefect, point: str, back: bool
) -> None:
    """Every boundary; a mixed cluster goes on, and goes back."""
    kill_on_the_way(prefect, scene, MIDDLE, LATER, point)
    bring(prefect, scene, MIDDLE if back else LATER)


@pytest.mark.chaos
@pytest.mark.parametrize("back", [False, True], ids=["on", "back"])
@pytest.mark.parametrize("point", kill_points(DOWN))
def test_a_downgrade_killed_anywhere_is_finished_or_called_off_by_the_next(
    scene: Scene, prefect: Prefect, point: str, back: bool
) -> None:
    """Every boundary, that within the downgrade's own beginning, too."""
    kill_on_the_way(prefect, scene, LATER, MIDDLE, point)
    bring(prefect, scene, LATER if back else MIDDLE)


EACH = (
    "move leadership away from {}",
    "edit the settings of {}",
    "put programs in place on {}",
    "restart etcd on {}",
)
LAST = "remove what was put beside on master02"


@pytest.mark.chaos
@pytest.mark.parametrize(("start", "goal"), [(MIDDLE, LATER), (LATER, MIDDLE)], ids=["up", "down"])
def test_a_run_that_is_killed_at_each_step_in_turn_gets_through(
    scene: Scene, prefect: Prefect, start: str, goal: str
) -> None:
    """Each run begins where the last one died, on one member after the other."""
    bring(prefect, scene, start)
    aimed = aim_at(scene, goal, MIDDLE, LATER)

    def die(point: str) -> None:
        killer = ("-m", "tests.integration.killed_run", point)
        died = finish(start_runbook(prefect, "upgrade_cluster", aimed.inventory, launcher=killer))
        assert died.status == -9, f"{point}: {died.output}"
        wait_for_restarts(scene.lab)

    first = ["put programs beside on master02"]
    if goal < start:
        first.append("let the cluster go down")
    for step in first:
        die(f"{Event.STEP_STARTED}|{step}")
        die(f"{Event.STEP_FINISHED}|{step}")
    for _ in HOSTS:
        running, leader = versions(scene.lab, scene.members), find_leader(scene.lab, scene.members)
        left = [name for name in HOSTS if running[name] == start]
        host = next((name for name in left if name != leader), leader)
        for step in EACH:
            die(f"{Event.STEP_STARTED}|{step.format(host)}")
            die(f"{Event.STEP_FINISHED}|{step.format(host)}")
    die(f"{Event.STEP_STARTED}|{LAST}")
    die(f"{Event.STEP_FINISHED}|{LAST}")
    bring(prefect, scene, goal)


BETWEEN = (
    "step-started|wait for the cluster's version#1",
    "step-finished|wait for the cluster's version#1",
    "step-finished|put programs in place on master02#2",
)
"""Where all members run the first hop's version, before the cluster does and after; and mixed."""


@pytest.mark.chaos
@pytest.mark.parametrize("back", [False, True], ids=["on", "back"])
@pytest.mark.parametrize("point", BETWEEN)
def test_an_upgrade_killed_between_hops_goes_on_or_two_back(
    scene: Scene, prefect: Prefect, point: str, back: bool
) -> None:
    """At once, while etcd has not yet seen that the hop is at its end."""
    kill_on_the_way(prefect, scene, MIDDLE, NEWEST, point)
    bring(prefect, scene, MIDDLE if back else NEWEST)


LOG_POINTS = (
    "step-finished|edit the settings of master02#2",
    "step-finished|restart etcd on master02#2",
    "step-started|put the settings back on master02#1",
    "step-finished|put the settings back on master02#1",
)
"""While a log is saved: the settings are not the host's own between the first and the last."""


@pytest.mark.chaos
@pytest.mark.parametrize("point", LOG_POINTS)
def test_an_upgrade_killed_while_a_log_is_saved_puts_the_settings_back(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path, point: str
) -> None:
    """Also where the next run wants the version that runs."""
    made = raise_cluster(start_lab, prefect, tmp_path, spare=0, etcd=OLD)
    conf = {
        name: host.run("cat /etc/etcd/etcd.conf").stdout for name, host in made.lab.hosts.items()
    }
    aimed = aim_at(made, LATER, MIDDLE)
    killer = ("-m", "tests.integration.killed_run", point)
    killed = finish(start_runbook(prefect, "upgrade_cluster", aimed.inventory, launcher=killer))
    assert killed.status == -9, killed.output
    wait_for_restarts(made.lab)
    for version in (MIDDLE, LATER):
        ended = upgrade(prefect, aim_at(made, version, MIDDLE, LATER))
        assert ended.status == 0, ended.output
        assert leftovers(made.lab) == ""
        for name, host in made.lab.hosts.items():
            assert host.run("cat /etc/etcd/etcd.conf").stdout == conf[name]
    assert set(versions(made.lab, made.members).values()) == {LATER}


@pytest.mark.chaos
def test_an_upgrade_killed_while_the_v2_api_ends_knows_who_still_serves_it(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """The settings of one say no more that it does; what runs there does."""
    made = raise_cluster(start_lab, prefect, tmp_path, spare=0, etcd=MIDDLE)
    for host in made.lab.hosts.values():
        added = "echo ETCD_ENABLE_V2=true >> /etc/etcd/etcd.conf; systemctl restart etcd"
        host.run(added).check()
    aimed = aim_at(made, LATER, MIDDLE)
    killer = ("-m", "tests.integration.killed_run", "step-finished|edit the settings of master02#1")
    killed = finish(
        start_runbook(
            prefect, "upgrade_cluster", aimed.inventory, "--accept", "settings", launcher=killer
        )
    )
    assert killed.status == -9, killed.output
    wait_for_restarts(made.lab)
    ended = upgrade(prefect, aimed, "--accept", "settings")
    assert ended.status == 0, ended.output
    assert "end the v2 API of master02" in ended.output
    assert set(versions(made.lab, made.members).values()) == {LATER}
    assert leftovers(made.lab) == ""
