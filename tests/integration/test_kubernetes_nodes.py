"""The lab's Kubernetes nodes: what they are, what a power cut does, that nothing stays behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.stacked import stacked_writers
from tests.integration.test_lab import no_trace
from tests.lab.errors import LabError
from tests.lab.kubernetes.cluster import MANIFESTS, KubernetesCluster, probe
from tests.lab.kubernetes.watch import ApiWatch
from tests.lab.state import DISKS

if TYPE_CHECKING:
    from tests.lab.kubernetes.fixtures import StartNodes

pytest_plugins = ["tests.lab.kubernetes.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd]

CAP_SYS_TIME = 25

FIXTURES = Path(__file__).parents[1] / "fixtures/settings/kubeadm"


def test_three_control_planes_are_one_cluster(kubernetes: KubernetesCluster) -> None:
    """Each node has a voting member, an API server that is ready, and is known to the others'."""
    members = kubernetes.members()
    assert set(members) == set(kubernetes.nodes)
    assert not any(member.get("isLearner") for member in members.values())
    assert {probe(node, "/livez") for node in kubernetes.nodes.values()} == {"200"}
    listed = kubernetes.etcdctl("get", "--prefix", "--keys-only", "/registry/minions/").split()
    assert listed == [f"/registry/minions/{name}" for name in sorted(kubernetes.nodes)]


def test_they_run_the_release_that_was_asked_for(kubernetes: KubernetesCluster) -> None:
    """Kubeadm, the kubelet and the API server are of one version, etcd is the lab's."""
    node = kubernetes.first
    said = node.run("kubeadm version -o short; kubelet --version").check().stdout.split()
    assert said == [f"v{kubernetes.version}", "Kubernetes", f"v{kubernetes.version}"]
    status = json.loads(kubernetes.etcdctl("endpoint", "status", "--write-out=json", on=node))
    assert status[0]["Status"]["version"] == kubernetes.lab.record.etcd


def test_kubeadm_finds_its_certificates_in_order(kubernetes: KubernetesCluster) -> None:
    """Kubeadm itself names etcd's four pairs and misses none."""
    asked = "kubeadm certs check-expiration --config /etc/kubernetes/kubeadm.yaml -o json"
    found = json.loads(kubernetes.first.run(asked).check().stdout)
    names = {entry["name"]: entry.get("missing", False) for entry in found["certificates"]}
    for name in ("apiserver-etcd-client", "etcd-healthcheck-client", "etcd-peer", "etcd-server"):
        assert names[name] is False


def test_its_manifests_are_those_that_the_other_tests_have(kubernetes: KubernetesCluster) -> None:
    """The fixtures are what kubeadm writes, but for the addresses and the API server's release."""
    node, minor = kubernetes.first, kubernetes.version.rpartition(".")[0]
    for name, fixture in (("etcd", minor), ("kube-apiserver", "kube-apiserver")):
        text = (node.root / MANIFESTS / f"{name}.yaml").read_text()
        text = text.replace(node.address, "10.0.0.1").replace(f"v{kubernetes.version}", "v1.37.2")
        assert text == (FIXTURES / f"{fixture}.yaml").read_text()


def test_nothing_reaches_this_machine(kubernetes: KubernetesCluster) -> None:
    """A node's settings are its own files; no process of it may set the machine's clock."""
    node = kubernetes.first
    there, here = node.run("cat /proc/sys/kernel/panic").stdout, Path("/proc/sys/kernel/panic")
    assert there.strip() == "10" != here.read_text().strip()
    powers = node.run("sed -n 's/^CapBnd://p' /proc/1/status").check().stdout
    assert not int(powers, 16) & 1 << CAP_SYS_TIME


@pytest.mark.chaos
def test_a_power_cut_is_survived_and_the_node_comes_back(
    kubernetes: KubernetesCluster, tmp_path: Path
) -> None:
    """The others go on; booted, the node's etcd and API server start by themselves."""
    node = list(kubernetes.nodes.values())[-1]
    before = kubernetes.processes()
    with stacked_writers(kubernetes, tmp_path) as writers, ApiWatch(kubernetes) as watch:
        node.power_cut()
        assert probe(node) == "-"
        node.start()
        kubernetes.wait_until_ready(node)
    written, seen = writers.check(), watch.report()
    after = kubernetes.processes()
    assert written.lost == ()
    assert after.pop(node.name) != before.pop(node.name)
    assert after == before
    assert seen.longest[node.name] > 3 > seen.longest_without_any


@pytest.mark.chaos
def test_a_lab_with_containers_leaves_nothing(
    kubernetes: KubernetesCluster, start_nodes: StartNodes
) -> None:
    """One beside another has its own cluster; taken down, it leaves that one as it was."""
    before = kubernetes.processes()
    lab = start_nodes(hosts=1)
    other = KubernetesCluster.form(lab)
    assert set(other.members()) == {"master01"}
    assert len(kubernetes.members()) == len(kubernetes.nodes)
    lab.down()
    assert no_trace(lab)
    assert not (DISKS / lab.name).exists()
    assert kubernetes.processes() == before
    kubernetes.wait_until_ready()


@pytest.mark.chaos
def test_a_start_that_fails_says_what_kubeadm_said(start_nodes: StartNodes) -> None:
    """What stands in kubeadm's way is in the message, and the lab goes all the same."""
    lab = start_nodes(hosts=1)
    lab["master01"].run("mkdir -p /etc/kubernetes/admin.conf").check()
    with pytest.raises(LabError, match=r"(?s)master01: `kubeadm init .*admin\.conf"):
        KubernetesCluster.form(lab)
    lab.down()
    assert no_trace(lab)
