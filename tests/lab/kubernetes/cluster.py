"""A stacked cluster on a lab's nodes: made by whole `kubeadm init` and `kubeadm join`, and watched.

Everything that is asked here goes past the runbooks: processes as the kernel shows them, etcd with
etcdctl and kubeadm's own certificates, API servers over HTTPS.
"""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.lab.commands import execute
from tests.lab.errors import LabError
from tests.lab.etcd_programs import get_programs
from tests.lab.kubernetes.configuration import init_configuration, join_configuration

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.host import Host
    from tests.lab.lab import Lab

MANIFESTS = "etc/kubernetes/manifests"
PKI = "etc/kubernetes/pki/etcd"

KUBEADM_SECONDS = 400.0
"""An init takes 13 s and a join up to 30 on an idle machine; kubeadm itself gives up after 240."""

READY_SECONDS = 180.0
"""A node is whole again 62 s after its power came back, on an idle machine."""

NOT_RUN = "preflight,addon"
"""Preflight wants this machine's kernel, conntrack and swap another way; kube-proxy and CoreDNS
want a network."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a host, by its id there and when it started, in clock ticks since the boot."""

    pid: int
    started: int


class KubernetesCluster:
    """The nodes of a lab that are one cluster, or shall be."""

    def __init__(self, lab: Lab) -> None:
        if lab.record.kubernetes is None:
            raise LabError(f"{lab.name} has no Kubernetes nodes: start it with kubernetes=…")
        self.lab = lab
        self.version = lab.record.kubernetes
        self.nodes: dict[str, Host] = dict(lab.hosts)

    @classmethod
    def form(cls, lab: Lab, options: str = "") -> Self:
        """Make a cluster of a lab's bare nodes and return it when all of it is ready.

        `options` are further lines of kubeadm's ClusterConfiguration.
        """
        cluster = cls(lab)
        first, *others = cluster.nodes.values()
        cluster.init(first, options)
        for node in others:
            cluster.join(node, by=first)
        cluster.wait_until_ready()
        return cluster

    @property
    def first(self) -> Host:
        """The node that `kubeadm init` ran on; controlPlaneEndpoint names it."""
        return next(iter(self.nodes.values()))

    def init(self, node: Host, options: str = "") -> None:
        """Make a node the first control plane; LabError with what kubeadm said."""
        path = "etc/kubernetes/kubeadm.yaml"
        configuration = init_configuration(self.version, node.name, node.address, options)
        _write(node.root / path, configuration)
        self._kubeadm(node, f"init --config /{path} --upload-certs --skip-phases={NOT_RUN}")

    def join(self, node: Host, *, by: Host) -> None:
        """Make a bare node a control plane, through another one that is up."""
        path = "etc/kubernetes/join.yaml"
        _write(node.root / path, join_configuration(node.name, node.address, by.address))
        self._kubeadm(node, f"join --config /{path} --skip-phases=preflight")

    def wait_until_ready(self, *nodes: Host, seconds: float = READY_SECONDS) -> None:
        """Wait until etcd and the API server of those nodes (all) are ready; else LabError."""
        deadline = time.monotonic() + seconds
        waiting = list(nodes or self.nodes.values())
        while waiting := [node for node in waiting if not self.is_ready(node)]:
            if time.monotonic() > deadline:
                raise LabError(
                    "; ".join(f"{n.name}: {self._describe(n)}" for n in waiting)
                    + f" after {seconds:g} s"
                )
            time.sleep(0.3)

    def is_ready(self, node: Host) -> bool:
        """Tell whether etcd and the API server of a node both say so."""
        if probe(node, "/readyz") != "200":
            return False
        etcd = node.run(["curl", "-sfm2", "http://127.0.0.1:2381/readyz"])
        return etcd.status == 0

    def process(self, node: Host, name: str) -> Process | None:
        """Find a node's process of that name (`etcd`, `kube-apiserver`, `kubelet`); None when off.

        LabError when there are two.
        """
        found = node.run(FIND_PROCESS.format(name=name[:COMM])).check().stdout.split()
        if len(found) > 2:
            raise LabError(f"{node.name} runs {name} {len(found) // 2} times: {' '.join(found)}")
        return Process(int(found[0]), int(found[1])) if found else None

    def processes(self, *names: str) -> dict[str, dict[str, Process | None]]:
        """Find etcd and the API server (or those `names`) on each node.

        Equal before and after is a proof that nothing was restarted.
        """
        wanted = names or ("etcd", "kube-apiserver")
        return {
            node.name: {name: self.process(node, name) for name in wanted}
            for node in self.nodes.values()
        }

    def etcdctl(self, *words: str, on: Host | None = None) -> str:
        """Run etcdctl on this machine over all members, or one, as kubeadm's healthcheck client."""
        endpoints = ",".join(
            f"https://{node.address}:2379" for node in ([on] if on else self.nodes.values())
        )
        pki = (on or self.first).root / PKI
        tls = [f"--cacert={pki}/ca.crt", f"--cert={pki}/healthcheck-client.crt"]
        tls += [f"--key={pki}/healthcheck-client.key", f"--endpoints={endpoints}"]
        program = get_programs(self.lab.record.etcd).directory / "etcdctl"
        return execute([str(program), *tls, *words], timeout=60.0).check().stdout

    def members(self, on: Host | None = None) -> dict[str, dict[str, Any]]:
        """List etcd's members by name, as etcdctl's JSON has them."""
        listed = json.loads(self.etcdctl("member", "list", "--write-out=json", on=on))
        return {member.get("name", ""): member for member in listed["members"]}

    def client_files(self, directory: Path) -> Path:
        """Make a directory for `tests.integration.writers`: the first node's healthcheck client.

        Its files are links, so that a rotation reaches the writers.
        """
        directory.mkdir(exist_ok=True)
        pki = self.first.root / PKI
        for name, path in (
            ("ca.pem", "ca.crt"),
            ("client.pem", "healthcheck-client.crt"),
            ("client-key.pem", "healthcheck-client.key"),
        ):
            (directory / name).symlink_to(pki / path)
        return directory

    def _kubeadm(self, node: Host, words: str) -> None:
        node.run("systemctl enable --quiet kubelet && systemctl start containerd").check()
        ended = node.run(f"kubeadm {words}", timeout=KUBEADM_SECONDS)
        if ended.status != 0:
            said = "journalctl --unit=kubelet --lines=15 --output=cat --no-pager"
            raise LabError(
                f"{node.name}: `kubeadm {words}` ended with status {ended.status}: "
                f"{(ended.stdout + ended.stderr)[-3000:]}\nthe kubelet: {node.run(said).stdout}"
            )

    def _describe(self, node: Host) -> str:
        pods = node.run("crictl ps --all --output=table").stdout
        return f"its API server's /readyz says {probe(node, '/readyz')}; its containers:\n{pods}"


COMM = 15
"""What the kernel keeps of a program's name."""

FIND_PROCESS = """
for directory in /proc/[0-9]*; do
    [ "$(cat "$directory/comm" 2>/dev/null)" = {name} ] || continue
    stat=$(cat "$directory/stat" 2>/dev/null) || continue
    set -- ${{stat##*) }}
    [ "$1" = Z ] || echo "${{directory#/proc/}} ${{20}}"
done
"""


def probe(node: Host, path: str = "/readyz", seconds: float = 1.0) -> str:
    """Ask a node's API server as anybody may: the HTTP status, or `-` when nobody answers.

    While it starts it refuses anonymous requests (403), then says 500: both are "not yet".
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    url = f"https://{node.address}:6443{path}"
    try:
        with urllib.request.urlopen(url, timeout=seconds, context=context) as answer:
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError:
        return "-"


def on_each(act: Callable[[Host], None], nodes: list[Host]) -> None:
    """Do something on several nodes at once; the first error is raised when all have ended."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        for ended in [pool.submit(act, node) for node in nodes]:
            ended.result()


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
