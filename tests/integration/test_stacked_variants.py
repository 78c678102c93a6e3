"""Nodes that kubeadm was told otherwise: ECDSA keys, API servers that list all members, a balancer.

Its last test lets a node be lost and joined anew by kubeadm.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.integration.runbooks import Prefect, run_runbook
from tests.integration.stacked import stacked_writers
from tests.integration.test_stacked_members import FILES, killed, move_there_and_back
from tests.integration.test_stacked_members import listed as manifests
from tests.lab.kubernetes.cluster import KubernetesCluster
from tests.lab.kubernetes.watch import ApiWatch
from tests.lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.host import Host

pytest_plugins = ["tests.lab.kubernetes.fixtures", "tests.integration.fixtures"]
pytestmark = [
    pytest.mark.lab,
    pytest.mark.one_etcd,
    pytest.mark.chaos,
    pytest.mark.timeout(900),
]

OPTIONS = """\
encryptionAlgorithm: ECDSA-P256
apiServer:
  extraArgs:
  - {{name: etcd-servers, value: "{servers}"}}
"""
HAPROXY = """\
defaults
    mode tcp
    timeout connect 1s
    timeout client 1m
    timeout server 1m
listen api
    bind :16443
{servers}
"""
DECLARED = """
even_members: true
load_balancers:
  - {name: balancer01, host: master01, haproxy: {backend: api}}
"""
LEAVES = ("etcd/server", "etcd/peer", "etcd/healthcheck-client", "apiserver-etcd-client")
"""As files; kubeadm renews them by these names with - for /."""


@pytest.fixture(scope="module")
def variant(kubernetes_version: str) -> Iterator[KubernetesCluster]:
    """Give three control planes whose API servers ask every member, behind a balancer."""
    with Lab.start(kubernetes=kubernetes_version, hosts=3) as lab:
        servers = ",".join(f"https://{host.address}:2379" for host in lab.hosts.values())
        cluster = KubernetesCluster.form(lab, OPTIONS.format(servers=servers))
        lines = "\n".join(f"    server {n.name} {n.address}:6443" for n in lab.hosts.values())
        configuration = cluster.first.root / "etc/haproxy/haproxy.cfg"
        configuration.parent.mkdir(parents=True, exist_ok=True)
        configuration.write_text(HAPROXY.format(servers=lines))
        cluster.first.run("systemctl restart haproxy").check()
        lab.inventory.write_text(lab.inventory.read_text() + DECLARED)
        yield cluster


def read_pairs(cluster: KubernetesCluster) -> dict[str, tuple[int, bool]]:
    """Tell of each certificate its serial, and whether it and the key beside it are ECDSA P-256."""
    found = {}
    for node in cluster.nodes.values():
        pki = node.root / "etc/kubernetes/pki"
        for name in (*LEAVES, "etcd/ca"):
            certificate = x509.load_pem_x509_certificate((pki / f"{name}.crt").read_bytes())
            key = certificate.public_key()
            is_p256 = isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
            own = load_pem_private_key((pki / f"{name}.key").read_bytes(), None).public_key()
            found[f"{node.name} {name}"] = (certificate.serial_number, is_p256 and key == own)
    return found


def listed(node: Host) -> list[str]:
    """List the members that a node's API server asks, by the address of each."""
    text = (node.root / "etc/kubernetes/manifests/kube-apiserver.yaml").read_text()
    (line,) = (x for x in text.splitlines() if "--etcd-servers=" in x)
    urls = line.partition("--etcd-servers=")[2].split(",")
    return [url.removeprefix("https://").removesuffix(":2379") for url in urls]


def see_lists(cluster: KubernetesCluster, *names: str, at: dict[str, str] | None = None) -> None:
    """See exactly these members in the list of each of their API servers, and in the balancer's.

    `at` has the addresses of those that have another one than their nodes.
    """
    addresses = sorted((at or {}).get(name, cluster.nodes[name].address) for name in names)
    for name in names:
        assert sorted(listed(cluster.nodes[name])) == addresses
        running = cluster.nodes[name].run(
            "tr '\\0' '\\n' < /proc/$(pgrep -of kube-apiserver)/cmdline | grep etcd-servers="
        )
        assert all(address in running.check().stdout for address in addresses)
    section = (cluster.first.root / "etc/haproxy/haproxy.cfg").read_text()
    servers = [x.split()[2] for x in section.splitlines() if x.strip().startswith("server ")]
    assert sorted(servers) == [f"{address}:6443" for address in addresses]


