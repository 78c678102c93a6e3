"""Every runbook on what kubespray, KubeKey and kubeasz build, under writers that never pause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from tests.field.apiserver import SUBJECTS, declare, is_let_in, run_apiservers
from tests.field.hosts import lay
from tests.field.layouts import KUBEASZ_SSL, Cluster, kubeasz, kubekey, kubespray
from tests.integration.adoptions import describe_file
from tests.integration.field_life import FieldLife, give_client_files, witness
from tests.integration.runbooks import Prefect
from tests.integration.writers import Writers
from tests.lab.etcd_programs import ETCD_3_6, ETCD_3_7, INSTALLED

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(2400)]

Builder = Callable[..., Cluster]


def change_members(life: FieldLife) -> None:
    """Replace a dead host, one in place, add two, move one, remove two, one of them away."""
    life.replace("master02", "master04")
    life.replace_in_place("master03")
    life.lab["master02"].reinstall()
    life.add("master02", "master05")
    life.update("master04")
    life.remove_while_away("master05", "master03")
    assert life.members == ["master01", "master04", "master02"]


def end(life: FieldLife, writers: Writers, told: list[str]) -> None:
    """See that no write is lost."""
    report = writers.check(on="master01")
    print(f"\n{told}\n{life.told}\n{report}")  # noqa: T201 - figures, for pytest -s
    assert report.lost == ()


def begin(
    start_lab: StartLab, prefect: Prefect, files: Path, builder: Builder, *, hosts: int, **lab: str
) -> FieldLife:
    """Lay a cluster out on the first three hosts, and start it."""
    made = start_lab(hosts=hosts, etcd_source="installed", **lab)
    first = {host.name: host.address for host in list(made.hosts.values())[:3]}
    cluster = builder(files, first)
    lay(made, cluster)
    give_client_files(made, cluster)
    return FieldLife(made, cluster, prefect, files)


@pytest.mark.one_etcd
def test_a_day_of_an_adopted_cluster(start_lab: StartLab, prefect: Prefect, tmp_path: Path) -> None:
    """KubeKey's: adopted, checked, its pairs exchanged, led by another, a host made anew."""
    life = begin(start_lab, prefect, tmp_path, kubekey, hosts=3, etcd="3.5.16")
    with Writers(life.lab, tmp_path, witness=witness) as writers:
        told = life.adopt()
        life.check()
        life.rotate()
        life.move_leader()
        life.replace_in_place("master03")
        life.run("check_health")
    end(life, writers, told)


@pytest.mark.chaos
@pytest.mark.one_etcd
@pytest.mark.parametrize(
    ("builder", "etcd"),
    [
        (kubespray, "3.5.16"),
        (kubekey, ETCD_3_7),
        (kubekey, INSTALLED),
    ],
)
def test_the_life_of_a_cluster_laid_out_by_files_of_variables(
    builder: Builder, etcd: str, start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """Kubespray's and KubeKey's: an authority of etcd's own."""
    life = begin(start_lab, prefect, tmp_path, builder, hosts=5, etcd=etcd)
    with Writers(life.lab, tmp_path, witness=witness) as writers:
        told = life.adopt()
        life.exchange_certificates()
        life.recover()
        change_members(life)
        life.check()
    end(life, writers, told)


@pytest.mark.chaos
@pytest.mark.one_etcd
@pytest.mark.parametrize("etcd", [ETCD_3_6, INSTALLED])
def test_the_life_of_a_cluster_laid_out_by_flags(
    etcd: str, start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """kubeasz's: one pair for all members, and the authority is Kubernetes' own (shared-k8s-ca).

    It is not taken from the API servers in silence, and who is declared goes with it.
    """
    life = begin(start_lab, prefect, tmp_path, kubeasz, hosts=5, etcd=etcd)
    ssl = PurePosixPath(KUBEASZ_SSL)
    hosts = [life.lab[name] for name in life.cluster.hosts]
    run_apiservers(tmp_path, hosts, ssl)
    assert all(is_let_in(host, ssl) for host in hosts)
    with Writers(life.lab, tmp_path, witness=witness) as writers:
        told = life.adopt()
        for word in (f"{ssl}/ca.pem is also used by openssl", "without TLS"):
            assert any(word in remark for remark in told), told
        life.check()
        life.rotate()
        life.move_leader()
        refused = life.rotate_authority(status=2)
        for host in hosts:
            assert f"{host.name}: {ssl}/ca.pem is also used by openssl" in refused.stderr
        refused = life.rotate_authority("--accept-shared", status=2)
        assert f"{ssl}/kubernetes.pem, which openssl" in refused.stderr
        life.declare_writer()
        declared = declare(list(life.cluster.hosts), ssl)
        life.inventory.write_text(life.inventory.read_text() + declared)
        before = [describe_file(host, ssl / "kubernetes.pem") for host in hosts]
        life.rotate_authority()
        assert [describe_file(host, ssl / "kubernetes.pem") for host in hosts] == before
        assert all(is_let_in(host, ssl) for host in hosts)
        life.check()
        change_members(life)
        life.make_absent(ssl, SUBJECTS, "master02", "master03")
        life.check()
    end(life, writers, told)
