"""kill -9 of the runner at the boundaries of reclaim_space and repair_corruption.

A kill point is a line of the journal: the runner dies right after it is on disk. The next run
finishes the work, and writers that never pause lose nothing that was acknowledged.
"""

from __future__ import annotations

import re
import ssl
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest

from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tests.integration.members import Scene, find_leader, raise_cluster
from tests.integration.runbooks import Prefect, etcdctl, finish, run_runbook, start_runbook
from tests.integration.stacked import eventually
from tests.integration.test_corruption import SECRET, change, check_healed
from tests.integration.test_space import MEMBERS, QUOTA, raise_small, rewrite, say_quota, sizes
from tests.integration.writers import Writers
from tests.lab.versions import SINCE_3_6

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(900)]

DISK_MB = 2000
PROGRAMS = "/usr/local/bin"
ON_EACH = (
    *("lock the cluster on {}", "see the database's disk on {}"),
    *("move leadership away from {}", "defragment {}"),
)
QUOTAS = "read the quotas that members run with"
"""From 3.6 on their status has them."""
STEPS = (
    *("read the cluster's health", "see what fills the database", "compact the history", QUOTAS),
    *(step.format(host) for step in ON_EACH for host in MEMBERS),
    "take the alarm NOSPACE back",
)
POINTS = (
    f"{Event.RUN_STARTED}|",
    f"{Event.PLANNED}|",
    *(f"{event}|{step}" for step in STEPS for event in (Event.STEP_STARTED, Event.STEP_FINISHED)),
)
RAISES = ("edit the settings of {}", "move leadership away from {}", "restart etcd on {}")
REPAIRS = (
    *("compare the members' data", "save a snapshot", "remove a member", "add a learner"),
    *("retire {}", "write configuration on {}", "start the joining etcd on {}"),
    *("wait for the log and promote", "take the alarm CORRUPT back", "verify the cluster"),
)


