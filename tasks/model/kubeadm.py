"""What kubeadm keeps of a cluster: the ConfigMap that its upgrades read."""

from __future__ import annotations

from dataclasses import dataclass

CONFIGMAP = "ConfigMap kube-system/kubeadm-config"

REGISTRY = "registry.k8s.io"
"""Where kubeadm takes images from, where it was told nothing else."""


@dataclass(frozen=True, slots=True)
class ClusterConfiguration:
    """Of kubeadm's ClusterConfiguration, what says which etcd it writes into manifests.

    `tag` is empty where each release of kubeadm writes its own.
    """

    repository: str = REGISTRY
    tag: str = ""

    @property
    def image(self) -> str:
        """The image that kubeadm writes, whatever its release."""
        return f"{self.repository}/etcd:{self.tag}" if self.tag else ""


@dataclass(frozen=True, slots=True)
class Installed:
    """The kubeadm that a node has, and the etcd that its release brings; empty where unknown."""

    release: str = ""
    image: str = ""
