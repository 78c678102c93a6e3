"""Rotation of leaves and of the authority on real hosts, under writers that never pause."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tasks.engine.journal import read_journal
from tasks.model.certificates import Role
from tasks.model.record import Event
from tests.integration.pairs import sign_again
from tests.integration.rotations import (
    add_client,
    authority_digits,
    find_strangers,
    serials,
    served_serials,
)
from tests.integration.runbooks import Prefect, etcdctl, run_runbook
from tests.integration.writers import DIRECTORY, WriteReport, Writers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

ISSUER = "openssl verify -CAfile /etc/etcd/ssl/ca.pem /etc/etcd/ssl/{server,peer,client}.pem"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(3, id="3 members"),
        pytest.param(5, id="5 members", marks=pytest.mark.chaos),
    ],
)
def scene(
    request: pytest.FixtureRequest, start_module_lab: StartLab, prefect: Prefect
) -> tuple[Lab, Path]:
    """Bootstrap a cluster with a client outside etcd."""
    lab = start_module_lab(hosts=request.param)
    ended = run_runbook(prefect, "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output
    return lab, add_client(lab)


def gaps(prefect: Prefect) -> list[dict[str, Any]]:
    """Read what the last run's probe met, stage by stage."""
    records = read_journal(prefect.journals[-1])
    (found,) = [r.details["gaps"] for r in records if r.event is Event.MEASURED]
    return list(found)


def tell(title: str, report: WriteReport, measured: list[dict[str, Any]]) -> None:
    """Print the figures that a closing note quotes."""
    lines = [f"{title}: {report.acknowledged} writes, longest gap {report.longest_gap:.3f} s"]
    lines += [f"  {g['stage']}: {g['longest']:.3f} s, failed {g['failures']}" for g in measured]
    sys.stdout.write("\n" + "\n".join(lines) + "\n")


def test_all_pairs_are_replaced_and_no_write_is_lost(
    scene: tuple[Lab, Path], prefect: Prefect, tmp_path: Path
) -> None:
    """Every serial is another one, both ports serve it at once, and etcd was not restarted."""
    lab, inventory = scene
    before, pids = serials(lab), main_pids(lab)
    with Writers(lab, tmp_path) as writers:
        ended = run_runbook(prefect, "rotate_certificates", inventory, "--which", "all")
        time.sleep(1)
    assert ended.status == 0, ended.output
    report = writers.check()
    tell("leaves", report, gaps(prefect))
    assert report.acknowledged > 50
    assert report.lost == ()
    after = serials(lab)
    for name, host in lab.hosts.items():
        assert not set(before[name].split()) & set(after[name].split())
        assert served_serials(host) == after[name].split()[:2]
        kept = host.run("ls /var/backups/etcd-runbooks/*/etc/etcd/ssl/server-key.pem").check()
        assert kept.stdout
    assert main_pids(lab) == pids
    assert find_strangers(lab) == []
    first = next(iter(lab.hosts.values()))
    assert "told" in first.run(f"cat {DIRECTORY}/told").stdout
    again = run_runbook(prefect, "rotate_certificates", inventory)
    assert "no pair is due" in again.stdout, again.output


def main_pids(lab: Lab) -> dict[str, str]:
    """Get the process id of etcd on every host."""
    show = ["systemctl", "show", "etcd", "-p", "MainPID"]
    return {name: host.run(show).check().stdout for name, host in lab.hosts.items()}


