"""What tests on real Kubernetes nodes share: writers, and pairs spoilt on purpose."""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from tests.integration.writers import Writers
from tests.lab.host import Host
from tests.lab.kubernetes.cluster import MANIFESTS, PKI, KubernetesCluster, probe
from tests.lab.lab import Lab


def stacked_writers(cluster: KubernetesCluster, directory: Path, count: int = 2) -> Writers:
    """Make writers over all members of a stacked cluster; they follow a rotation."""

    def witness(lab: Lab, *words: str, on: str | None = None) -> str:
        return cluster.etcdctl(*words, on=lab[on] if on else None)

    directory.mkdir(exist_ok=True)
    files = cluster.client_files(directory / "client")
    return Writers(cluster.lab, directory, count, files, witness)


def gaps(writers: Writers) -> str:
    """Tell the longest time without a write: of any writer, and of the worst."""
    logs = [[at for _, at in rows] for rows in writers.read()]
    every = sorted(at for times in logs for at in times)
    longest = [max(b - a for a, b in pairwise(times)) for times in (every, *logs)]
    return f"{len(every)} writes, gap {longest[0]:.2f} s (any) {max(longest[1:]):.2f} s (worst)"


READY = "http://127.0.0.1:2381/readyz"
KEPT = "/etc/kubernetes/etcd-runbooks"
OUT = "cd /etc/kubernetes; mkdir -p etcd-runbooks; mv manifests/kube-apiserver.yaml etcd-runbooks/"


def wipe(cluster: KubernetesCluster, node: Host, data: str = "/var/lib/etcd") -> None:
    """Let a follower's etcd have lost its disk.

    A leader that is wiped is not missed: the next one knows nothing of its log, and gives it all.
    """
    leads = {entry["Endpoint"]: entry["Status"] for entry in _statuses(cluster)}
    own = leads[f"https://{node.address}:2379"]
    if own["leader"] == own["header"]["member_id"]:
        heir = next(s["header"]["member_id"] for s in leads.values() if s is not own)
        cluster.etcdctl("move-leader", f"{heir:x}", on=node)
    lose_disk(node, data)


def lose_disk(node: Host, data: str = "/var/lib/etcd") -> None:
    """Let a node's etcd have lost its disk, whoever leads."""
    node.run(f"rm -rf {data}/member; pkill -9 -x etcd || :").check()


def put_many(
    cluster: KubernetesCluster, node: Host, directory: Path, count: int, size: int = 100
) -> None:
    """Write as many keys with random values of so many bytes, by one member."""
    files = cluster.client_files(directory)
    context = ssl.create_default_context(cafile=str(files / "ca.pem"))
    context.load_cert_chain(files / "client.pem", files / "client-key.pem")
    with httpx.Client(verify=context, timeout=30) as http:
        for number in range(count):
            key = base64.b64encode(f"filled/{number}".encode()).decode()
            value = base64.b64encode(os.urandom(size)).decode()
            said = http.post(
                f"https://{node.address}:2379/v3/kv/put", json={"key": key, "value": value}
            )
            said.raise_for_status()


def outgrow(cluster: KubernetesCluster, node: Host, other: Host, directory: Path) -> None:
    """Let a member that is alone count further than another one, in terms and in entries."""

    def counted(of: Host) -> tuple[int, int]:
        (status,) = _statuses(cluster, of)
        return status["Status"]["raftTerm"], status["Status"]["raftIndex"]

    term, index = counted(other)
    while counted(node)[0] <= term:
        node.run("systemctl restart kubelet; sleep 1; pkill -9 -x etcd; sleep 1").check()
        eventually(lambda: node.run(["curl", "-sfm1", READY]).status == 0)
    put_many(cluster, node, directory, max(0, index - counted(node)[1]) + 100)


def _statuses(cluster: KubernetesCluster, on: Host | None = None) -> list[dict[str, Any]]:
    said = cluster.etcdctl("endpoint", "status", "--write-out=json", on=on)
    found: list[dict[str, Any]] = json.loads(said)
    return found


def take_api_servers_out(cluster: KubernetesCluster) -> None:
    """Let no node have an API server."""
    for node in cluster.nodes.values():
        node.run(OUT).check()
    eventually(lambda: all(probe(node) == "-" for node in cluster.nodes.values()))


def edit_etcd(cluster: KubernetesCluster, node: Host, script: str) -> None:
    """Change etcd's manifest as a careful hand does, by a script for sed; all of it is ready after.

    Changed in place, the old etcd is ready for seconds more, and ends in the midst of what follows.
    """
    do_while_out(cluster, node, ["sed", "-i", script, f"{KEPT}/etcd.yaml"])


def do_while_out(
    cluster: KubernetesCluster, node: Host, command: str | list[str], *, serves: bool = True
) -> None:
    """Do something on a node while it has no etcd and no API server; after it each `serves`."""
    kept, manifests = KEPT, f"/{MANIFESTS}"
    node.run(OUT).check()
    eventually(lambda: probe(node) == "-")
    node.run(f"pkill -9 -x kube-apiserver; mv {manifests}/etcd.yaml {kept}/").check()
    there = "pgrep -x etcd || ls -d /var/lib/kubelet/pods/*/containers/etcd"
    eventually(lambda: not node.run(there).stdout)
    time.sleep(2)
    node.run(command).check()
    node.run(f"mv {kept}/etcd.yaml {manifests}/").check()
    if serves:
        eventually(lambda: node.run(["curl", "-sfm1", READY]).status == 0)
    node.run(f"mv {kept}/kube-apiserver.yaml {manifests}/").check()
    if serves:
        cluster.wait_until_ready(node)


def eventually(is_so: Callable[[], bool], seconds: float = 90) -> None:
    """Wait for something to be so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def expire(cluster: KubernetesCluster, *names: str, authority: bool = False) -> None:
    """Let etcd's pairs on nodes (all) end in a second, each as it was; the `authority`, too."""
    end = datetime.now(UTC) + timedelta(seconds=1)
    for node in [cluster.nodes[name] for name in names] or cluster.nodes.values():
        pki = node.root / PKI
        key = load_pem_private_key((pki / "ca.key").read_bytes(), None)
        leaves = [*pki.glob("*.crt"), pki.parent / "apiserver-etcd-client.crt"]
        for path in leaves:
            if authority or path.name != "ca.crt":
                path.write_bytes(_ending(path.read_bytes(), key, end))
    time.sleep(1.5)


def _ending(pem: bytes, key: PrivateKeyTypes, end: datetime) -> bytes:
    old = x509.load_pem_x509_certificate(pem)
    builder = x509.CertificateBuilder(
        old.issuer,
        old.subject,
        old.public_key(),
        x509.random_serial_number(),
        end - timedelta(days=365),
        end,
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    assert isinstance(key, RSAPrivateKey)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
