"""etcd of kubeadm's own nodes to another version: who owns it, and node by node where nobody does.

kill -9 of the runner at the boundaries of each step that changes a node; the table is checked
against a whole run.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

import pytest

from tasks.engine.journal import read_journal
from tests.integration.runbooks import Prefect, finish, run_runbook, start_runbook
from tests.integration.stacked import gaps, stacked_writers
from tests.integration.stacked_upgrades import (
    aim_at,
    give_image,
    image,
    pin,
    upgrade,
    versions,
)
from tests.integration.test_upgrades import read_report
from tests.lab.etcd_programs import ETCD_3_6, ETCD_3_7
from tests.lab.kubernetes.watch import ApiWatch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.kubernetes.cluster import KubernetesCluster

pytest_plugins = ["tests.lab.kubernetes.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.chaos, pytest.mark.timeout(900)]

MANIFEST = "/etc/kubernetes/manifests/etcd.yaml"
STEPS = (
    "have the image on {}",
    "move leadership away from {}",
    "compare the manifest of {}",
    "take the API server and etcd out on {}",
    "write the manifest of {} while it is out",
    "put etcd in on {}",
    "put the API server in on {}",
)
LOOK_SECONDS = 5.0
"""By so much the run's and the watch's time of an API server's absence may differ."""
LOOKS = ("lock the", "see ", "ask ", "reach ", "look for", "try places")
POINTS = tuple(f"{event}|{step}" for step in STEPS for event in ("step-started", "step-finished"))


def other(version: str) -> str:
    """Name the minor version beside it."""
    return ETCD_3_6 if version == ETCD_3_7 else ETCD_3_7


@pytest.fixture(scope="module")
def goal(kubernetes: KubernetesCluster) -> str:
    """Have the images of both versions on all nodes; the version that kubeadm does not bring."""
    for version in (ETCD_3_6, ETCD_3_7):
        give_image(kubernetes, version)
    return other(kubernetes.lab.record.etcd)


def bring(kubernetes: KubernetesCluster, prefect: Prefect, version: str, directory: Path) -> None:
    """Pin a version, bring all members to it, and see that nothing is left."""
    pin(kubernetes, f"{version}-0")
    inventory = aim_at(kubernetes, version, directory)
    ended = upgrade(prefect, inventory)
    assert ended.status == 0, ended.output
    see_whole(kubernetes, prefect, inventory, version)


def see_whole(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path, version: str
) -> None:
    """See every node ready and healthy, its manifests in place, at a version."""
    kubernetes.wait_until_ready(seconds=60)
    assert versions(kubernetes) == {version}
    for node in kubernetes.nodes.values():
        assert node.run("ls -A /etc/kubernetes/etcd-runbooks").stdout == ""
    checked = run_runbook(prefect, "check_health", inventory)
    assert checked.status == 0, checked.output


def test_the_image_is_changed_one_node_at_a_time(
    kubernetes: KubernetesCluster, prefect: Prefect, goal: str, tmp_path: Path
) -> None:
    """One argument is one line; no write is lost, and some API server is always ready."""
    pin(kubernetes, f"{goal}-0")
    inventory = aim_at(kubernetes, goal, tmp_path)
    old = {name: node.run(["cat", MANIFEST]).stdout for name, node in kubernetes.nodes.items()}
    writers, watch = stacked_writers(kubernetes, tmp_path), ApiWatch(kubernetes)
    began = time.monotonic()
    with writers, watch:
        ended = upgrade(prefect, inventory)
    assert ended.status == 0, ended.output
    done = {r.details.get("step", "") for r in read_journal(prefect.journals[-1])}
    for name in kubernetes.nodes:
        own = {step for step in done if name in step and not step.startswith(LOOKS)}
        assert own == {step.format(name) for step in STEPS}
    seen = watch.report()
    facts = f"{time.monotonic() - began:.1f} s; {gaps(writers)}; {seen}; {os.getloadavg()[0]:.0f}"
    print(f"\nto {goal}: {facts}")  # noqa: T201 - the figures
    assert writers.check().lost == ()
    assert seen.longest_without_any == 0
    (told,) = re.findall(r"API servers away, until ready again:\*\* (.*)", read_report(prefect))
    assert told.endswith("one at a time")
    for name, away in seen.longest.items():
        (said,) = re.findall(rf"{name} ([0-9.]+) s", told)
        assert away - LOOK_SECONDS < float(said) < away + LOOK_SECONDS, (told, seen)
    for name, node in kubernetes.nodes.items():
        was = next(line for line in old[name].splitlines() if "image:" in line)
        wanted = f"{was.partition(':')[0]}: {image(goal)}"
        assert node.run(["cat", MANIFEST]).stdout == old[name].replace(was, wanted)
    see_whole(kubernetes, prefect, inventory, goal)
    again = upgrade(prefect, inventory)
    assert again.status == 0, again.output
    assert "nothing to do" in again.output


