"""One run a cluster, whatever becomes of its runner: killed, frozen, interrupted, cut off."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tests.integration.homes import prepare_home
from tests.integration.runbooks import (
    HANG_SECONDS,
    Prefect,
    etcdctl,
    finish,
    prefect_server,
    run_runbook,
    start_runbook,
    wait_until,
)

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = pytest.mark.lab


def has_begun(prefect: Prefect, known: list[Path], step: str) -> Callable[[], bool]:
    """Tell whether a new run has begun a step."""

    def look() -> bool:
        return any(
            record.event is Event.STEP_STARTED and record.details["step"].startswith(step)
            for path in prefect.journals
            if path not in known
            for record in read_journal(path)
        )

    return look


def embedded_apis(home: Path) -> list[int]:
    """List the processes that serve an API over a PREFECT_HOME."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            serves = b"prefect.server.api" in (process / "cmdline").read_bytes()
            if serves and f"PREFECT_HOME={home}".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def fingerprint(lab: Lab) -> dict[str, str]:
    """List every file that a runbook could change, with size, mode, owner and time of change."""
    find = "find /etc /usr/local /var/backups -xdev -type f -printf '%p %s %m %u %C@\\n' | sort"
    return {name: host.run(["sh", "-c", find]).check().stdout for name, host in lab.hosts.items()}


