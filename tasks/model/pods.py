"""Static pods: the file that the kubelet makes one of, and where it lies while it is taken out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

APISERVER = "kube-apiserver"
KEPT = "etcd-runbooks"
"""Beside the manifests' directory, so on its file system, where a rename is whole."""


@dataclass(frozen=True, slots=True)
class PodFile:
    """A manifest, and the container in it whose process is meant; the pod has the same name."""

    manifest: PurePosixPath
    container: str

    @property
    def kept(self) -> PurePosixPath:
        """Where the manifest lies while it is taken out: the kubelet does not look there."""
        return self.manifest.parent.parent / KEPT / self.manifest.name


def etcd_pod(manifest: PurePosixPath) -> PodFile:
    """Get etcd's pod by its manifest."""
    return PodFile(manifest, "etcd")


def apiserver_pod(manifest: PurePosixPath) -> PodFile:
    """Get the API server that lives on an etcd alone, by etcd's manifest: kubeadm's own names."""
    return PodFile(manifest.with_name(f"{APISERVER}.yaml"), APISERVER)
