"""What tests on real Kubernetes nodes share: writers with kubeadm's certificates."""

from __future__ import annotations

from pathlib import Path

from tests.integration.writers import Writers
from tests.lab.kubernetes.cluster import KubernetesCluster
from tests.lab.lab import Lab


def stacked_writers(cluster: KubernetesCluster, directory: Path, count: int = 2) -> Writers:
    """Make writers over all members of a stacked cluster; they follow a rotation."""

    def witness(lab: Lab, *words: str, on: str | None = None) -> str:
        return cluster.etcdctl(*words, on=lab[on] if on else None)

    files = cluster.client_files(directory / "client")
    return Writers(cluster.lab, directory, count, files, witness)
