"""kill -9 of the runner at every boundary of a replacement; the next run finishes the work.

A kill point is a line of the journal: the runner dies right after it is on disk. The last host of
the inventory loses power each time, and the spare one takes its place; then it is bare, and the
spare of the next test. Writers that never pause must not lose a write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tests.integration.members import Scene, check_cluster, list_members, raise_cluster, replace
from tests.integration.runbooks import Prefect, finish, start_runbook
from tests.integration.writers import Writers

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

KEPT = ("master01", "master02")
SWAPPED = ("master03", "master04")
NEW = "{new}"
STEPS = (
    *(f"lock the cluster on {host}" for host in (*KEPT, NEW)),
    *(f"observe {host}" for host in (*KEPT, NEW)),
    "reach every member's ports",
    *(f"see from where {host} reaches the others" for host in (*KEPT, NEW)),
    "save a snapshot",
    *(f"end the dead host's connections on {host}" for host in KEPT),
    *(f"make the account on {NEW}", f"install etcd on {NEW}", f"make directories on {NEW}"),
    f"issue certificates on {NEW}",
    "remove a member",
    "add a learner",
    f"write configuration on {NEW}",
    f"start the joining etcd on {NEW}",
    "wait for the log and promote",
    *(f"name the members in the settings of {host}" for host in KEPT),
    "write the inventory",
    "verify the cluster",
    *(f"reach the other members on {host}" for host in (*KEPT, NEW)),
)
POINTS = (
    f"{Event.RUN_STARTED}|",
    f"{Event.PLANNED}|",
    *(f"{event}|{step}" for step in STEPS for event in (Event.STEP_STARTED, Event.STEP_FINISHED)),
)
SAMPLE = (
    "step-finished|remove a member",
    "step-started|wait for the log and promote",
)


@pytest.fixture(scope="module")
def scene(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """Raise three members and one bare host; the writers go on through all tests."""
    scene = raise_cluster(start_module_lab, prefect, tmp_path_factory.mktemp("scene"))
    logs = tmp_path_factory.mktemp("writers")
    with Writers(scene.lab, logs, files=scene.clients) as writers:
        yield scene
    report = writers.check(on=KEPT[0])
    print(f"\nwriters: {report}")  # noqa: T201 - the figures, for whoever runs it with -s
    assert report.acknowledged > 100
    assert report.lost == ()


def cut_power(scene: Scene) -> tuple[str, str]:
    """Let the last member die; returns it and the bare host that is to take its place."""
    dead = next(host for host in SWAPPED if host in scene.members)
    new = next(host for host in SWAPPED if host != dead)
    scene.lab[dead].power_cut()
    return dead, new


def make_bare(scene: Scene, prefect: Prefect, dead: str, new: str) -> None:
    """See the cluster whole, and make the dead host the next spare one."""
    check_cluster(prefect, scene, [*KEPT, new])
    scene.lab[dead].reinstall()


def replace_twice(scene: Scene, prefect: Prefect, point: str) -> None:
    """Let a replacement die at a point; two voters are left to serve, and the next run ends it."""
    dead, new = cut_power(scene)
    killer = ("-m", "tests.integration.killed_run", point.format(new=new))
    words = ("--member", dead, "--replacement", scene.address(new), "--write-inventory")
    process = start_runbook(prefect, "replace_member", scene.inventory, *words, launcher=killer)
    killed = finish(process)
    assert killed.status == -9, killed.output
    assert set(KEPT) <= set(list_members(scene.lab, KEPT[0]))
    ended = replace(prefect, scene, dead, new)
    assert ended.status == 0, ended.output
    make_bare(scene, prefect, dead, new)


def test_the_table_is_the_steps_of_a_whole_run(scene: Scene, prefect: Prefect) -> None:
    """A step that is added to the runbook must be added here."""
    dead, new = cut_power(scene)
    ended = replace(prefect, scene, dead, new)
    assert ended.status == 0, ended.output
    records = read_journal(prefect.journals[-1])
    done = Counter(r.details["step"] for r in records if r.event is Event.STEP_FINISHED)
    assert done == Counter(step.format(new=new) for step in STEPS)
    assert set(SAMPLE) <= set(POINTS)
    make_bare(scene, prefect, dead, new)


@pytest.mark.parametrize("point", SAMPLE)
def test_a_killed_replacement_is_finished_by_the_next_run(
    scene: Scene, prefect: Prefect, point: str
) -> None:
    """The fixed sample: nobody added, and a learner."""
    replace_twice(scene, prefect, point)


@pytest.mark.chaos
@pytest.mark.parametrize("point", [point for point in POINTS if point not in SAMPLE])
def test_a_replacement_that_is_killed_anywhere_is_finished_by_the_next_run(
    scene: Scene, prefect: Prefect, point: str
) -> None:
    """All other boundaries."""
    replace_twice(scene, prefect, point)
