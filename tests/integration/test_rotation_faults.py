"""Rotations that meet a fault: refused with nothing changed, or finished by the next run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.rotations import authority_digits, find_strangers, serials
from tests.integration.runbooks import Ended, Prefect, run_runbook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

ALL = ("rotate_certificates", "--which", "all")


@pytest.fixture(scope="module")
def lab(start_module_lab: StartLab, prefect: Prefect) -> Lab:
    """Bootstrap a cluster of three."""
    lab = start_module_lab(hosts=3)
    ended = run_runbook(prefect, "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output
    return lab


def hasty(lab: Lab) -> Path:
    """Write the inventory with a short limit for SSH connections."""
    path = lab.directory / "hasty.yaml"
    text = lab.inventory.read_text()
    path.write_text(text.replace("ssh:\n", "ssh:\n  connect_timeout_seconds: 2\n", 1))
    return path


def run(prefect: Prefect, lab: Lab, command: tuple[str, ...]) -> Ended:
    """Run a runbook with its options."""
    return run_runbook(prefect, command[0], hasty(lab), *command[1:])


def test_one_of_three_hosts_is_down(lab: Lab, prefect: Prefect) -> None:
    """Both rotations are refused, with the count or the host, and nothing is changed."""
    old = authority_digits(lab.inventory)
    lab["master03"].power_cut()
    before = {
        name: lab[name].run("cat /etc/etcd/ssl/*").stdout for name in ("master01", "master02")
    }
    try:
        leaves = run(prefect, lab, ALL)
        authority = run(prefect, lab, ("rotate_authority", "--replace", old))
    finally:
        after = {name: lab[name].run("cat /etc/etcd/ssl/*").stdout for name in before}
        lab["master03"].start()
    assert leaves.status == 2, leaves.output
    assert "1 of 3 members would be healthy, and 2 are needed" in leaves.stderr
    assert authority.status == 2, authority.output
    assert "master03" in authority.stderr
    assert after == before


@pytest.mark.chaos
def test_one_of_five_hosts_is_down(start_lab: StartLab, prefect: Prefect) -> None:
    """The plan leaves it out and says so; the next run does it, and only it."""
    lab = start_lab(hosts=5)
    assert run_runbook(prefect, "bootstrap_cluster", lab).status == 0
    before = serials(lab)
    down = lab["master05"]
    down.power_cut()
    ended = run(prefect, lab, ALL)
    assert ended.status == 3, ended.output
    assert "master05: is left out" in ended.stdout
    down.start()
    after = serials(lab)
    assert after["master05"] == before["master05"]
    assert all(after[name] != before[name] for name in after if name != "master05")
    down.run("systemctl start etcd", timeout=60).check()
    ended = run(prefect, lab, ALL)
    assert ended.status == 0, ended.output
    assert serials(lab)["master05"] != before["master05"]
    assert find_strangers(lab) == []


def test_the_clock_of_one_host_is_an_hour_ahead(lab: Lab, prefect: Prefect) -> None:
    """Refused, naming the host: certificates are dated by clocks."""
    lab["master02"].skew_clock(3600)
    try:
        for command in (ALL, ("rotate_authority", "--replace", authority_digits(lab.inventory))):
            ended = run(prefect, lab, command)
            assert ended.status == 2, ended.output
            assert "master02" in ended.stderr
            assert "clock" in ended.stderr
    finally:
        lab["master02"].skew_clock(0)


@pytest.mark.parametrize(
    "place", ["/etc/etcd/ssl", pytest.param("/var/backups/etcd-runbooks", marks=pytest.mark.chaos)]
)
def test_a_disk_is_full(lab: Lab, prefect: Prefect, place: str) -> None:
    """Where pairs are staged, or where they are kept aside: refused, and the next run ends.

    The host's pairs match and are served all the time.
    """
    host = lab["master02"]
    host.run("systemctl is-active etcd || systemctl start etcd", timeout=60).check()
    before = serials(lab)["master02"]
    small = (
        f"mkdir -p {place}; cp -a {place} /root/copy; mount -t tmpfs -o size=4m small {place}; "
        f"cp -a /root/copy/*.pem {place}/; chown --reference=/root/copy {place}; "
        f"chmod --reference=/root/copy {place}; head -c 8M /dev/zero > {place}/filler; true"
    )
    host.run(small).check()
    try:
        ended = run(prefect, lab, ALL)
        assert ended.status == 2, ended.output
        assert "master02: no file can be written for" in ended.stderr
        assert "No space left" in ended.stderr
        assert serials(lab)["master02"] == before
        assert find_strangers(lab) == []
        host.run(f"rm {place}/filler").check()
        again = run(prefect, lab, ALL)
        assert again.status == 0, again.output
        assert serials(lab)["master02"] != before
    finally:
        host.run(f"cp -a {place}/*.pem /root/copy/; umount {place}; cp -a /root/copy/. {place}/")
        host.run("rm -rf /root/copy").check()
    assert find_strangers(lab) == []


@pytest.mark.chaos
def test_a_cluster_of_one_cannot_spare_its_member(start_lab: StartLab, prefect: Prefect) -> None:
    """Pairs are replaced without an outage; an authority only when the outage is accepted."""
    lab = start_lab(hosts=1)
    assert run_runbook(prefect, "bootstrap_cluster", lab).status == 0
    ended = run_runbook(prefect, *ALL[:1], lab, *ALL[1:])
    assert ended.status == 0, ended.output
    old = authority_digits(lab.inventory)
    command = ("rotate_authority", lab, "--replace", old)
    refused = run_runbook(prefect, *command)
    assert refused.status == 2, refused.output
    assert "--accept-outage" in refused.stderr
    ended = run_runbook(prefect, *command, "--accept-outage")
    assert ended.status == 0, ended.output
    assert authority_digits(lab.inventory) != old