@pytest.fixture(scope="module")
def scene(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    """Bootstrap three members with a small quota, and a disk for the logs of all tests' writes."""
    return raise_small(start_module_lab, prefect, tmp_path_factory.mktemp("scene"), DISK_MB)


@pytest.fixture(scope="module")
def roomy(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    """Bootstrap three members; one that replays a log of a small quota's size would fill it."""
    return raise_cluster(start_module_lab, prefect, tmp_path_factory.mktemp("roomy"), spare=0)


def kill(prefect: Prefect, scene: Scene, runbook: str, point: str, *options: str) -> None:
    """Let a run die at a point."""
    killer = ("-m", "tests.integration.killed_run", point)
    killed = finish(start_runbook(prefect, runbook, scene.inventory, *options, launcher=killer))
    assert killed.status == -9, killed.output


def test_the_table_is_the_steps_of_a_whole_run(
    scene: Scene, prefect: Prefect, etcd_version: str
) -> None:
    """A step that is added to the runbook must be added here."""
    rewrite(scene.lab, 80)
    ended = run_runbook(prefect, "reclaim_space", scene.inventory)
    assert ended.status == 0, ended.output
    records = read_journal(prefect.journals[-1])
    done = Counter(r.details["step"] for r in records if r.event is Event.STEP_FINISHED)
    assert set(done) == set(STEPS) - ({QUOTAS} if etcd_version in SINCE_3_6 else set())


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_is_finished_by_the_next_one(
    scene: Scene, prefect: Prefect, tmp_path: Path, point: str, etcd_version: str
) -> None:
    """From NOSPACE, with writers that go on."""
    if QUOTAS in point and etcd_version in SINCE_3_6:
        pytest.skip("its status tells the quota")
    with Writers(scene.lab, tmp_path, files=scene.clients) as writers:
        rewrite(scene.lab, 80)
        kill(prefect, scene, "reclaim_space", point)
        ended = run_runbook(prefect, "reclaim_space", scene.inventory)
    assert ended.status == 0, ended.output
    assert etcdctl(scene.lab, "alarm", "list").strip() == ""
    assert max(sizes(scene.lab).values()) < QUOTA // 2
    assert writers.check(on="master02").lost == ()


@pytest.mark.parametrize("host", MEMBERS)
@pytest.mark.parametrize("event", [Event.STEP_STARTED, Event.STEP_FINISHED])
def test_a_killed_run_that_stops_members_is_finished_by_the_next_one(
    scene: Scene, prefect: Prefect, tmp_path: Path, event: Event, host: str
) -> None:
    """No member stays down."""
    words = ("--keep-revisions", "1", "--at-least-mb", "1", "--stop-members")
    with Writers(scene.lab, tmp_path, files=scene.clients) as writers:
        rewrite(scene.lab, 20)
        point = f"{event}|defragment {host} while it is stopped"
        kill(prefect, scene, "reclaim_space", point, *words)
        ended = run_runbook(prefect, "reclaim_space", scene.inventory, *words)
    assert ended.status == 0, ended.output
    assert max(sizes(scene.lab).values()) < QUOTA // 4
    assert writers.check(on="master02").lost == ()


def test_a_runner_that_dies_while_a_member_is_stopped_leaves_none_down(
    scene: Scene, prefect: Prefect, tmp_path: Path
) -> None:
    """Its host goes on with the copy, which takes seconds here, and starts etcd."""
    lab, words = scene.lab, ("--keep-revisions", "1", "--at-least-mb", "1", "--stop-members")
    rewrite(lab, 20)
    leader = find_leader(lab, list(MEMBERS))
    victim = lab[next(name for name in MEMBERS if name != leader)]
    victim.run(
        f"cd {PROGRAMS}; for tool in etcdutl etcdctl; do [ ! -x $tool ] || {{ mv $tool $tool.own; "
        f"printf '#!/bin/sh\nsleep 4\nexec {PROGRAMS}/%s.own \"$@\"\n' $tool >$tool; "
        "chmod 755 $tool; }; done"
    ).check()
    try:
        process = start_runbook(prefect, "reclaim_space", scene.inventory, *words)
        eventually(lambda: victim.run("pgrep -x etcd").status != 0)
        process.kill()
        assert finish(process).status == -9
        eventually(lambda: victim.run("pgrep -x etcd").status == 0)
    finally:
        victim.run(
            f"cd {PROGRAMS}; for tool in etcdutl etcdctl; do [ ! -e $tool.own ] || "
            "mv $tool.own $tool; done"
        ).check()
    with Writers(lab, tmp_path, files=scene.clients):  # etcd counts what is free when it writes
        ended = run_runbook(prefect, "reclaim_space", scene.inventory, *words)
    assert ended.status == 0, ended.output
    assert max(sizes(lab).values()) < QUOTA // 4


@pytest.mark.parametrize("step", RAISES)
@pytest.mark.parametrize("event", [Event.STEP_STARTED, Event.STEP_FINISHED])
def test_a_killed_raise_is_finished_by_the_next_one(
    scene: Scene, prefect: Prefect, event: Event, step: str
) -> None:
    """At the last member, which leads: whatever its settings say, it is restarted with them."""
    (size,) = re.findall(r"quota_backend_bytes: (\d+)", scene.inventory.read_text())
    say_quota(scene, int(size) + QUOTA)
    victim = find_leader(scene.lab, list(MEMBERS))
    point = f"{event}|{step.format(victim)}"
    kill(prefect, scene, "reclaim_space", point, "--raise-quota")
    ended = run_runbook(prefect, "reclaim_space", scene.inventory, "--raise-quota")
    assert ended.status == 0, ended.output
    assert quotas(scene) == dict.fromkeys(MEMBERS, int(size) + QUOTA)


def quotas(scene: Scene) -> dict[str, int]:
    """Read from each member's metrics what it runs with."""
    files = [str(scene.clients / name) for name in ("ca.pem", "client.pem", "client-key.pem")]
    context = ssl.create_default_context(cafile=files[0])
    context.load_cert_chain(*files[1:])
    found = {}
    for name in MEMBERS:
        url = f"https://{scene.lab[name].address}:2379/metrics"
        text = httpx.get(url, verify=context).text
        (number,) = re.findall(r"^etcd_server_quota_backend_bytes (\S+)", text, re.MULTILINE)
        found[name] = int(float(number))
    return found


@pytest.mark.parametrize("step", REPAIRS)
@pytest.mark.parametrize("event", [Event.STEP_STARTED, Event.STEP_FINISHED])
def test_a_killed_repair_is_finished_by_the_next_one(
    roomy: Scene, prefect: Prefect, event: Event, step: str
) -> None:
    """Nobody but the guilty one joins anew, and all have the right value at the end."""
    etcdctl(roomy.lab, "put", "told", SECRET)
    leader = find_leader(roomy.lab, list(MEMBERS))
    victim = next(name for name in MEMBERS if name != leader)
    change(roomy, victim)
    kill(prefect, roomy, "repair_corruption", f"{event}|{step.format(victim)}")
    ended = run_runbook(prefect, "repair_corruption", roomy.inventory)
    assert ended.status == 0, ended.output
    check_healed(prefect, roomy)
