"""bootstrap_cluster on real hosts: from bare to healthy, again without a change, and its record."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.engine.authority import read_passphrase
from tasks.engine.journal import read_journal
from tasks.model.credentials import Passphrase
from tasks.model.errors import AuthorityRefused
from tasks.model.record import Event
from tests.integration.runbooks import (
    Prefect,
    etcdctl,
    run_runbook,
)
from tests.lab.etcd_programs import INSTALLED, NEWEST

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def bootstrapped(start_module_lab: StartLab, prefect: Prefect) -> Lab:
    """Start a lab and bootstrap a cluster on it."""
    lab = start_module_lab(hosts=3)
    ended = run_runbook(prefect, "bootstrap_cluster", lab, "--reason", "first test")
    assert ended.status == 0, ended.output
    return lab


def fingerprint(lab: Lab) -> dict[str, str]:
    """List every file that a runbook could change, with size, mode, owner and time."""
    find = "find /etc /usr/local /var/backups -xdev -type f -printf '%p %s %m %u %T@\\n' | sort"
    return {name: host.run(["sh", "-c", find]).check().stdout for name, host in lab.hosts.items()}


def test_a_bare_lab_becomes_a_healthy_cluster(bootstrapped: Lab) -> None:
    """Three members answer etcdctl with mutual TLS, and a write on one is read on all."""
    members = json.loads(etcdctl(bootstrapped, "member", "list", "-w", "json"))["members"]
    assert sorted(m["name"] for m in members) == sorted(bootstrapped.hosts)
    etcdctl(bootstrapped, "put", "from", "test")
    assert etcdctl(bootstrapped, "get", "from", "--print-value-only").strip() == "test"
    assert etcdctl(bootstrapped, "endpoint", "health").count("is healthy") in (0, 3)


def test_a_second_run_changes_nothing_and_says_so(bootstrapped: Lab, prefect: Prefect) -> None:
    """Running it again leaves every file as it was."""
    before = fingerprint(bootstrapped)
    ended = run_runbook(prefect, "bootstrap_cluster", bootstrapped)
    assert ended.status == 0, ended.output
    assert "nothing to do" in ended.stdout
    assert "no changes" in ended.stdout
    assert fingerprint(bootstrapped) == before


def test_check_health_shows_every_member(bootstrapped: Lab, prefect: Prefect) -> None:
    """The table names each member once; the run is an artifact too."""
    ended = run_runbook(prefect, "check_health", bootstrapped)
    assert ended.status == 0, ended.output
    for name in bootstrapped.hosts:
        assert name in ended.stdout
    artifacts = prefect.ask("/artifacts/filter", {"limit": 50})
    assert any("Health of" in str(artifact["data"]) for artifact in artifacts)


def test_check_health_fails_when_a_member_is_frozen(bootstrapped: Lab, prefect: Prefect) -> None:
    """A member that does not answer is named, and the exit status is 1."""
    victim = list(bootstrapped.hosts.values())[-1]
    victim.freeze("etcd.service")
    try:
        ended = run_runbook(prefect, "check_health", bootstrapped)
    finally:
        victim.thaw("etcd.service")
    assert ended.status == 1, ended.output
    assert f"{victim.name}:" in ended.stderr


def test_every_task_run_that_happened_is_in_prefect(bootstrapped: Lab, prefect: Prefect) -> None:
    """The database has one final task run for each step of each journal, no more, no less."""
    assert bootstrapped.hosts
    for journal in prefect.journals:
        records = read_journal(journal)
        run = next(r.details["run"] for r in records if r.event is Event.RUN_STARTED)
        steps = {r.details["task_run"] for r in records if r.event is Event.STEP_STARTED}
        found = prefect.list_task_runs(run)
        assert {row["id"] for row in found} == steps
        assert all(row["state_type"] in {"COMPLETED", "FAILED"} for row in found)


def test_the_report_tells_who_and_why(bootstrapped: Lab, prefect: Prefect) -> None:
    """The report artifact has the reason, the operator and the changes of each host."""
    reports = prefect.ask("/artifacts/filter", {"limit": 100})
    (text, *_) = [str(a["data"]) for a in reports if "first test" in str(a["data"])]
    assert "started by" in text
    for name in bootstrapped.hosts:
        assert f"install etcd on {name}" in text


async def test_the_passphrase_is_read_from_a_secret_block(prefect: Prefect) -> None:
    """A block of a server, as a team has it; one that is missing is named."""
    with temporary_settings({PREFECT_API_URL: prefect.api}):
        await Secret(value="correct horse").save("etcd-ca")
        assert await read_passphrase(Passphrase(block="etcd-ca")) == b"correct horse"
        with pytest.raises(AuthorityRefused, match="no-such-block"):
            await read_passphrase(Passphrase(block="no-such-block"))


def test_private_keys_are_the_owners_alone_and_stay(bootstrapped: Lab) -> None:
    """Keys are 0600, etcd runs as its own user, and the authority's key is on no host."""
    for host in bootstrapped.hosts.values():
        listed = host.run(["sh", "-c", "stat -c '%a %U %n' /etc/etcd/ssl/*"]).check().stdout
        keys = [line for line in listed.splitlines() if line.endswith("-key.pem")]
        assert len(keys) == 3
        assert all(line.startswith("600 ") for line in keys)
        assert "ca-key" not in listed
        owner = host.run(["sh", "-c", "ps -o user= -C etcd"]).check().stdout.split()
        assert owner == ["etcd"]


def test_an_openssl_verifies_what_is_served(bootstrapped: Lab) -> None:
    """Both ports demand a client certificate and serve a chain to the cluster's authority."""
    authority = bootstrapped.authority / "ca.pem"
    for host in bootstrapped.hosts.values():
        for port in (2379, 2380):
            seen = subprocess.run(
                ["openssl", "s_client", "-connect", f"{host.address}:{port}",
                 "-CAfile", str(authority), "-verify_ip", host.address, "-brief"],
                input="", capture_output=True, text=True, timeout=10, check=False,
            )  # fmt: skip
            assert "Verification: OK" in seen.stderr


@pytest.mark.one_etcd
@pytest.mark.parametrize("version", [INSTALLED, pytest.param(NEWEST, marks=pytest.mark.chaos)])
def test_every_supported_etcd_is_bootstrapped(
    start_lab: StartLab, prefect: Prefect, version: str
) -> None:
    """3.4 and the newest 3.5 come up from the same templates."""
    lab = start_lab(hosts=3, etcd=version)
    ended = run_runbook(prefect, "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output


@pytest.mark.one_etcd
def test_a_member_that_cannot_start_is_shown_with_its_journal(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """Etcd's own last lines are in the error, and the exit status is 1."""
    lab = start_lab(hosts=1, etcd=INSTALLED)
    broken = tmp_path / "broken.yaml"
    text = lab.inventory.read_text()
    setting = "settings: {environment: {ETCD_MAX_REQUEST_BYTES: many}}"
    broken.write_text(text.replace("settings: {}", setting))
    ended = run_runbook(prefect, "bootstrap_cluster", broken)
    assert ended.status == 1, ended.output
    assert "ETCD_MAX_REQUEST_BYTES" in ended.stderr or "max-request-bytes" in ended.stderr
