"""Versions of etcd come and go on real hosts, under clients that never stop writing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.members import fill, raise_cluster
from tests.integration.runbooks import Prefect, run_runbook
from tests.integration.test_members import tell
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
    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.one_etcd]

chaos = pytest.mark.chaos


@pytest.mark.parametrize(
    ("members", "megabytes", "path"),
    [
        pytest.param(3, 1, (MIDDLE, LATER), id="3 members, one hop"),
        pytest.param(3, 100, (OLD, MIDDLE, LATER, NEWEST), id="3 members, all", marks=chaos),
        pytest.param(5, 100, (OLD, MIDDLE, LATER, NEWEST), id="5 members, all", marks=chaos),
    ],
)
def test_a_cluster_goes_up_in_one_command_and_no_write_is_lost(
    start_lab: StartLab,
    prefect: Prefect,
    tmp_path: Path,
    members: int,
    megabytes: int,
    path: tuple[str, ...],
) -> None:
    """Hop by hop to the last version; then nothing is to do."""
    first, *further, goal = path
    scene = raise_cluster(start_lab, prefect, tmp_path, members=members, spare=0, etcd=first)
    hosts = scene.members
    fill(scene.lab, hosts[0], megabytes)
    aimed = aim_at(scene, goal, *further)
    with Writers(scene.lab, tmp_path, files=scene.clients) as writers:
        began = time.monotonic()
        ended = upgrade(prefect, aimed)
        assert ended.status == 0, ended.output
        took = time.monotonic()
    report = writers.check(on=hosts[-1])
    tell(f"{members} x {first} -> {goal}", prefect, began + time.monotonic() - took, report)
    print(ended.stdout)  # noqa: T201 - for whoever runs it with -s
    assert report.lost == ()
    assert set(versions(scene.lab, hosts).values()) == {goal}
    assert leftovers(scene.lab) == ""
    again = upgrade(prefect, aimed)
    assert again.status == 0, again.output
    assert "nothing to do" in again.output
    healthy = run_runbook(prefect, "check_health", aimed.inventory)
    assert healthy.status == 0, healthy.output
