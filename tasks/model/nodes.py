"""A control-plane node whose etcd the kubelet runs: its pods' files, its processes, its kubelet."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from tasks.model.member_settings import Notice, Settings, TextFile

NAMESPACE = "kube-system"
API_PORT = 6443

_ARGUMENT = r"^ *- *[\"']?--{}=([^\"'\s]+)"


@dataclass(frozen=True, slots=True)
class Mounts:
    """Where a pod's directories lie on its host, by their paths in the container.

    None stands for what is not the host's: a volume that goes with the pod.
    """

    places: tuple[tuple[PurePosixPath, PurePosixPath | None], ...] = ()

    def on_host(self, path: PurePosixPath) -> PurePosixPath | None:
        """Translate a path of the container's; None where it is not on the host."""
        over = [
            (inside, outside)
            for inside, outside in self.places
            if path == inside or inside in path.parents
        ]
        if not over:
            return None
        inside, outside = max(over, key=lambda place: len(place[0].parts))
        return outside / path.relative_to(inside) if outside is not None else None


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that the kubelet makes of a file; on the node its name has the node's after it."""

    namespace: str
    name: str
    file: TextFile

    @property
    def label(self) -> str:
        """What the pod is called."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class EtcdProcess:
    """An etcd that runs in a pod; `pod` is NAMESPACE_NAME_UID, as its directory of logs is called.

    `started` is in clock ticks since the node's boot: two processes of one number never have it in
    common.
    """

    pid: int
    pod: str
    group: str
    started: int
    account: str
    version: str | None
    arguments: tuple[str, ...]
    variables: dict[str, str]

    def is_of(self, pod: Pod, node: str) -> bool:
        """Whether it is this pod's, which is called after its node."""
        return self.pod.startswith(f"{pod.namespace}_{pod.name}-{node}_")


@dataclass(frozen=True, slots=True)
class Kubelet:
    """The node's kubelet; `directory` is where it reads pods, None where that is not known.

    `has_seen_api`: whether it has met its API server since it started; None where nothing tells.
    """

    is_active: bool
    directory: str | None
    api: str
    is_api_ready: bool
    has_seen_api: bool | None


@dataclass(frozen=True, slots=True)
class NodeObservation:
    """What was seen of a node: `files` of its pods' directory, as the kubelet would read them.

    `node` is what Kubernetes calls it, and its static pods after it; without it the `hostname`.
    `kept` are manifests that a run has taken out, as `kept_files` are, and `kubeconfigs` the
    servers that the node's kubeconfigs name. `pods` are what the files say, in their order;
    `broken` why one says nothing. Of the etcd that `pod` is, `settings` are what its manifest says,
    as in the container, `running` what its process was started with, and `mounts` tell where its
    paths lie. `versions` are by program, None for one that is not there. `born` is when its etcd
    began with no data, in seconds since 1970, where the file system knows.
    """

    host: str
    hostname: str
    files: tuple[TextFile, ...]
    processes: tuple[EtcdProcess, ...]
    kubelet: Kubelet
    versions: dict[str, str | None]
    pods: tuple[Pod, ...] = ()
    broken: tuple[Notice, ...] = ()
    settings: Settings = field(default_factory=Settings)
    running: Settings | None = None
    mounts: Mounts = field(default_factory=Mounts)
    kept: tuple[PurePosixPath, ...] = ()
    kubeconfigs: dict[str, str] = field(default_factory=dict)
    node: str = ""
    kept_files: tuple[TextFile, ...] = ()
    born: int | None = None

    def named(self, name: str) -> tuple[Pod, ...]:
        """List the pods of one name, of kube-system; the kubelet runs the last."""
        return tuple(p for p in self.pods if (p.namespace, p.name) == (NAMESPACE, name))

    @property
    def apiserver(self) -> TextFile | None:
        """The API server's manifest, in place or taken out."""
        if pods := self.named("kube-apiserver"):
            return pods[-1].file
        out = [f for f in self.kept_files if f.path.endswith("/kube-apiserver.yaml")]
        return out[-1] if out else None

    def api_address(self, otherwise: str) -> tuple[str, int] | None:
        """Tell where the node's API server is asked by others; None where its manifest is out."""
        pods = self.named("kube-apiserver")
        if not pods:
            return None
        told = {
            name: found[1]
            for name in ("advertise-address", "secure-port")
            if (found := re.search(_ARGUMENT.format(name), pods[-1].file.text, re.MULTILINE))
        }
        port = told.get("secure-port", "")
        return told.get("advertise-address", otherwise), int(port) if port.isdigit() else API_PORT

    @property
    def taken_out(self) -> tuple[PurePosixPath, ...]:
        """Those kept manifests of which there is none in the pods' directory."""
        there = {file.path.rpartition("/")[2] for file in self.files}
        return tuple(path for path in self.kept if path.name not in there)

    @property
    def pod(self) -> Pod | None:
        """The pod that is etcd; of several files the kubelet takes the one that sorts last."""
        found = self.named("etcd")
        return found[-1] if found else None

    @property
    def process(self) -> EtcdProcess | None:
        """The etcd that runs as that pod."""
        pod = self.pod
        if pod is None:
            return None
        return next((p for p in self.processes if p.is_of(pod, self.node or self.hostname)), None)