@pytest.mark.usefixtures("goal")
def test_an_image_with_another_version_is_taken_back(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """A tag is a name: what runs is asked, and the node gets its old manifest."""
    bring(kubernetes, prefect, ETCD_3_7, tmp_path)
    give_image(kubernetes, ETCD_3_7, image("3.7.9"))
    pin(kubernetes, "3.7.9-0")
    failed = upgrade(prefect, aim_at(kubernetes, "3.7.9", tmp_path))
    assert failed.status != 0
    assert f"is etcd {ETCD_3_7}, and not 3.7.9" in failed.output
    assert "its old manifest is in place again" in failed.output
    pin(kubernetes, f"{ETCD_3_7}-0")
    see_whole(kubernetes, prefect, aim_at(kubernetes, ETCD_3_7, tmp_path), ETCD_3_7)
    for node in kubernetes.nodes.values():
        assert "3.7.9" not in node.run(["cat", MANIFEST]).stdout


@pytest.mark.usefixtures("goal")
def test_an_upgrade_that_is_killed_at_each_step_in_turn_gets_through(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """Each run begins where the last one died, on the first follower, and dies at the next line."""
    bring(kubernetes, prefect, ETCD_3_6, tmp_path)
    pin(kubernetes, f"{ETCD_3_7}-0")
    inventory = aim_at(kubernetes, ETCD_3_7, tmp_path)
    node = next(name for name in kubernetes.nodes if name != leader(kubernetes))
    with stacked_writers(kubernetes, tmp_path) as writers:
        for point in POINTS:
            killer = ("-m", "tests.integration.killed_run", point.format(node))
            died = finish(start_runbook(prefect, "upgrade_cluster", inventory, launcher=killer))
            assert died.status == -9, f"{point}: {died.output}"
        ended = upgrade(prefect, inventory)
    assert ended.status == 0, ended.output
    assert writers.check().lost == ()
    see_whole(kubernetes, prefect, inventory, ETCD_3_7)


@pytest.mark.usefixtures("goal")
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_upgrade_is_undone_by_the_next_run(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path, point: str
) -> None:
    """With the old version in the inventory and in kubeadm's configuration."""
    bring(kubernetes, prefect, ETCD_3_6, tmp_path)
    pin(kubernetes, f"{ETCD_3_7}-0")
    node = next(name for name in kubernetes.nodes if name != leader(kubernetes))
    inventory = aim_at(kubernetes, ETCD_3_7, tmp_path)
    killer = ("-m", "tests.integration.killed_run", point.format(node))
    died = finish(start_runbook(prefect, "upgrade_cluster", inventory, launcher=killer))
    assert died.status == -9, died.output
    bring(kubernetes, prefect, ETCD_3_6, tmp_path)


def leader(kubernetes: KubernetesCluster) -> str:
    """Name the node whose member leads."""
    return next(
        name
        for name, node in kubernetes.nodes.items()
        if ", true, " in kubernetes.etcdctl("endpoint", "status", on=node)
    )
