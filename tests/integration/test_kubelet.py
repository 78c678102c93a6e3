"""The kubelet's laws on a real one, and those of etcd's own pod."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tasks.hosts.pods import CALM_SECONDS, PODS, SEEN_API
from tests.contract.kubelet_laws import (
    KubeletLaws,
    eventually,
    give_back,
    process,
    put,
    take,
)
from tests.lab.host import Host
from tests.lab.kubernetes.cluster import KubernetesCluster, probe

pytest_plugins = ["tests.lab.kubernetes.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.chaos]

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: probe
  namespace: kube-system
  annotations: {{run: "{run}"}}
spec:
  containers:
  - name: etcd
    image: {image}
    imagePullPolicy: Never
    command:
    - etcd
    - --name=probe-{name}
    - --data-dir=/tmp/probe
    - --listen-client-urls=http://127.0.0.1:12379
    - --advertise-client-urls=http://127.0.0.1:12379
    - --listen-peer-urls=http://127.0.0.1:12380
    - --initial-advertise-peer-urls=http://127.0.0.1:12380
    - --initial-cluster=probe-{name}=http://127.0.0.1:12380
  hostNetwork: true
  terminationGracePeriodSeconds: 5
"""
"""An etcd of its own on loopback."""

WORDS = ("pod_processes", "own_processes", "own_pods")
MET = f"{PODS}{SEEN_API.strip()}\nkubelet_met"

_RUNS = count()


class RealKubelet:
    """A node's kubelet; etcd's image is there, so the probe is an etcd."""

    manifests = "/etc/kubernetes/manifests"
    aside = "/etc/kubernetes/aside"
    pods = "/var/lib/kubelet/pods"
    quiet = 8.0

    def __init__(self, cluster: KubernetesCluster, node: Host) -> None:
        self.cluster, self.node = cluster, node
        self._run = next(_RUNS)
        self.sh(f"mkdir -p {self.aside}")
        self._image = self.sh(f"sed -n 's/^ *image: //p' {self.manifests}/etcd.yaml").strip()

    def sh(self, script: str, text: str | None = None) -> str:
        """Run a script on the node."""
        return self.node.run(script, text=text).check().stdout

    def pod(self, name: str) -> str:
        """Render the pod; another test's is another one, or it would have that one's back-off."""
        return POD.format(run=self._run, image=self._image, name=name)

    def processes(self) -> dict[int, str]:
        """Find the etcds of that name."""
        lines = self.node.run("pgrep --list-full --exact etcd").stdout.splitlines()
        found = [(int(line.split()[0]), line.partition("--name=probe-")[2]) for line in lines]
        return {pid: rest.split()[0] for pid, rest in found if rest}

    def restart(self) -> None:
        """Restart the kubelet and wait until it is healthy; with its API server, until they met."""
        meets = probe(self.node, "/livez") == "200"
        self.sh("systemctl restart kubelet")
        healthy = "curl --silent --fail http://127.0.0.1:10248/healthz"
        eventually(lambda: self.node.run(healthy).status == 0)
        if meets:
            eventually(lambda: self.node.run(MET).status == 0)
            time.sleep(CALM_SECONDS)

    def api_away(self) -> None:
        """Take the node's API server out, and wait until it is gone."""
        take(self, "kube-apiserver.yaml")
        eventually(lambda: self.cluster.process(self.node, "kube-apiserver") is None)

    def api_back(self) -> None:
        """Put it in again; a kubelet that is unsure takes up to a minute to see it."""
        give_back(self, "kube-apiserver.yaml")
        self.cluster.wait_until_ready(self.node)


@pytest.fixture(scope="module")
def node(kubernetes: KubernetesCluster) -> Host:
    """Give the node that the laws are seen on; the others keep the cluster's quorum."""
    return list(kubernetes.nodes.values())[-1]


@pytest.fixture
def kubelet(kubernetes: KubernetesCluster, node: Host) -> Iterator[RealKubelet]:
    """Give the kubelet, and take the probe away afterwards."""
    real = RealKubelet(kubernetes, node)
    yield real
    real.sh(f"cd {real.manifests} && ls -A | grep -v -e ^etcd.yaml$ -e ^kube- | xargs -r rm -r")
    eventually(lambda: process(real) is None)
    kubernetes.wait_until_ready(node)


def pod_uid(node: Host) -> str:
    """Tell the UID of the node's own etcd's pod, of which the kubelet has a directory."""
    return node.run(f"{PODS}\nown_pods etcd").check().stdout.strip()


class TestRealKubelet(KubeletLaws):
    """The laws."""


def test_etcd_is_back_at_once_after_the_kubelets_restart(
    kubernetes: KubernetesCluster, kubelet: RealKubelet, node: Host
) -> None:
    """Killed twice in a row it is away for seconds twice, and its API server is not restarted."""
    api = kubernetes.process(node, "kube-apiserver")
    for _ in range(2):
        before = kubernetes.process(node, "etcd")
        assert before is not None
        kubelet.restart()
        kubelet.sh(f"kill -KILL {before.pid}")
        assert eventually(lambda: kubernetes.is_ready(node)) < 15
        assert kubernetes.process(node, "etcd") != before
    assert kubernetes.process(node, "kube-apiserver") == api


def test_a_manifest_is_changed_without_making_the_kubelet_deaf(
    kubernetes: KubernetesCluster, kubelet: RealKubelet, node: Host
) -> None:
    """API server out and refused, etcd out and gone with its directory, 2 s: then it is quick."""
    uid = pod_uid(node)
    text = Path(f"{node.root}{kubelet.manifests}/etcd.yaml").read_text()
    take(kubelet, "kube-apiserver.yaml")
    eventually(lambda: probe(node) == "-")
    take(kubelet, "etcd.yaml")
    eventually(lambda: kubernetes.process(node, "etcd") is None)
    eventually(lambda: node.run(f"test -e {kubelet.pods}/{uid}").status != 0)
    time.sleep(2)
    put(kubelet, "etcd.yaml", text.replace("--snapshot-count=10000", "--snapshot-count=10001"))
    assert eventually(lambda: kubernetes.process(node, "etcd") is not None) < 10
    give_back(kubelet, "kube-apiserver.yaml")
    kubernetes.wait_until_ready(node)
    assert pod_uid(node) != uid
    assert "--snapshot-count=10001" in kubelet.sh("pgrep --list-full --exact etcd")


def test_an_etcd_for_events_is_not_the_nodes_own(
    kubernetes: KubernetesCluster, kubelet: RealKubelet, node: Host
) -> None:
    """Its pod's name begins with etcd's, and its container has the same."""
    own = kubernetes.process(node, "etcd")
    assert own is not None
    put(
        kubelet,
        "etcd-events.yaml",
        kubelet.pod("x").replace("name: probe\n", "name: etcd-events\n"),
    )
    eventually(lambda: bool(kubelet.processes()))
    found = {word: node.run(f"{PODS}\n{word} etcd").stdout for word in WORDS}
    assert {word: len(said.split()) for word, said in found.items()} == {
        "pod_processes": 2,
        "own_processes": 1,
        "own_pods": 1,
    }
    assert found["own_processes"].split() == [str(own.pid)]