def test_the_authority_is_replaced_and_no_write_is_lost(
    scene: tuple[Lab, Path], prefect: Prefect, tmp_path: Path
) -> None:
    """Dual trust, new pairs, the new one alone; the old client certificate is refused after."""
    lab, inventory = scene
    old = authority_digits(inventory)
    first = next(iter(lab.hosts.values()))
    first.run("cp -r /etc/etcd/ssl /root/old").check()
    command = ("rotate_authority", inventory, "--replace", old)
    with Writers(lab, tmp_path) as writers:
        ended = run_runbook(prefect, *command, "--reason", "test")
        time.sleep(1)
    assert ended.status == 0, ended.output
    report = writers.check()
    tell("authority", report, gaps(prefect))
    assert report.acknowledged > 100
    assert report.lost == ()
    assert authority_digits(inventory) != old
    for host in lab.hosts.values():
        assert host.run(["bash", "-c", ISSUER]).check().stdout.count("OK") == 3
        assert host.run("grep -c BEGIN /etc/etcd/ssl/ca.pem").stdout.strip() == "1"
    assert find_strangers(lab) == []
    refused = first.run(
        "ETCDCTL_API=3 /usr/local/bin/etcdctl --command-timeout=3s --cacert=/etc/etcd/ssl/ca.pem "
        f"--cert=/root/old/client.pem --key=/root/old/client-key.pem "
        f"--endpoints=https://{first.address}:2379 get x"
    )
    assert refused.status != 0
    again = run_runbook(prefect, *command)
    assert again.status == 0, again.output
    assert "nothing to do" in again.stdout


def test_a_rotation_of_the_authority_stops_at_barriers_and_can_be_reversed(
    scene: tuple[Lab, Path], prefect: Prefect
) -> None:
    """Stopped after each barrier the cluster is healthy for every runbook; going back ends it."""
    lab, inventory = scene
    old = authority_digits(inventory)
    for barrier in ("trust", "certificates"):
        ended = run_runbook(
            prefect, "rotate_authority", inventory, "--replace", old, "--until", barrier
        )
        assert ended.status == 0, ended.output
        assert run_runbook(prefect, "check_health", inventory).status == 0
        assert find_strangers(lab) == []
    assert authority_digits(inventory) != old
    ended = run_runbook(prefect, "rotate_authority", inventory, "--reverse")
    assert ended.status == 0, ended.output
    assert authority_digits(inventory) == old
    again = run_runbook(prefect, "rotate_authority", inventory, "--reverse")
    assert "nothing to do" in again.stdout, again.output
    etcdctl(lab, "put", "after", "reversal")


def test_only_what_is_due_is_replaced(scene: tuple[Lab, Path], prefect: Prefect) -> None:
    """A pair that ends soon, and one for another address, on one host each."""
    lab, inventory = scene
    one, two = list(lab.hosts.values())[:2]
    sign_again(lab, one, Role.CLIENT, left=timedelta(minutes=1))
    sign_again(lab, two, Role.SERVER, left=timedelta(days=400), address="192.0.2.7")
    before = serials(lab)
    ended = run_runbook(prefect, "rotate_certificates", inventory)
    assert ended.status == 0, ended.output
    assert "2 new pair(s)" in ended.stdout
    assert f"lacks the SAN {two.address}" in ended.stdout
    after = serials(lab)
    changed = {
        (name, role)
        for name in lab.hosts
        for role, was, now in zip(
            ("server", "peer", "client"), before[name].split(), after[name].split(), strict=True
        )
        if was != now
    }
    assert changed == {(one.name, "client"), (two.name, "server")}


def test_an_authority_that_is_not_due_is_left_alone(
    scene: tuple[Lab, Path], prefect: Prefect
) -> None:
    """Without a word which is to go, the run is refused, and says how to ask."""
    _, inventory = scene
    ended = run_runbook(prefect, "rotate_authority", inventory)
    assert ended.status == 2
    assert f"--replace {authority_digits(inventory)[:12]}" in ended.stderr