def check_record(home: Path, journal: Path, states: set[str]) -> None:
    """See that Prefect has the run's end, and an end of each step that its journal has begun."""
    records = read_journal(journal)
    run = next(r.details["run"] for r in records if r.event is Event.RUN_STARTED)
    begun = {r.details["task_run"] for r in records if r.event is Event.STEP_STARTED}
    with prefect_server(home) as server:
        (flow_run,) = server.ask("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        found = server.list_task_runs(run)
    assert flow_run["state_type"] in states
    assert begun == {row["id"] for row in found}
    assert {row["state_type"] for row in found} <= {"COMPLETED", "FAILED", "CRASHED"}


def test_a_second_runner_is_refused_and_told_of_the_first(
    start_lab: StartLab, prefect: Prefect
) -> None:
    """The first is held still with the lock in its hands, for less than the silence limit."""
    lab = start_lab(hosts=3)
    known = prefect.journals
    first = start_runbook(prefect, "bootstrap_cluster", lab)
    wait_until(has_begun(prefect, known, "observe"), "the first run did not begin")
    first.send_signal(signal.SIGSTOP)
    try:
        refused = run_runbook(prefect, "bootstrap_cluster", lab)
    finally:
        first.send_signal(signal.SIGCONT)
    ended = finish(first)
    assert ended.status == 0, ended.output
    assert refused.status == 2, refused.output
    run = re.search(r"run ([0-9a-f-]{36})", ended.stdout)
    assert run is not None
    assert run.group(1) in refused.stderr
    assert "bootstrap_cluster" in refused.stderr
    assert "interrupt it where it runs (Ctrl-C" in refused.stderr


def test_of_two_runners_at_once_one_makes_the_cluster(
    start_lab: StartLab, prefect: Prefect
) -> None:
    """The other is refused, or comes so late that it finds everything done; never both."""
    lab = start_lab(hosts=3)
    processes = [start_runbook(prefect, "bootstrap_cluster", lab) for _ in range(2)]
    ended = [finish(process) for process in processes]
    made = [one for one in ended if "enable and start" in one.stdout]
    assert len(made) == 1, [one.output for one in ended]
    assert made[0].status == 0, made[0].output
    (other,) = [one for one in ended if one is not made[0]]
    assert other.status == 2 or "nothing to do" in other.stdout, other.output


def test_a_runner_that_is_frozen_loses_the_lock_and_changes_nothing_more(
    start_lab: StartLab, prefect: Prefect
) -> None:
    """Another run takes the cluster meanwhile; thawed, the first one stops at the fence."""
    lab = start_lab(hosts=3)
    known = prefect.journals
    frozen = start_runbook(
        prefect, "bootstrap_cluster", lab, launcher=("-m", "tests.integration.impatient_run")
    )
    wait_until(has_begun(prefect, known, "make directories"), "the first run did not begin")
    frozen.send_signal(signal.SIGSTOP)
    try:
        deadline = time.monotonic() + HANG_SECONDS
        while (other := run_runbook(prefect, "bootstrap_cluster", lab)).status == 2:
            assert time.monotonic() < deadline, other.output
        assert other.status == 0, other.output
        before = finished(fingerprint(lab))
    finally:
        frozen.send_signal(signal.SIGCONT)
    ended = finish(frozen)
    assert ended.status == 1, ended.output
    assert "lock" in ended.stderr
    assert finished(fingerprint(lab)) == before
    again = run_runbook(prefect, "bootstrap_cluster", lab)
    assert "nothing to do" in again.stdout, again.output


def finished(seen: dict[str, str]) -> dict[str, str]:
    """Leave out what an upload under way has beside its target, which goes when it is fenced."""
    return {
        name: re.sub(r"^/usr/local/bin/etcd\w*\.\w{8} .*\n", "", files, flags=re.MULTILINE)
        for name, files in seen.items()
    }


@pytest.mark.chaos
def test_a_cable_that_is_cut_in_mid_run_is_told_and_the_next_run_finishes(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """The run fails on that host; plugged in again, the next run ends healthy."""
    lab = start_lab(hosts=3)
    victim = lab["master02"]
    known = prefect.journals
    # Short limits: each retry waits for a connection, and then the host's half of the lock is old.
    hasty = tmp_path / "hasty.yaml"
    text = lab.inventory.read_text()
    hasty.write_text(text.replace("ssh:\n", "ssh:\n  connect_timeout_seconds: 2\n", 1))
    process = start_runbook(
        prefect, "bootstrap_cluster", hasty, launcher=("-m", "tests.integration.impatient_run")
    )
    wait_until(has_begun(prefect, known, "install etcd"), "the run did not begin")
    victim.cut_cable()
    ended = finish(process)
    victim.plug_cable()
    assert ended.status == 1, ended.output
    assert "master02" in ended.stderr
    # The host's half of the broken session holds the lock until its silence is noticed.
    deadline = time.monotonic() + HANG_SECONDS
    while (again := run_runbook(prefect, "bootstrap_cluster", lab)).status == 2:
        assert time.monotonic() < deadline, again.output
    assert again.status == 0, again.output
    etcdctl(lab, "put", "a", "b")


@pytest.mark.parametrize(
    "death", [pytest.param(signal.SIGINT, marks=pytest.mark.chaos), signal.SIGKILL]
)
def test_a_runner_that_ends_in_mid_run_leaves_no_lock_and_no_process(
    start_lab: StartLab, tmp_path: Path, death: signal.Signals
) -> None:
    """Ctrl-C and kill -9, with the embedded API: the next run goes ahead at once.

    The record of the one that ended is whole.
    """
    lab, home = start_lab(hosts=1), Prefect(prepare_home(tmp_path))
    process = start_runbook(home, "bootstrap_cluster", lab)
    wait_until(has_begun(home, [], "install etcd"), "the run did not begin")
    assert embedded_apis(tmp_path)
    os.kill(process.pid, death)
    ended = finish(process)
    assert ended.status == (1 if death is signal.SIGINT else -9), ended.output
    if death is signal.SIGINT:
        assert "run it again" in ended.stderr
    wait_until(lambda: not embedded_apis(tmp_path), "the embedded API lives on")
    again = run_runbook(home, "bootstrap_cluster", lab)
    assert again.status == 0, again.output
    assert not embedded_apis(tmp_path)
    host = lab["master01"]
    lock = f"/run/etcd-runbooks/{lab.name}.lock"
    assert host.run(["flock", "--nonblock", lock, "true"]).status == 0
    ends = {"FAILED", "CANCELLED", "CRASHED"} if death is signal.SIGINT else {"CRASHED"}
    check_record(tmp_path, home.journals[0], ends)


def test_nothing_is_left_of_a_run_that_only_looked(start_lab: StartLab, prefect: Prefect) -> None:
    """A dry run leaves no listener and no lock on the hosts."""
    lab = start_lab(hosts=3)
    ended = run_runbook(prefect, "bootstrap_cluster", lab, "--dry-run")
    assert ended.status == 0, ended.output
    for host in lab.hosts.values():
        seen = host.run(["ss", "-Hltn", "( sport = :2379 or sport = :2380 )"]).check().stdout
        assert not seen
        assert host.run(["test", "-e", "/run/etcd-runbooks"]).status != 0
