"""What is said of a cluster that is full, and by runners that cannot enter it, is true."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.integration.rotations import authority_digits
from tests.integration.runbooks import Prefect, finish, run_runbook, start_runbook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

RUNBOOKS = (
    ("rotate_certificates", ("--which", "all")),
    ("rotate_authority", ()),
    ("recover_certificates", ()),
    ("recover_certificates", ("--consent",)),
    ("bootstrap_cluster", ()),
    ("move_leader", ()),
    ("replace_member", ("--member", "master03", "--planned", "--replacement", "master03")),
    ("remove_member", ("--member", "master03")),
)


@pytest.fixture(scope="module")
def lab(start_module_lab: StartLab, prefect: Prefect) -> Lab:
    """Bootstrap a cluster."""
    lab = start_module_lab(hosts=3)
    ended = run_runbook(prefect, "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output
    return lab


def another_runner(lab: Lab, directory: Path) -> Path:
    """Copy the authority's folder and the inventory, as a second runner has them."""
    folder = directory / "authority"
    shutil.copytree(lab.authority, folder)
    inventory = directory / "cluster.yaml"
    inventory.write_text(lab.inventory.read_text().replace(str(lab.authority), str(folder)))
    return inventory


def files(lab: Lab) -> dict[str, str]:
    """Sum up etcd's files on every host, and when etcd was started."""
    script = (
        "cat $(find /etc/etcd -type f | sort) | sha256sum; "
        "systemctl show -p ActiveEnterTimestampMonotonic etcd; ls /etc/etcd/ssl"
    )
    return {name: host.run(script).check().stdout for name, host in lab.hosts.items()}


def test_a_wrong_passphrase_does_not_blind(lab: Lab, prefect: Prefect, tmp_path: Path) -> None:
    """check_health asks on the hosts and says so, with a wrong passphrase and without one."""
    inventory = another_runner(lab, tmp_path)
    direct = run_runbook(prefect, "check_health", lab)
    assert direct.status == 0, direct.output
    assert "asked over HTTPS" in direct.stdout
    secret = tmp_path / "authority" / "passphrase"
    secret.write_text("wrong\n")
    for _ in range(2):
        ended = run_runbook(prefect, "check_health", inventory)
        assert ended.status == 0, ended.output
        assert "asked on the hosts, with the members' own pairs" in ended.stdout
        secret.unlink(missing_ok=True)


def test_a_clock_that_is_days_away_is_told(lab: Lab, prefect: Prefect) -> None:
    """The members are well over HTTPS, and the host is named whose clock differs by two days."""
    host = list(lab.hosts.values())[-1]
    host.skew_clock(2 * 86400)
    try:
        ended = run_runbook(prefect, "check_health", lab)
    finally:
        host.skew_clock(0)
    assert ended.status == 1, ended.output
    assert re.search(rf"{host.name}: .*clock", ended.output), ended.output


def test_a_host_that_ssh_does_not_reach_is_a_remark(lab: Lab, prefect: Prefect) -> None:
    """What only SSH can tell is missing, which is told once; the table is shown all the same."""
    host = list(lab.hosts.values())[-1]
    host.run("systemctl stop ssh").check()
    try:
        ended = run_runbook(prefect, "check_health", lab)
    finally:
        host.run("systemctl start ssh").check()
    told = f"{host.name}: its clock and what its next restart would change are not known: no SSH"
    assert told in ended.stdout, ended.output
    told_of = [line for line in ended.stdout.splitlines() if line.startswith("- ")]
    assert sum("no SSH connection" in line for line in told_of) == 1, ended.output
    assert ended.status == 0, ended.output


@pytest.mark.chaos
def test_an_old_authority_takes_no_healthy_cluster(
    lab: Lab, prefect: Prefect, tmp_path: Path
) -> None:
    """A rotates to the end; on B every runbook refuses and says why, and no file changes."""
    old = another_runner(lab, tmp_path)
    rotated = run_runbook(
        prefect, "rotate_authority", lab, "--replace", authority_digits(lab.inventory)
    )
    assert rotated.status == 0, rotated.output
    before = files(lab)
    said = "serves, under another authority than this runner's"
    health = run_runbook(prefect, "check_health", old)
    assert health.status == 1
    assert said in health.output, health.output
    for runbook, options in RUNBOOKS:
        ended = run_runbook(prefect, runbook, old, *options)
        assert ended.status == 2, (runbook, ended.output)
        assert said in ended.stderr, (runbook, ended.output)
        assert authority_digits(lab.inventory) in ended.stderr
    certificates = finish(start_runbook(prefect, "check_certificates", old, named="--clusters"))
    assert certificates.status == 1
    assert said in certificates.output
    assert files(lab) == before
