"""check_certificates on real hosts: each fault is found where it is, and nothing else."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tasks.model.certificates import AuthorityPolicy, Role
from tasks.pki.authority import create_authority
from tests.integration.pairs import install, sign_again
from tests.integration.rotations import add_client
from tests.integration.runbooks import HANG_SECONDS, Ended, Prefect, finish, run_runbook
from tests.integration.runbooks import start_runbook as start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.host import Host
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

SSL = "/etc/etcd/ssl"


@pytest.fixture(scope="module")
def lab(start_module_lab: StartLab, prefect: Prefect) -> Lab:
    """Bootstrap a cluster."""
    lab = start_module_lab(hosts=3)
    ended = run_runbook(prefect, "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output
    add_client(lab)
    return lab


def check(prefect: Prefect, directory: Path, *inventories: Path) -> tuple[Ended, dict[str, Any]]:
    """Run the check on inventories; returns its end and its JSON."""
    target = directory / "certificates.json"
    options = ["--json-path", str(target)]
    for inventory in inventories[1:]:
        options += ["--clusters", str(inventory)]
    process = start(prefect, "check_certificates", inventories[0], *options, named="--clusters")
    ended = finish(process)
    return ended, json.loads(target.read_text())


def findings(result: dict[str, Any]) -> set[tuple[str, str, str, str]]:
    """List the findings of certificates: host, certificate, kind and grade."""
    return {
        (row["host"], row["certificate"], finding["kind"], finding["grade"])
        for cluster in result["clusters"]
        for row in cluster["certificates"]
        for finding in row["findings"]
    }


def test_sound_certificates_have_no_finding(lab: Lab, prefect: Prefect, tmp_path: Path) -> None:
    """Exit status 0, a row for each certificate, three ways; the client outside etcd too."""
    ended, result = check(prefect, tmp_path, lab.directory / "with-client.yaml")
    assert ended.status == 0, ended.output
    (cluster,) = result["clusters"]
    assert findings(result) == set()
    assert cluster["findings"] == []
    rows = {(row["host"], row["certificate"]): row for row in cluster["certificates"]}
    assert len(rows) == 3 * 4 + 2
    assert ("writer", "client") in rows
    server = rows["master01", "server"]
    assert server["served"] == {"2379": server["serial"]}
    assert "12 certificates" not in ended.stdout
    assert "as desired" in ended.stdout


@dataclass(frozen=True, slots=True)
class Fault:
    """Something done to a host, what is found of it, and how it is undone."""

    put: Callable[[Lab, Host], None]
    found: set[tuple[str, str, str]]


def expire_client(lab: Lab, host: Host) -> None:
    """Let the client certificate expire."""
    sign_again(lab, host, Role.CLIENT, left=timedelta(seconds=1))
    time.sleep(1.5)


def end_soon(lab: Lab, host: Host) -> None:
    """Leave a minute of the client certificate."""
    sign_again(lab, host, Role.CLIENT, left=timedelta(seconds=50))


def exchange_keys(_lab: Lab, host: Host) -> None:
    """Put the peer's key beside the client's certificate."""
    host.run(f"cp {SSL}/peer-key.pem {SSL}/client-key.pem; chmod 0600 {SSL}/client-key.pem").check()


def misname(lab: Lab, host: Host) -> None:
    """Serve a certificate for another address."""
    sign_again(lab, host, Role.SERVER, left=timedelta(days=700), address="192.0.2.9")


def open_key(_lab: Lab, host: Host) -> None:
    """Let everybody read a key."""
    host.run(f"chmod 0644 {SSL}/client-key.pem").check()


def lose_client(_lab: Lab, host: Host) -> None:
    """Lose a certificate."""
    host.run(f"rm {SSL}/client.pem").check()


def sign_by_stranger(lab: Lab, host: Host) -> None:
    """Let another authority sign the client's certificate."""
    stranger = create_authority(AuthorityPolicy(common_name="stranger"), datetime.now(UTC))
    sign_again(lab, host, Role.CLIENT, left=timedelta(days=700), authority=stranger)