def test_ecdsa_stays_ecdsa(variant: KubernetesCluster, prefect: Prefect, tmp_path: Path) -> None:
    """Leaves and then the authority: other serials, the same kind of key."""
    before, processes = read_pairs(variant), variant.processes()
    assert all(is_p256 for _, is_p256 in before.values())
    with stacked_writers(variant, tmp_path / "leaves") as writers:
        words = ("--which", "all")
        ended = run_runbook(prefect, "rotate_certificates", variant.lab.inventory, *words)
    assert ended.status == 0, ended.output
    assert "who uses admin.conf" in ended.output
    assert variant.processes() == processes
    assert writers.check().lost == ()
    after = read_pairs(variant)
    assert all(is_p256 for _, is_p256 in after.values())
    assert all((after[k] != before[k]) == (not k.endswith("/ca")) for k in after)
    digest = "openssl x509 -noout -fingerprint -sha256 -in /etc/kubernetes/pki/etcd/ca.crt"
    said = variant.first.run(digest).check().stdout
    old = said.rpartition("=")[2].replace(":", "").strip().lower()
    with stacked_writers(variant, tmp_path / "authority") as writers, ApiWatch(variant) as watch:
        words = ("--replace", old)
        ended = run_runbook(prefect, "rotate_authority", variant.lab.inventory, *words)
    assert ended.status == 0, ended.output
    assert writers.check().lost == ()
    assert watch.report().longest_without_any == 0
    last = read_pairs(variant)
    assert all(is_p256 for _, is_p256 in last.values())
    assert not {serial for serial, _ in last.values()} & {serial for serial, _ in after.values()}
    for task in ("check-expiration", *(f"renew {leaf.replace('/', '-')}" for leaf in LEAVES)):
        kubeadm = f"kubeadm certs {task} --config /etc/kubernetes/kubeadm.yaml"
        assert "<invalid>" not in variant.first.run(kubeadm).check().stdout
    assert run_runbook(prefect, "check_health", variant.lab.inventory).status == 0


def test_api_servers_and_the_balancer_follow_the_members(
    variant: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """One API server at a time, when a member leaves and when it comes back to its node."""
    inventory, names = variant.lab.inventory, list(variant.nodes)
    see_lists(variant, *names)
    with stacked_writers(variant, tmp_path) as writers, ApiWatch(variant) as watch:
        removed = run_runbook(prefect, "remove_member", inventory, "--member", names[1])
        assert removed.status == 0, removed.output
        see_lists(variant, names[0], names[2])
        added = run_runbook(prefect, "add_member", inventory, "--member", names[1])
    assert added.status == 0, added.output
    assert "away for about" in added.output
    assert writers.check().lost == ()
    assert watch.report().longest_without_any == 0
    variant.wait_until_ready(seconds=60)
    see_lists(variant, *names)


def test_api_servers_and_the_balancer_follow_an_address(
    variant: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """One API server at a time, to another address of the member and back; none ready never."""
    names = list(variant.nodes)
    node = variant.nodes[names[1]]
    with ApiWatch(variant) as watch:
        for new, _ in move_there_and_back(variant, prefect, node, tmp_path):
            see_lists(variant, *names, at={node.name: new})
    assert watch.report().longest_without_any == 0


@pytest.mark.parametrize("event", ["step-started", "step-finished"])
def test_a_killed_change_of_a_list_is_finished_by_the_next_run(
    variant: KubernetesCluster, prefect: Prefect, tmp_path: Path, event: str
) -> None:
    """Its manifest is in place or kept, and an API server that is out goes back in."""
    inventory, names = variant.lab.inventory, list(variant.nodes)
    words = ("remove_member", "--member", names[1])
    point = f"{event}|change the API server's list of members on {names[0]}"
    with stacked_writers(variant, tmp_path) as writers:
        died = killed(prefect, inventory, point, *words)
        assert died.status == -9, died.output
        removed = run_runbook(prefect, words[0], inventory, *words[1:])
        assert removed.status == 0, removed.output
        see_lists(variant, names[0], names[2])
        added = run_runbook(prefect, "add_member", inventory, "--member", names[1])
    assert added.status == 0, added.output
    assert writers.check().lost == ()
    variant.wait_until_ready(seconds=60)
    see_lists(variant, *names)
    for node in variant.nodes.values():
        assert manifests(node) == FILES


def test_a_lost_node_is_joined_anew_by_kubeadm(
    variant: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """Its stale member leaves the list first, so that kubeadm waits for nobody."""
    inventory, names = variant.lab.inventory, list(variant.nodes)
    node = variant.nodes[names[2]]
    with stacked_writers(variant, tmp_path) as writers:
        node.power_cut()
        ended = run_runbook(prefect, "replace_member", inventory, "--member", node.name)
        assert ended.status == 0, ended.output
        assert "kubeadm join --control-plane" in ended.output
        see_lists(variant, *names[:2])
        # As `kubectl delete node` does, which the lab has not built.
        variant.etcdctl("del", f"/registry/minions/{node.name}", on=variant.first)
        node.reinstall()
        began = time.monotonic()
        variant.join(node, by=variant.first)
        print(f"\njoined in {time.monotonic() - began:.0f} s")  # noqa: T201 - the figure
    assert writers.check(on=names[0]).lost == ()
    variant.wait_until_ready()
    assert len(variant.members()) == len(names)
    checked = run_runbook(prefect, "check_health", inventory)
    assert checked.status == 0, checked.output
