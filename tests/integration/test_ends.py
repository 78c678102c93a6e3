"""Each way in which a run ends, as Prefect's API shows it: a state of its own name, one report."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.engine.launch import TOLD_SECONDS
from tests.integration.faults import Server, SlowApi, check_record, read_pages
from tests.integration.runbooks import (
    HANG_SECONDS,
    HEARS_CTRL_C,
    ROOT,
    Ended,
    finish,
    start_runbook,
)
from tests.integration.teams import deploy, worker

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server for the module."""
    running = Server(tmp_path_factory.mktemp("ends"))
    running.start()
    yield running
    running.kill()


def begin_run(server: Server, *words: str) -> subprocess.Popen[str]:
    """Start a run that ends in a way of its own."""
    return subprocess.Popen(
        [*HEARS_CTRL_C, sys.executable, "-m", *words],
        cwd=ROOT,
        env=server.prefect.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end_run(server: Server, *words: str) -> Ended:
    """Run to an end."""
    return finish(begin_run(server, "tests.integration.ended_run", *words))


def read_runs(server: Server) -> dict[str, dict[str, Any]]:
    """Read all flow runs, by id."""
    return {run["id"]: run for run in read_pages(server.prefect, "/flow_runs/filter")}


def read_reports(server: Server, run: str) -> list[str]:
    """Read the text of all artifacts of a run."""
    found = read_pages(server.prefect, "/artifacts/filter")
    return [one["data"] for one in found if one["flow_run_id"] == run]


@pytest.mark.parametrize(
    ("end", "name", "kind", "status"),
    [
        ("done", "Completed", "COMPLETED", 0),
        ("refused", "Refused", "FAILED", 2),
        ("rejected", "Rejected", "CANCELLED", 2),
        ("lockedout", "LockedOut", "FAILED", 2),
        ("failed", "Failed", "FAILED", 1),
        ("interrupted", "Interrupted", "CANCELLED", 1),
    ],
)
def test_each_end_has_its_state_and_its_report(
    server: Server, end: str, name: str, kind: str, status: int
) -> None:
    """Told apart in the runs list, with what was done and what was not."""
    ended = end_run(server, end)
    assert ended.status == status
    word = {"lockedout": "refused"}.get(end, end)
    assert ended.stdout.startswith(word)
    run = next(
        r for r in read_pages(server.prefect, "/flow_runs/filter") if r["name"] == f"end: {end}"
    )
    assert (run["state"]["name"], run["state"]["type"]) == (name, kind)
    assert "Nothing was changed." in run["state"]["message"]
    reports = [
        one
        for one in read_pages(server.prefect, "/artifacts/filter")
        if one["flow_run_id"] == run["id"]
    ]
    assert [one["key"] for one in reports] == ["end-so-report"]
    assert "Nothing was changed." in reports[0]["data"]
    assert f"**{word}" in reports[0]["data"]


@pytest.mark.chaos
def test_an_api_that_hangs_delays_the_outcome_by_no_more_than_its_bound(server: Server) -> None:
    """It takes connections and never answers; the next run delivers."""
    ended = end_run(server, "refused", str(server.pid))
    os.kill(server.pid, signal.SIGCONT)
    assert ended.status == 2, ended.output
    word, seconds, behind = ended.stdout.splitlines()[-1].split()
    assert word == "refused"
    assert float(seconds) < TOLD_SECONDS
    assert behind != "None"
    assert end_run(server, "done").status == 0
    assert check_record(server.prefect) == (0, 0, 0)


def find_file(server: Server, run: str) -> Path:
    """Find the file of a run."""
    runs = server.prefect.home / "etcd-runbooks" / "runs"
    return next(path for path in runs.glob("*.jsonl") if run in path.read_text())


def test_runs_that_died_before_their_journal_was_open_end_in_the_record(server: Server) -> None:
    """Before Prefect knew, while it was Pending, in the body; two who deliver double nothing."""
    before = read_runs(server)
    for point in ("begun|", "known|"):
        words = ("tests.integration.killed_run", point, "check_health", "--cluster", "nowhere")
        assert finish(begin_run(server, *words)).status == -signal.SIGKILL
    assert end_run(server, "killed").status == -signal.SIGKILL
    died = read_runs(server).keys() - before.keys()
    assert len(died) == 2, "Prefect knew nothing of the first"
    both = [begin_run(server, "tests.integration.ended_run", "done") for _ in range(2)]
    assert [finish(one).status for one in both] == [0, 0]
    after = read_runs(server)
    for run in died:
        assert after[run]["state"]["name"] == "Crashed"
        (report,) = read_reports(server, run)
        assert "the runner died" in report
    assert check_record(server.prefect) == (0, 0, 0)


@pytest.mark.chaos
def test_a_workers_run_delivers_and_puts_right_what_was_called_crashed(server: Server) -> None:
    """A run whose file says done, and that Prefect was told nothing of, or the wrong thing."""
    before = read_runs(server)
    assert end_run(server, "done").status == 0
    (run,) = read_runs(server).keys() - before.keys()
    path = find_file(server, run)
    kept = [line for line in path.read_text().splitlines() if '"event": "recorded"' not in line]
    path.write_text("\n".join(kept) + "\n")
    crashed = {"state": {"type": "CRASHED", "name": "Crashed"}, "force": True}
    server.prefect.ask(f"/flow_runs/{run}/set_state", crashed)
    assert end_run_by_worker(server, "nowhere")["name"] == "Refused"
    after = read_runs(server)
    assert after[run]["state"]["name"] == "Completed"
    assert len(read_reports(server, run)) == 1
    assert check_record(server.prefect) == (0, 0, 0)


def test_a_worker_takes_no_path_from_who_starts_a_run(server: Server) -> None:
    """It is the command line's alone; the sentence says so."""
    state = end_run_by_worker(server, "/etc/inventory.yaml")
    assert state["name"] == "Refused"
    assert "a path is taken on the command line alone" in state["message"]


def end_run_by_worker(server: Server, cluster: str) -> dict[str, Any]:
    """Let a worker run a deployment to its end; returns the state."""
    deploy(server.prefect, "--name", "check_health")
    deployment = server.prefect.get("/deployments/name/check_health/check_health")["id"]
    body = {"parameters": {"cluster": cluster}}
    run = server.prefect.ask(f"/deployments/{deployment}/create_flow_run", body)["id"]
    with worker(server.prefect):
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            state = server.prefect.get(f"/flow_runs/{run}")["state"]
            if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return dict(state)
            assert time.monotonic() < deadline, state
            time.sleep(0.5)


def test_ctrl_c_is_an_end_with_a_report(server: Server, tmp_path: Path) -> None:
    """While the only host takes the connection and says nothing."""
    before = read_runs(server)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        inventory = tmp_path / "silent.yaml"
        inventory.write_text(
            f"""
name: silent
hosts: [{{name: m1, address: 127.0.0.1}}]
ssh: {{port: {silent.getsockname()[1]}, known_hosts: known_hosts, connect_timeout_seconds: 100}}
etcd: {{version: 3.5.16}}
authority: {{certificate: ca.pem, key: ca-key.pem, passphrase: {{env: CA}}}}
"""
        )
        (tmp_path / "known_hosts").touch()
        process = start_runbook(server.prefect, "check_health", inventory)
        silent.settimeout(60)
        connection, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        ended = finish(process)
        connection.close()
    assert ended.status == 1, ended.output
    assert ended.stderr.startswith("interrupted: run it again"), ended.output
    (run,) = read_runs(server).keys() - before.keys()
    state = read_runs(server)[run]["state"]
    assert (state["name"], state["type"]) == ("Interrupted", "CANCELLED")
    assert any("interrupted" in report for report in read_reports(server, run))
    assert check_record(server.prefect) == (0, 0, 0)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(True, id="made"),
        pytest.param(False, id="asked-for", marks=pytest.mark.chaos),
    ],
)
def test_ctrl_c_while_the_flow_run_is_made_is_an_interruption(server: Server, made: bool) -> None:
    """Prefect may have made it already, or make it when nobody waits for it any more."""
    before = read_runs(server)
    slow = SlowApi(server, made=made)
    process = start_runbook(slow.prefect, "check_health", "nowhere")
    assert slow.asked.wait(60)
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.status == 1, ended.output
    assert ended.stderr.startswith("interrupted: run it again"), ended.output
    assert len(ended.stderr.splitlines()) == 1
    slow.released.set()
    assert finish(start_runbook(slow.prefect, "check_health", "nowhere")).status == 2
    new = [run for key, run in read_runs(server).items() if key not in before]
    assert sorted(run["state"]["name"] for run in new) == ["Interrupted", "Refused"]
    assert check_record(server.prefect) == (0, 0, 0)