def stop_etcd(_lab: Lab, host: Host) -> None:
    """Stop etcd."""
    host.run("systemctl stop etcd").check()


FAULTS = {
    "expired": Fault(expire_client, {("client", "expired", "critical")}),
    "about to end": Fault(end_soon, {("client", "expiring", "critical")}),
    "another's key": Fault(exchange_keys, {("client", "mismatched", "critical")}),
    "another's address": Fault(
        misname, {("server", "names", "critical"), ("server", "names", "warning")}
    ),
    "an open key": Fault(open_key, {("client", "exposed", "critical")}),
    "lost": Fault(lose_client, {("client", "missing", "critical")}),
    "signed by a stranger": Fault(
        sign_by_stranger,
        {("client", "untrusted", "critical"), ("client", "differing", "warning")},
    ),
    "not served": Fault(
        stop_etcd, {("server", "unserved", "critical"), ("peer", "unserved", "critical")}
    ),
}


IN_CI = {"expired", "another's address", "signed by a stranger", "not served"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in IN_CI else pytest.mark.chaos) for name in FAULTS],
)
def test_a_fault_is_found_where_it_is(
    lab: Lab, prefect: Prefect, tmp_path: Path, name: str
) -> None:
    """The right finding on the right host, and no other; exit status 1."""
    host, fault = lab["master02"], FAULTS[name]
    host.run(f"rm -rf /root/kept; cp -a {SSL} /root/kept").check()
    try:
        fault.put(lab, host)
        ended, result = check(prefect, tmp_path, lab.inventory)
    finally:
        host.run(f"cp -a /root/kept/. {SSL}/; systemctl start etcd").check()
    assert ended.status == 1, ended.output
    assert findings(result) == {("master02", *found) for found in fault.found}
    assert "master02" in ended.stderr


def test_trusted_files_that_differ_are_a_warning(
    lab: Lab, prefect: Prefect, tmp_path: Path
) -> None:
    """In the middle of a rotation one host trusts more than the others; nothing is critical."""
    host = lab["master03"]
    before = host.run(f"cat {SSL}/ca.pem").check().stdout
    other = create_authority(AuthorityPolicy(common_name="next"), datetime.now(UTC))
    try:
        install(host, f"{SSL}/ca.pem", before + other.certificate_pem.decode())
        ended, result = check(prefect, tmp_path, lab.inventory)
    finally:
        install(host, f"{SSL}/ca.pem", before)
    assert ended.status == 0, ended.output
    (finding,) = result["clusters"][0]["findings"]
    assert (finding["kind"], finding["grade"]) == ("untrusted", "warning")
    assert "master03" in finding["sentence"]


def test_what_cannot_be_reached_or_read_keeps_nothing_else_from_being_checked(
    lab: Lab, prefect: Prefect, tmp_path: Path
) -> None:
    """A cut cable and a broken inventory are findings; events tell of them; the run is Failed."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: broken\nhosts: []\n")
    hasty = tmp_path / "hasty.yaml"
    text = lab.inventory.read_text()
    hasty.write_text(text.replace("ssh:\n", "ssh:\n  connect_timeout_seconds: 2\n", 1))
    lab["master01"].cut_cable()
    try:
        ended, result = check(prefect, tmp_path, broken, hasty)
    finally:
        lab["master01"].plug_cable()
    assert ended.status == 1
    first, second = result["clusters"]
    assert [f["kind"] for f in first["findings"]] == ["unchecked"]
    assert [f["kind"] for f in second["findings"]] == ["unreachable"]
    assert {row["host"] for row in second["certificates"]} == {"master02", "master03"}
    runs = prefect.ask("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
    assert runs[0]["state_type"] == "FAILED"
    deadline = time.monotonic() + HANG_SECONDS
    while not (seen := prefect.ask("/events/filter", EVENTS)["events"]):
        assert time.monotonic() < deadline, "no event arrived"
        time.sleep(0.2)
    assert seen[0]["payload"]["host"] == "master01"
    assert seen[0]["payload"]["grade"] == "critical"


EVENTS = {"filter": {"event": {"name": ["etcd.certificate.unreachable"]}}}
