"""Restores and recoveries that are killed at every step, and an old majority that comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tasks.model.record import Event
from tests.integration.restores import STEPS, check_whole, header, keys_of, lose
from tests.integration.runbooks import Ended, Prefect, etcdctl, finish, run_runbook, start_runbook

if TYPE_CHECKING:
    from tests.lab.lab import Lab

pytest_plugins = [
    "tests.lab.fixtures",
    "tests.integration.fixtures",
    "tests.integration.restore_fixtures",
]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(900)]


def kill(prefect: Prefect, lab: Lab, runbook: str, point: str, *options: str) -> Ended:
    """Run a runbook that dies right after a line of its journal."""
    killer = ("-m", "tests.integration.killed_run", point)
    return finish(start_runbook(prefect, runbook, lab, *options, launcher=killer))


def points(runbook: str) -> list[str]:
    """List the boundaries at which a run is killed: of each step on one host."""
    steps = [s for s in STEPS[runbook] if not s.endswith((" on master02", " on master03"))]
    return [f"{e}|{step}" for step in steps for e in (Event.STEP_STARTED, Event.STEP_FINISHED)]


@pytest.mark.parametrize("point", points("restore_cluster"))
def test_a_restore_that_is_killed_anywhere_is_finished_by_the_next_run(
    lab: Lab, prefect: Prefect, words: tuple[str, ...], point: str
) -> None:
    """As one cluster; what was written after clients were let in is there."""
    killed = kill(prefect, lab, "restore_cluster", point, *words, "--again")
    assert killed.status == -9, killed.output
    written = set()
    if "let clients in" in point or "verify" in point or "mark" in point:
        time.sleep(4)
        if lab["master01"].run(["systemctl", "is-active", "--quiet", "etcd"]).status == 0:
            etcdctl(lab, "put", "written", "since")
            written = {"written"}
    again = () if written else ("--again",)
    ended = run_runbook(prefect, "restore_cluster", lab, *words, *again)
    assert ended.status == 0, ended.output
    assert len({header(lab, host)["cluster_id"] for host in lab.hosts}) == 1
    assert written <= keys_of(lab, "master03")
    check_whole(lab, prefect)


@pytest.mark.parametrize("point", points("recover_quorum"))
def test_a_recovery_that_is_killed_anywhere_is_finished_by_the_next_run(
    lab: Lab, prefect: Prefect, words: tuple[str, ...], point: str
) -> None:
    """With all that the survivor had."""
    etcdctl(lab, "put", "last", point)
    before = keys_of(lab, "master01")
    lose(lab, "master02", "master03")
    killed = kill(prefect, lab, "recover_quorum", point, *words)
    assert killed.status == -9, killed.output
    ended = run_runbook(prefect, "recover_quorum", lab, *words)
    assert ended.status == 0 or "has its quorum" in ended.stderr, ended.output
    for host in lab.hosts:
        assert keys_of(lab, host) == before
    value = etcdctl(lab, "get", "last", "--print-value-only", on="master03").strip()
    assert value == point
    check_whole(lab, prefect)


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_dead_majority_that_comes_back_does_not_join(
    lab: Lab, prefect: Prefect, words: tuple[str, ...]
) -> None:
    """It is another cluster; the recovered one stays what it is, and takes them in on request."""
    before = header(lab, "master01")
    for name in ("master02", "master03"):
        lab[name].power_cut()
    unsaid = run_runbook(prefect, "recover_quorum", lab, *words)
    assert unsaid.status == 2, unsaid.output
    assert "--without master02 --without master03" in unsaid.stderr
    without = ("--without", "master02", "--without", "master03")
    ended = run_runbook(prefect, "recover_quorum", lab, *words, *without)
    assert ended.status == 0, ended.output
    after = header(lab, "master01")
    assert after["cluster_id"] != before["cluster_id"]
    etcdctl(lab, "put", "recovered", "x", on="master01")
    for name in ("master02", "master03"):
        lab[name].start()
    until(lambda: lab["master03"].run(["systemctl", "is-active", "etcd"]).status == 0)
    time.sleep(10)
    assert header(lab, "master01")["cluster_id"] == after["cluster_id"]
    assert header(lab, "master02")["cluster_id"] == before["cluster_id"]
    listed = json.loads(etcdctl(lab, "member", "list", "-w", "json", on="master01"))["members"]
    assert [member["name"] for member in listed] == ["master01"]
    told = run_runbook(prefect, "check_health", lab)
    assert told.status == 1, told.output
    assert "disagree on the cluster id" in told.stderr
    assert "ended by recover_quorum of" in told.stderr
    both = ("--member", "master02", "--member", "master03")
    lab["master01"].run(["systemctl", "stop", "etcd"], timeout=60).check()
    for is_alone in (True, False):  # the old majority answers alone, then beside the recovered one
        for runbook, options in (
            ("replace_member", both),
            ("move_leader", ()),
            ("rotate_certificates", ()),
        ):
            refused = run_runbook(prefect, runbook, lab, *options)
            assert refused.status == 2, (is_alone, refused.output)
            assert "came back with the data of before" in refused.stderr, refused.output
        saved = run_runbook(prefect, "take_snapshot", lab.inventory, named="--clusters")
        assert saved.status == 2, (is_alone, saved.output)
        lab["master01"].run(["systemctl", "start", "etcd"], timeout=60).check()
    fenced = run_runbook(prefect, "recover_quorum", lab, *words, *without)
    assert fenced.status == 0, fenced.output
    for name in ("master02", "master03"):
        assert lab[name].run(["systemctl", "is-active", "etcd"]).status != 0
    assert header(lab, "master01")["cluster_id"] == after["cluster_id"]
    back = run_runbook(prefect, "replace_member", lab, *both)
    assert back.status == 0, back.output
    assert "recovered" in keys_of(lab, "master03")
    check_whole(lab, prefect)
