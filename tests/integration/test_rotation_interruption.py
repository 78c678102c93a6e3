"""kill -9 of the runner at the boundaries of the rotations; the next run finishes the work.

A kill point is a line of the journal, "#n" its n-th: the runner dies right after it is on disk.
The table of steps is checked against a whole run. Of the steps that only look, the runs of many
at once ("look at the pairs", "reach the other members") are killed in the middle of the first and
of the last. After each death every member is asked from every other with its own certificate, and
writers that never pause must not lose a write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tests.integration.rotations import (
    add_client,
    authority_digits,
    find_strangers,
    wait_for_restarts,
)
from tests.integration.runbooks import (
    Prefect,
    etcdctl,
    finish,
    run_runbook,
    start_runbook,
)
from tests.integration.writers import Writers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

HOSTS = ("master01", "master02", "master03")
Table = dict[str, int | tuple[int, ...]]
LOOKS = {
    "look at the pairs",
    "reach the other members",
    "see what would start",
    "see who else uses the files",
    "try places and ways",
}
# How often a whole run does each step on each host; the client is on the first one.
LEAVES: Table = {
    "lock the cluster": (1, 1, 1),
    "look at the pairs": (4, 2, 2),
    "see who else uses the files": (1, 1, 1),
    "try places and ways": (1, 1, 1),
    "make and sign pairs": (2, 1, 1),
    "swap pairs": (2, 1, 1),
    "verify what is served": (1, 1, 1),
    "reach the other members": (4, 4, 4),
    "read the cluster's health": 2,
}
AUTHORITY: Table = {
    "lock the cluster": (1, 1, 1),
    "look at the pairs": (10, 5, 5),
    "read the cluster's health": 1,
    "ask which authorities the members accept": 4,
    "see what would start": (1, 1, 1),
    "see who else uses the files": (1, 1, 1),
    "try places and ways": (1, 1, 1),
    "save a snapshot": 1,
    "make the next authority": 1,
    "write the trusted authorities": (4, 2, 2),
    "move leadership away from": (2, 2, 2),
    "restart etcd": (2, 2, 2),
    "verify the cluster": 7,
    "reach the other members": (12, 12, 12),
    "write the bundle of both authorities": 1,
    "stand at the barrier": 3,
    "let the other authority sign": 1,
    "make and sign pairs": (2, 1, 1),
    "swap pairs": (2, 1, 1),
    "verify what is served": (1, 1, 1),
    "retire the other authority": 1,
}


def step_counts(table: Table) -> Counter[str]:
    """Count the steps of a whole run by their full names."""
    counts: Counter[str] = Counter()
    for step, times in table.items():
        if isinstance(times, int):
            counts[step] = times
            continue
        joint = " " if step.endswith("from") else " on "
        for host, count in zip(HOSTS, times, strict=True):
            counts[f"{step}{joint}{host}"] = count
    return counts


def kill_points(table: Table) -> tuple[str, ...]:
    """List the kill points: begin and end of each step, each time that it is done."""
    points = [f"{Event.RUN_STARTED}|", f"{Event.PLANNED}|"]
    for step, count in step_counts(table).items():
        does_look = any(step.startswith(look) for look in LOOKS)
        for number in range(1, count + 1):
            if does_look and (number not in (1, count) or not step.endswith(HOSTS[1])):
                continue
            points += [f"{e}|{step}#{number}" for e in (Event.STEP_STARTED, Event.STEP_FINISHED)]
    return tuple(points)


LEAF_SAMPLE = (
    "step-finished|make and sign pairs on master02#1",
    "step-finished|swap pairs on master01#1",
)
AUTHORITY_SAMPLE = (
    "step-finished|write the trusted authorities on master01#2",
    "step-started|restart etcd on master02#1",
    "step-finished|swap pairs on master02#1",
    "step-finished|retire the other authority#1",
)


@pytest.fixture(scope="module")
def scene(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Lab, Path]]:
    """Bootstrap a cluster with a client; writers go on through all tests, and lose nothing."""
    lab = start_module_lab(hosts=3)
    ended = run_runbook(prefect, "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output
    inventory = add_client(lab)
    with Writers(lab, tmp_path_factory.mktemp("writers")) as writers:
        yield lab, inventory
    report = writers.check()
    assert report.acknowledged > 100
    assert report.lost == ()


def kill_and_run_again(
    scene: tuple[Lab, Path], prefect: Prefect, point: str, *command: str
) -> None:
    """Let a run die at a point, see every member let in by every other, and run again."""
    lab, inventory = scene
    killer = ("-m", "tests.integration.killed_run", point)
    runbook, *options = command
    killed = finish(start_runbook(prefect, runbook, inventory, *options, launcher=killer))
    assert killed.status == -9, killed.output
    wait_for_restarts(lab)
    assert find_strangers(lab) == []
    ended = run_runbook(prefect, runbook, inventory, *options)
    assert ended.status == 0, ended.output
    assert find_strangers(lab) == []
    etcdctl(lab, "put", "written", point)
    assert etcdctl(lab, "get", "written", "--print-value-only").strip() == point


def rotate_leaves(scene: tuple[Lab, Path], prefect: Prefect, point: str) -> None:
    """Kill a rotation of all pairs and run it again; nothing is left staged."""
    kill_and_run_again(scene, prefect, point, "rotate_certificates", "--which", "all")
    for host in scene[0].hosts.values():
        assert host.run("ls /etc/etcd/ssl/*.new").stdout == ""


def rotate_authority(scene: tuple[Lab, Path], prefect: Prefect, point: str) -> None:
    """Kill a rotation of the authority and run it again: one authority is left, another one."""
    lab, inventory = scene
    old = authority_digits(inventory)
    kill_and_run_again(scene, prefect, point, "rotate_authority", "--replace", old)
    assert authority_digits(inventory) != old
    for host in lab.hosts.values():
        assert host.run("grep -c BEGIN /etc/etcd/ssl/ca.pem").stdout.strip() == "1"


def count_steps(prefect: Prefect) -> Counter[str]:
    """Count the steps that the last run did."""
    records = read_journal(prefect.journals[-1])
    return Counter(r.details["step"] for r in records if r.event is Event.STEP_FINISHED)


def test_the_tables_are_the_steps_of_whole_runs(scene: tuple[Lab, Path], prefect: Prefect) -> None:
    """A step that is added to a runbook must be added here."""
    _, inventory = scene
    assert run_runbook(prefect, "rotate_certificates", inventory, "--which", "all").status == 0
    assert count_steps(prefect) == step_counts(LEAVES)
    old = authority_digits(inventory)
    assert run_runbook(prefect, "rotate_authority", inventory, "--replace", old).status == 0
    assert count_steps(prefect) == step_counts(AUTHORITY)
    assert set(LEAF_SAMPLE) <= set(kill_points(LEAVES))
    assert set(AUTHORITY_SAMPLE) <= set(kill_points(AUTHORITY))


@pytest.mark.parametrize("point", LEAF_SAMPLE)
def test_a_killed_rotation_of_leaves_is_finished_by_the_next(
    scene: tuple[Lab, Path], prefect: Prefect, point: str
) -> None:
    """The fixed sample: staged, and one host swapped."""
    rotate_leaves(scene, prefect, point)


@pytest.mark.parametrize("point", AUTHORITY_SAMPLE)
def test_a_killed_rotation_of_the_authority_is_finished_by_the_next(
    scene: tuple[Lab, Path], prefect: Prefect, point: str
) -> None:
    """The fixed sample: one of each stage."""
    rotate_authority(scene, prefect, point)


@pytest.mark.chaos
@pytest.mark.parametrize("point", [p for p in kill_points(LEAVES) if p not in LEAF_SAMPLE])
def test_a_rotation_of_leaves_killed_anywhere_is_finished_by_the_next(
    scene: tuple[Lab, Path], prefect: Prefect, point: str
) -> None:
    """Every other boundary."""
    rotate_leaves(scene, prefect, point)


@pytest.mark.chaos
@pytest.mark.parametrize("point", [p for p in kill_points(AUTHORITY) if p not in AUTHORITY_SAMPLE])
def test_a_rotation_of_the_authority_killed_anywhere_is_finished_by_the_next(
    scene: tuple[Lab, Path], prefect: Prefect, point: str
) -> None:
    """Every other boundary."""
    rotate_authority(scene, prefect, point)
