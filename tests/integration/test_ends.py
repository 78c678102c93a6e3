"""Each way in which a run ends, as Prefect's API shows it: a state of its own name, one report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tasks.launch import TOLD_SECONDS
from tests.integration.faults import Server, check_record, read_pages
from tests.integration.runbooks import ROOT, Ended

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server for the module."""
    running = Server(tmp_path_factory.mktemp("ends"))
    running.start()
    yield running
    running.kill()


def end_run(server: Server, *words: str) -> Ended:
    """Run to an end."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.ended_run", *words],
        cwd=ROOT,
        env=server.prefect.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


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
    assert end_run(server, end).status == status
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
