"""Restores of clusters that somebody else has built: a log of its own, and two etcds on a host."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.field.hosts import lay
from tests.field.layouts import UNIT, File, kubeasz
from tests.integration.adoptions import adopt, give_key
from tests.integration.field_life import give_client_files, witness
from tests.integration.runbooks import Prefect, run_runbook
from tests.integration.test_two_etcds import EVENTS, raise_two

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [
    *(pytest.mark.lab, pytest.mark.chaos, pytest.mark.one_etcd),
    pytest.mark.timeout(900),
]
LOG = "/wal/etcd"


def test_a_log_in_a_directory_of_its_own_is_restored_with_the_data(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """Both are set aside under one name, and both are where the unit says."""
    lab = start_lab(hosts=3, etcd="3.5.16", etcd_source="installed")
    cluster = kubeasz(tmp_path, {name: str(host.address) for name, host in lab.hosts.items()})
    for name, laid in cluster.hosts.items():
        unit = File(laid.files[UNIT].text.replace("--wal-dir=", f"--wal-dir={LOG}"))
        directories = (*laid.directories, LOG.rpartition("/")[0])
        cluster.hosts[name] = replace(
            laid, files=laid.files | {UNIT: unit}, directories=directories
        )
    lay(lab, cluster)
    give_client_files(lab, cluster)
    path = tmp_path / "field.yaml"
    ended = adopt(prefect, lab, path)
    assert ended.status == 0, ended.output
    give_key(path, cluster)
    name = next(x.split()[1] for x in path.read_text().splitlines() if x.startswith("name:"))
    witness(lab, "put", "kept", "x")
    for runbook, named, options in (
        ("take_snapshot", "--clusters", ()),
        ("restore_cluster", "--cluster", ("--consent", name)),
    ):
        ended = run_runbook(prefect, runbook, path, *options, named=named)
        assert ended.status == 0, ended.output
        if runbook == "take_snapshot":
            witness(lab, "put", "later", "x")
    for host in lab.hosts.values():
        there = host.run(f"ls -d {LOG}/*.wal {LOG}.replaced-*/*.wal /var/lib/etcd.replaced-*")
        assert there.status == 0, there.stderr
        assert host.run("ls /var/lib/etcd/member/wal").status != 0
    listed = witness(lab, "get", "", "--prefix", "--keys-only", on="master03").split()
    assert listed == ["kept"]
    lab["master02"].run(f"systemctl kill -s KILL etcd; systemctl stop etcd; rm -rf {LOG}").check()
    lab["master03"].run("systemctl kill -s KILL etcd; systemctl stop etcd; rm -rf /var/lib/etcd")
    lab["master03"].run("install -d -m 0700 /var/lib/etcd").check()
    ended = run_runbook(prefect, "recover_quorum", path, "--consent", name)
    assert ended.status == 0, ended.output
    ended = run_runbook(prefect, "check_health", path)
    assert ended.status == 0, ended.output
    assert witness(lab, "get", "", "--prefix", "--keys-only", on="master02").split() == ["kept"]


def test_the_other_etcd_on_the_hosts_is_left_alone(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """Kubespray's etcd for events lost its quorum; the first one keeps its processes."""
    lab, cluster = raise_two(start_lab, tmp_path)
    path = tmp_path / "events.yaml"
    ended = adopt(prefect, lab, path, "--unit", EVENTS)
    assert ended.status == 0, ended.output
    give_key(path, cluster)
    name = next(x.split()[1] for x in path.read_text().splitlines() if x.startswith("name:"))

    def processes() -> list[str]:
        asked = "systemctl show etcd -p MainPID -p ActiveEnterTimestamp"
        return [host.run(asked).check().stdout for host in lab.hosts.values()]

    before = processes()
    for lost in ("master02", "master03"):
        lab[lost].run(
            f"systemctl kill -s KILL {EVENTS}; systemctl stop {EVENTS}; "
            "rm -rf /var/lib/etcd-events/member"
        ).check()
    ended = run_runbook(prefect, "recover_quorum", path, "--consent", name)
    assert ended.status == 0, ended.output
    ended = run_runbook(prefect, "check_health", path)
    assert ended.status == 0, ended.output
    for options in ((), ("--again",)):
        saved = run_runbook(prefect, "take_snapshot", path, named="--clusters")
        assert saved.status == 0, saved.output
        ended = run_runbook(prefect, "restore_cluster", path, "--consent", name, *options)
        assert ended.status == 0, ended.output
    assert processes() == before
