"""What tests of upgrades on nodes share: images of any version, and what kubeadm is told."""

from __future__ import annotations

import base64
import re
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from ruamel.yaml import YAML

from tests.integration.runbooks import Ended, Prefect, run_runbook
from tests.lab.etcd_programs import get_programs
from tests.lab.host import Host
from tests.lab.kubernetes.cluster import KubernetesCluster, probe
from tests.lab.kubernetes.images import write_archive

CONFIGURATION = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
BINDING = (
    "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings/"
    "kubeadm:nodes-kubeadm-config"
)
"""What lets nodes read it."""


def image(version: str) -> str:
    """Name an image as kubeadm does."""
    return f"registry.k8s.io/etcd:{version}-0"


def image_files(version: str) -> dict[str, Path]:
    """List what an image with a version of etcd has, by where it is in it."""
    programs = sorted(get_programs(version).directory.iterdir())
    return {f"usr/local/bin/{path.name}": path for path in programs}


def give_image(cluster: KubernetesCluster, version: str, name: str | None = None) -> None:
    """Give all nodes an image with a version of etcd, by its own name or another."""
    files = image_files(version)
    load = "ctr --namespace k8s.io images import --snapshotter overlayfs /var/tmp/etcd.tar"
    for node in cluster.nodes.values():
        archive = node.root / "var/tmp/etcd.tar"
        write_archive(archive, name or image(version), (), files)
        node.run(load, timeout=120).check()
        archive.unlink()


def pin(cluster: KubernetesCluster, tag: str | None) -> None:
    """Let kubeadm's ClusterConfiguration pin the tag of etcd's image; None takes it out."""
    with _api(cluster) as api:
        told = api.get(CONFIGURATION).raise_for_status().json()["data"]["ClusterConfiguration"]
        without = re.sub(r"^    imageTag: .*\n", "", told, flags=re.MULTILINE)
        pinned = re.sub(
            r"^  local:\n", f"  local:\n    imageTag: {tag}\n", without, flags=re.MULTILINE
        )
        assert tag is None or f"imageTag: {tag}" in pinned
        patch = {"data": {"ClusterConfiguration": pinned if tag else without}}
        kind = {"Content-Type": "application/merge-patch+json"}
        api.patch(CONFIGURATION, json=patch, headers=kind).raise_for_status()


@contextmanager
def gone(cluster: KubernetesCluster, path: str) -> Iterator[None]:
    """Let an object of the API not be there, for as long as the block."""
    with _api(cluster) as api:
        found = api.get(path).raise_for_status().json()
        api.delete(path).raise_for_status()
        try:
            yield
        finally:
            found["metadata"] = {key: found["metadata"][key] for key in ("name", "namespace")}
            api.post(path.rpartition("/")[0], json=found).raise_for_status()


def _api(cluster: KubernetesCluster) -> httpx.Client:
    """Open an API server that is ready, as the administrator whom kubeadm made."""
    text = (cluster.first.root / "etc/kubernetes/admin.conf").read_text()
    user = YAML(typ="safe").load(text)["users"][0]["user"]
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with tempfile.NamedTemporaryFile("wb") as pair:
        for part in ("client-certificate-data", "client-key-data"):
            pair.write(base64.b64decode(user[part]))
        pair.flush()
        context.load_cert_chain(pair.name)
    # A run that died may have left one out.
    ready = next(node for node in cluster.nodes.values() if probe(node) == "200")
    url = f"https://{ready.address}:6443"
    return httpx.Client(base_url=url, verify=context, timeout=20)


def aim_at(cluster: KubernetesCluster, version: str, directory: Path) -> Path:
    """Write the inventory with another version of etcd."""
    text = cluster.lab.inventory.read_text()
    path = directory / f"to-{version}.yaml"
    path.write_text(re.sub(r"^  version: .*$", f"  version: {version}", text, flags=re.MULTILINE))
    return path


def upgrade(prefect: Prefect, inventory: Path, *options: str) -> Ended:
    """Bring a cluster to its inventory's version."""
    return run_runbook(prefect, "upgrade_cluster", inventory, *options)


def versions(cluster: KubernetesCluster) -> set[str]:
    """Ask each etcd's own program for its version, past the runbooks."""
    return {version_on(cluster, node) for node in cluster.nodes.values()}


def version_on(cluster: KubernetesCluster, node: Host) -> str:
    """Ask one node's etcd program for its version."""
    process = cluster.process(node, "etcd")
    assert process
    return node.run(f"/proc/{process.pid}/exe --version").check().stdout.split()[2]
