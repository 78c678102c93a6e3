"""kill -9 of the runner at every boundary of bootstrap_cluster; the next run finishes the work.

A kill point is a line of the journal: the runner dies right after the line is on disk. The list
is checked against the boundaries that a whole run really has. Every point is covered by the chaos
runs; a fixed sample of them runs always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.engine.history import check_journals
from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tests.integration.runbooks import (
    Prefect,
    etcdctl,
    finish,
    run_runbook,
    start_runbook,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = pytest.mark.lab

HOSTS = ("master01", "master02", "master03")
STEPS = (
    *(f"lock the cluster on {host}" for host in HOSTS),
    *(f"observe {host}" for host in HOSTS),
    "reach every member's ports",
    "make the authority",
    *(
        f"{step} on {host}"
        for step in (
            "make the account",
            "install etcd",
            "make directories",
            "issue certificates",
            "write configuration",
            "start etcd",
        )
        for host in HOSTS
    ),
    "verify the cluster",
)
KILL_POINTS = (
    f"{Event.RUN_STARTED}|",
    f"{Event.PLANNED}|",
    *(f"{event}|{step}" for step in STEPS for event in (Event.STEP_STARTED, Event.STEP_FINISHED)),
)
SAMPLE = (
    "step-finished|make the authority",
    "step-started|issue certificates on master02",
    "step-finished|start etcd on master01",
)


def boundaries(journal: Path) -> set[str]:
    """List the kill points that a run passed."""
    return {
        f"{record.event}|{record.details.get('step', '')}"
        for record in read_journal(journal)
        if record.event.is_boundary and record.event is not Event.RUN_FINISHED
    }


def kill_and_run_again(start_lab: StartLab, prefect: Prefect, point: str) -> None:
    """Let a run die at a point, run again, and see a healthy cluster and a whole record."""
    lab = start_lab(hosts=3)
    killer = ("-m", "tests.integration.killed_run", point)
    killed = finish(start_runbook(prefect, "bootstrap_cluster", lab, launcher=killer))
    assert killed.status == -9, killed.output
    dead = prefect.journals[-1]
    ended = run_runbook(prefect, "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output
    etcdctl(lab, "put", "written", "after")
    assert etcdctl(lab, "get", "written", "--print-value-only").strip() == "after"
    records = read_journal(dead)
    run = next(r.details["run"] for r in records if r.event is Event.RUN_STARTED)
    begun = {r.details["task_run"] for r in records if r.event is Event.STEP_STARTED}
    found = prefect.list_task_runs(run)
    assert begun <= {row["id"] for row in found}
    assert all(row["state_type"] in {"COMPLETED", "FAILED", "CRASHED"} for row in found)
    (flow_run,) = prefect.ask("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    assert flow_run["state_type"] == "CRASHED"
    seals = dict(check_journals(dead.parents[1], None))
    assert dead in seals
    assert all(found.is_sealed and not found.faults for found in seals.values())


def test_the_kill_points_are_all_boundaries_of_a_whole_run(
    start_lab: StartLab, prefect: Prefect
) -> None:
    """A step that is added to the runbook must be added here."""
    ended = run_runbook(prefect, "bootstrap_cluster", start_lab(hosts=3))
    assert ended.status == 0, ended.output
    assert boundaries(prefect.journals[-1]) == set(KILL_POINTS)
    assert set(SAMPLE) <= set(KILL_POINTS)


@pytest.mark.parametrize("point", SAMPLE)
def test_a_run_killed_at_a_boundary_is_finished_by_the_next(
    start_lab: StartLab, prefect: Prefect, point: str
) -> None:
    """The fixed sample: after the authority, in the certificates, around the start."""
    kill_and_run_again(start_lab, prefect, point)


@pytest.mark.chaos
@pytest.mark.parametrize("point", [point for point in KILL_POINTS if point not in SAMPLE])
def test_a_run_killed_at_any_boundary_is_finished_by_the_next(
    start_lab: StartLab, prefect: Prefect, point: str
) -> None:
    """Every other boundary."""
    kill_and_run_again(start_lab, prefect, point)