@pytest.mark.chaos
def test_an_unmanaged_client_stops_the_rotation_at_the_barrier(
    scene: tuple[Lab, Path], prefect: Prefect
) -> None:
    """The plan names the machine, the bundle lies ready, and the operator's word goes on."""
    lab, inventory = scene
    unmanaged = lab.directory / "unmanaged.yaml"
    unmanaged.write_text(inventory.read_text() + "  - {name: calico, managed: false}\n")
    old = authority_digits(unmanaged)
    ended = run_runbook(prefect, "rotate_authority", unmanaged, "--replace", old)
    assert ended.status == 0, ended.output
    assert "calico" in ended.stdout
    assert "--clients-trusting calico" in ended.stdout
    assert authority_digits(unmanaged) == old
    bundle = (lab.authority / "ca.bundle.pem").read_text()
    assert bundle.count("BEGIN CERTIFICATE") == 2
    shown = subprocess.run(
        ["openssl", "verify", "-CAfile", lab.authority / "ca.bundle.pem", lab.authority / "ca.pem"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "OK" in shown.stdout
    ended = run_runbook(prefect, "rotate_authority", unmanaged, "--clients-trusting", "calico")
    assert ended.status == 0, ended.output
    assert "--clients-renewed calico" in ended.stdout
    assert authority_digits(unmanaged) != old
    ended = run_runbook(prefect, "rotate_authority", unmanaged, "--clients-renewed", "calico")
    assert ended.status == 0, ended.output
    assert not (lab.authority / "ca.previous.pem").exists()


@pytest.mark.chaos
def test_what_others_use_is_not_taken_from_them_in_silence(
    scene: tuple[Lab, Path], prefect: Prefect
) -> None:
    """A kube-apiserver on etcd's files; then one on a pair of its own of the same authority."""
    lab, inventory = scene
    host = list(lab.hosts.values())[1]
    serve = (
        "cp /etc/etcd/ssl/client.pem /etc/ssl/node.pem; "
        "cp /etc/etcd/ssl/client-key.pem /etc/ssl/node-key.pem; "
        "systemctl stop kube-apiserver 2>/dev/null; "
        "systemd-run --quiet --unit=kube-apiserver openssl s_server -quiet -accept 6443 "
        "-CAfile {ca} -cert {pair}.pem -key {pair}-key.pem"
    )
    try:
        shared = serve.format(ca="/etc/etcd/ssl/ca.pem", pair="/etc/etcd/ssl/server")
        host.run(shared).check()
        host.run(
            "systemd-run --quiet --unit=felix --setenv=FELIX_ETCDCACERTFILE=/etc/etcd/ssl/ca.pem "
            "sleep 900; echo 'tls_ca: \"/etc/etcd/ssl/ca.pem\"' > /etc/shipper.yaml; "
            "systemd-run --quiet --unit=shipper tail -f /etc/shipper.yaml"
        ).check()
        before = serials(lab)
        old = authority_digits(inventory)
        ended = run_runbook(prefect, "rotate_authority", inventory, "--replace", old)
        assert ended.status == 2, ended.output
        assert f"{host.name}: /etc/etcd/ssl/ca.pem is also used by openssl" in ended.stderr
        for unit in ("kube-apiserver", "felix", "shipper"):
            assert f"of {unit}.service" in ended.stderr, ended.output
        assert "--accept-shared" in ended.stderr
        assert (serials(lab), authority_digits(inventory)) == (before, old)
        ended = run_runbook(
            prefect, "rotate_certificates", inventory, "--which", "all", "--dry-run"
        )
        assert ended.status == 0, ended.output
        assert f"{host.name}: /etc/etcd/ssl/server.pem is also used by openssl" in ended.stdout

        host.run(
            "systemctl stop felix shipper; cp /etc/etcd/ssl/ca.pem /etc/ssl/etcd-ca.pem"
        ).check()
        host.run(serve.format(ca="/etc/ssl/etcd-ca.pem", pair="/etc/ssl/node")).check()
        ended = run_runbook(prefect, "rotate_authority", inventory, "--replace", old)
        assert ended.status == 2, ended.output
        assert f"{host.name}: /etc/ssl/node.pem, which openssl" in ended.stderr
        way = ("--replace", old, "--until", "certificates", "--dry-run")
        ended = run_runbook(prefect, "rotate_authority", inventory, *way)
        assert ended.status == 0, ended.output
    finally:
        host.run("systemctl stop kube-apiserver felix shipper")
        host.run("rm -f /etc/ssl/node*.pem /etc/ssl/etcd-ca.pem /etc/shipper.yaml")
