"""Runbooks on kubeadm's own nodes: adopted, checked, shown, and rotated without a restart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from tasks.model.inventory_file import load_inventory
from tasks.pki.policy import read_leaf
from tests.integration.handshakes import Handshakes
from tests.integration.runbooks import Ended, Prefect, finish, run_runbook, start_runbook
from tests.integration.stacked import stacked_writers
from tests.lab.kubernetes.watch import ApiWatch

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.model.adoption import FoundLeaf
    from tests.lab.kubernetes.cluster import KubernetesCluster

pytest_plugins = ["tests.lab.kubernetes.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.timeout(900)]

MANIFESTS = "/etc/kubernetes/manifests"
ROTATE_STEPS = (
    "make the next authority",
    "write the trusted authorities on {0}",
    "restart etcd on {0}",
    "restart the API server on {0}",
    "let the other authority sign",
    "make and sign pairs on {0}",
    "swap pairs on {0}",
    "restart etcd on {0}#2",
    "restart the API server on {0}#2",
    "retire the other authority",
)


def adopt(prefect: Prefect, cluster: KubernetesCluster, output: Path, *options: str) -> Ended:
    """Adopt the nodes into a file."""
    lab = cluster.lab
    named = [w for h in cluster.nodes.values() for w in ("--hosts", f"{h.name}={h.address}")]
    access = ["--user", "operator", "--key", str(lab.key), "--known-hosts", str(lab.known_hosts)]
    words = [*named, *access, "--output", str(output), *options]
    return finish(start_runbook(prefect, "adopt_cluster", "stacked", *words))


@pytest.fixture(scope="module")
def inventory(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Adopt the nodes once; what was said is told by the test of it."""
    path = tmp_path_factory.mktemp("stacked") / "stacked.yaml"
    ended = adopt(prefect, kubernetes, path)
    assert ended.status == 0, ended.output
    path.with_suffix(".said").write_text(ended.output)
    return path


def leaves(cluster: KubernetesCluster, inventory: Path) -> dict[str, tuple[FoundLeaf, str, str]]:
    """Tell of every pair what a rotation must keep (owner and modes too), and its serial."""
    found = {}
    for name, node in cluster.nodes.items():
        for pair in load_inventory(str(inventory)).layout(name).pairs:
            text = node.run(["cat", str(pair.certificate)]).check().stdout
            stat = ["stat", "-c", "%a %U %G", str(pair.certificate), str(pair.key)]
            serial = ["openssl", "x509", "-noout", "-serial", "-in", str(pair.certificate)]
            leaf = read_leaf(text)
            assert leaf is not None
            told = node.run(stat).check().stdout
            found[f"{name} {pair.label}"] = (leaf, told, node.run(serial).check().stdout)
    return found


def test_an_adopted_inventory_asks_for_nothing(inventory: Path) -> None:
    """Hosts, SSH and a version: the rest is kubeadm's. The split brain on disk is told."""
    text = inventory.read_text()
    assert "topology: stacked" in text
    assert not [word for word in ("paths:", "authority:", "certificates:", "unit") if word in text]
    said = inventory.with_suffix(".said").read_text()
    assert "names this member alone" in said
    assert "the authority's key lies where kubeadm put it" in said


def test_a_stacked_cluster_is_checked(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path, tmp_path: Path
) -> None:
    """Kubeadm's own names, on every node; every end is as kubeadm tells it."""
    healthy = run_runbook(prefect, "check_health", inventory)
    assert healthy.status == 0, healthy.output
    facts = tmp_path / "certificates.json"
    words = ("--json-path", str(facts))
    process = start_runbook(prefect, "check_certificates", inventory, *words, named="--clusters")
    checked = finish(process)
    assert checked.status == 0, checked.output
    (cluster,) = json.loads(facts.read_text())["clusters"]
    ours = {
        row["certificate"]: row["not_after"][:19]
        for row in cluster["certificates"]
        if row["host"] == kubernetes.first.name
    }
    asked = "kubeadm certs check-expiration --config /etc/kubernetes/kubeadm.yaml -o json"
    told = json.loads(kubernetes.first.run(asked).check().stdout)
    theirs = {
        entry["name"]: entry["expirationDate"][:19]
        for entry in (*told["certificates"], *told["certificateAuthorities"])
        if "etcd" in entry["name"]
    }
    assert ours == theirs


def test_a_stray_file_beside_the_manifest_is_found(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path
) -> None:
    """Which of the two the kubelet runs is told; the rotation refuses. The kubelet sees neither."""
    node, stray = kubernetes.first, f"{MANIFESTS}/etcd.yaml.backup"
    before = kubernetes.processes()
    node.run(f"systemctl stop kubelet; cp -p {MANIFESTS}/etcd.yaml {stray}").check()
    try:
        checked = run_runbook(prefect, "check_health", inventory)
        refused = run_runbook(prefect, "rotate_certificates", inventory, "--which", "all")
    finally:
        node.run(f"rm -f {stray}; systemctl start kubelet").check()
    assert "the kubelet does not run" in checked.output
    for ended, status in ((checked, 1), (refused, 2)):
        assert ended.status == status, ended.output
        assert "are the same pod, kube-system/etcd" in ended.output
    assert kubernetes.processes() == before


@pytest.mark.chaos
def test_a_node_without_a_runtime_is_told_and_not_changed(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path
) -> None:
    """What runs goes on, and would not start again; without kubeadm nothing is wrong by now."""
    node = list(kubernetes.nodes.values())[1]
    before = kubernetes.processes()
    node.run("systemctl stop containerd; mv /usr/bin/kubeadm /usr/bin/kubeadm.away").check()
    try:
        checked = run_runbook(prefect, "check_health", inventory)
        refused = run_runbook(prefect, "harden_members", inventory, "--dry-run")
    finally:
        node.run("mv /usr/bin/kubeadm.away /usr/bin/kubeadm; systemctl start containerd").check()
    for ended, status in ((checked, 1), (refused, 2)):
        assert ended.status == status, ended.output
        assert f"{node.name}: no container runtime runs (containerd, crio)" in ended.output
    assert "there is no kubeadm, which makes a node anew" in checked.output
    assert kubernetes.processes() == before
    kubernetes.wait_until_ready(seconds=60)


@pytest.mark.chaos
@pytest.mark.parametrize(("port", "status"), [(2380, 2), (6443, 0)])
def test_a_way_that_a_firewall_closes_is_found_before_the_first_change(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path, port: int, status: int
) -> None:
    """From each of the others; the peers' port forbids the change, the API server's does not."""
    name, node = list(kubernetes.nodes.items())[2]
    words = ("--which", "all", "--dry-run")
    node.block_port(port)
    try:
        ended = run_runbook(prefect, "rotate_certificates", inventory, *words)
        checked = run_runbook(prefect, "check_health", inventory)
    finally:
        node.unblock_port(port)
    assert ended.status == status, ended.output
    assert checked.status == (1 if port == 2380 else 0), checked.output
    for other in set(kubernetes.nodes) - {name}:
        said = f"{other}: cannot reach {name} at {node.address} port {port} (timed out)"
        assert said in ended.output, ended.output
        assert said in checked.output
    kubernetes.wait_until_ready(seconds=60)


def test_what_is_kubeadms_own_is_refused_before_anything_is_touched(
    prefect: Prefect, inventory: Path
) -> None:
    """A node is made by kubeadm; whether it can join now is said."""
    refused = run_runbook(prefect, "bootstrap_cluster", inventory)
    assert refused.status == 2, refused.output
    assert "bootstrap_cluster makes no nodes" in refused.output
    added = run_runbook(prefect, "add_member", inventory, "--member", "master04=10.9.9.9")
    assert added.status == 2, added.output
    assert "`kubeadm join --control-plane` there makes the node" in added.output
    assert "3 of 3 members are healthy" in added.output


@pytest.mark.chaos
def test_another_cluster_on_the_nodes_is_refused(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path, tmp_path: Path
) -> None:
    """Its ports are kubeadm's etcd's, which is told by its pod and not by being called etcd."""
    content = YAML(typ="safe").load(inventory)
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text("a passphrase of this test")
    content |= {
        "name": "other",
        "topology": "external",
        "etcd": content["etcd"] | {"binaries": {"source": "installed"}},
        "authority": {"certificate": "c.pem", "key": "k.pem", "passphrase": {"file": str(secret)}},
    }
    external = tmp_path / "other.yaml"
    external.write_text(json.dumps(content))
    refused = run_runbook(prefect, "bootstrap_cluster", external)
    assert refused.status == 2, refused.output
    for name in kubernetes.nodes:
        for port in (2379, 2380):
            told = f"{name}: port {port} is taken by etcd of a Kubernetes pod; it is not this"
            assert told in refused.stderr, refused.stderr


@pytest.mark.chaos
def test_manifests_are_taken_out_only_where_they_can_be_put(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path
) -> None:
    """A read-only disk of the last node's is met before the first node's API server is away."""
    node = list(kubernetes.nodes.values())[-1]
    before = {n: h.run(f"sha256sum {MANIFESTS}/*").stdout for n, h in kubernetes.nodes.items()}
    node.run(
        "mount --bind /etc/kubernetes /etc/kubernetes && "
        "mount -o remount,bind,ro /etc/kubernetes /etc/kubernetes"
    ).check()
    try:
        refused = run_runbook(prefect, "harden_members", inventory)
    finally:
        node.run("umount -l /etc/kubernetes").check()
    assert refused.status == 2, refused.output
    assert f"{node.name}: no file can be written for /etc/kubernetes/" in refused.stderr
    assert "Read-only file system" in refused.stderr
    after = {n: h.run(f"sha256sum {MANIFESTS}/*").stdout for n, h in kubernetes.nodes.items()}
    assert after == before


def test_an_external_cluster_has_nothing_to_harden(prefect: Prefect, tmp_path: Path) -> None:
    """Refused before any host is asked."""
    external = tmp_path / "external.yaml"
    external.write_text(
        "{name: c1, hosts: [{name: m1, address: 127.0.0.2}], etcd: {version: 3.7.3}, authority: "
        "{certificate: ca.pem, key: ca-key.pem, passphrase: {env: NONE}}}\n"
    )
    refused = run_runbook(prefect, "harden_members", external)
    assert refused.status == 2, refused.output
    assert "c1 is external" in refused.output
    assert "there is nothing to harden" in refused.output


def test_members_are_shown_three_ways(prefect: Prefect, inventory: Path) -> None:
    """Nothing differs but what was read at a first start."""
    shown = run_runbook(prefect, "show_member", inventory)
    assert shown.status == 0, shown.output
    assert f"master01: {MANIFESTS}/etcd.yaml; etcd 3." in shown.output
    assert "what runs has another value" not in shown.output
    assert "read at a first start only" in shown.output


def test_rotation_restarts_nothing(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path, tmp_path: Path
) -> None:
    """All pairs are new, each made as it was; no process is another, no write is lost."""
    before, processes = leaves(kubernetes, inventory), kubernetes.processes()
    writers, watch = stacked_writers(kubernetes, tmp_path), ApiWatch(kubernetes)
    files = kubernetes.client_files(tmp_path / "handshakes")
    addresses = {name: node.address for name, node in kubernetes.nodes.items()}
    with writers, watch, Handshakes(addresses, files) as handshakes:
        rotated = run_runbook(prefect, "rotate_certificates", inventory, "--which", "all")
    assert rotated.status == 0, rotated.output
    assert kubernetes.processes() == processes
    after = leaves(kubernetes, inventory)
    assert {k: v[:2] for k, v in after.items()} == {k: v[:2] for k, v in before.items()}
    serials = [serial for _, _, serial in (*before.values(), *after.values())]
    assert len(set(serials)) == len(serials) == 2 * 4 * len(kubernetes.nodes)
    written = writers.check()
    assert written.acknowledged
    assert written.lost == ()
    assert handshakes.refused == {name: [] for name in kubernetes.nodes}
    assert all(handshakes.done.values())
    # One that is slow to answer on a busy machine is no failure of etcd's.
    assert not any("500" in said for said in watch.report().refused.values())
    renewed = "kubeadm certs renew etcd-server --config /etc/kubernetes/kubeadm.yaml"
    kubernetes.first.run(renewed).check()
    assert run_runbook(prefect, "check_health", inventory).status == 0


@pytest.mark.chaos
def test_space_is_given_back_on_nodes_without_a_restart(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path, tmp_path: Path
) -> None:
    """API servers are left to compact by themselves; no process is another, no write is lost."""
    processes, writers = kubernetes.processes(), stacked_writers(kubernetes, tmp_path)
    words = ("--at-least-mb", "0", "--free-percent", "0")
    with writers:
        ended = run_runbook(prefect, "reclaim_space", inventory, *words)
    print(ended.output)  # noqa: T201 - the figures, for whoever runs it with -s
    assert ended.status == 0, ended.output
    assert "API servers compact it every five minutes" in ended.output
    assert "/registry/" in ended.output
    assert ended.output.count(": defragment ") >= len(kubernetes.nodes)
    assert kubernetes.processes() == processes
    assert writers.check().lost == ()
    for runbook in ("diagnose", "repair_corruption", "check_health"):
        looked = run_runbook(prefect, runbook, inventory)
        assert looked.status == 0, looked.output


def test_the_authority_is_replaced_where_kubeadm_keeps_it(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path, tmp_path: Path
) -> None:
    """One node at a time, never without an API server; kubeadm goes on with the new one."""
    old = fingerprint(kubernetes)
    writers, watch = stacked_writers(kubernetes, tmp_path), ApiWatch(kubernetes)
    words = ("--replace", old[:12])
    with writers, watch:
        rotated = run_runbook(prefect, "rotate_authority", inventory, *words)
    assert rotated.status == 0, rotated.output
    written, seen = writers.check(), watch.report()
    assert written.acknowledged
    assert written.lost == ()
    assert seen.longest_without_any < max(seen.longest.values())
    for node in kubernetes.nodes.values():
        shown = node.run(
            "ls /etc/kubernetes/pki/etcd; grep -c BEGIN /etc/kubernetes/pki/etcd/ca.crt"
        )
        *names, certificates = shown.check().stdout.split()
        assert not [name for name in names if "next" in name or "previous" in name]
        assert certificates == "1"
        if node is kubernetes.first:
            for task in ("check-expiration", "renew etcd-peer"):
                asked = f"kubeadm certs {task} --config /etc/kubernetes/kubeadm.yaml"
                assert "<invalid>" not in node.run(asked).check().stdout
        verified = "cd /etc/kubernetes/pki/etcd; openssl verify -CAfile ca.crt peer.crt server.crt"
        node.run(verified).check()
    assert run_runbook(prefect, "check_health", inventory).status == 0
    again = run_runbook(prefect, "rotate_authority", inventory, *words)
    assert again.status == 0
    assert "signs already, and no rotation is under way" in again.output


def fingerprint(cluster: KubernetesCluster) -> str:
    """Tell which authority stands first on the first node."""
    digest = "openssl x509 -noout -fingerprint -sha256 -in /etc/kubernetes/pki/etcd/ca.crt"
    said = cluster.first.run(digest).check().stdout
    return said.rpartition("=")[2].replace(":", "").strip().lower()


@pytest.mark.chaos
@pytest.mark.parametrize("step", ROTATE_STEPS)
@pytest.mark.parametrize("event", ["step-started", "step-finished"])
def test_a_killed_rotation_of_the_authority_is_finished_by_the_next_run(
    kubernetes: KubernetesCluster,
    prefect: Prefect,
    inventory: Path,
    tmp_path: Path,
    event: str,
    step: str,
) -> None:
    """What the nodes hold says how far it came; no write is lost, nothing is left beside."""
    old = fingerprint(kubernetes)
    words = ("rotate_authority", inventory, "--replace", old)
    point = f"{event}|{step.format(list(kubernetes.nodes)[1])}"
    killer = ("-m", "tests.integration.killed_run", point)
    with stacked_writers(kubernetes, tmp_path) as writers:
        died = finish(start_runbook(prefect, *words, launcher=killer))
        assert died.status == -9, died.output
        ended = run_runbook(prefect, *words)
    assert ended.status == 0, ended.output
    assert writers.check().lost == ()
    see_rotated(kubernetes, old)
    assert run_runbook(prefect, "check_health", inventory).status == 0


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_rotation_of_the_authority_that_is_killed_at_each_step_in_turn_gets_through(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path, tmp_path: Path
) -> None:
    """Each run begins where the last one died, and dies at the next line; the last does not."""
    old, node = fingerprint(kubernetes), list(kubernetes.nodes)[1]
    words = ("rotate_authority", inventory, "--replace", old)
    with stacked_writers(kubernetes, tmp_path) as writers:
        for step in ROTATE_STEPS:
            for event in ("step-started", "step-finished"):
                # What is a run's second step of a name is this run's first.
                point = f"{event}|{step.format(node).partition('#')[0]}"
                killer = ("-m", "tests.integration.killed_run", point)
                died = finish(start_runbook(prefect, *words, launcher=killer))
                assert died.status == -9, f"{point}: {died.output}"
        ended = run_runbook(prefect, *words)
    assert ended.status == 0, ended.output
    assert writers.check().lost == ()
    see_rotated(kubernetes, old)
    assert run_runbook(prefect, "check_health", inventory).status == 0


def see_rotated(cluster: KubernetesCluster, old: str) -> None:
    """See another authority, nothing left beside it or the manifests, and all nodes ready."""
    assert fingerprint(cluster) != old
    for node in cluster.nodes.values():
        names = node.run("ls /etc/kubernetes/pki/etcd").check().stdout
        assert not [word for word in ("next", "previous", "new") if word in names]
        assert node.run(f"ls -A {MANIFESTS}").check().stdout.count("\n") == 4
    cluster.wait_until_ready(seconds=30)


@pytest.mark.chaos
def test_the_authority_is_replaced_where_the_kubelet_must_not_be_restarted(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path, tmp_path: Path
) -> None:
    """Its back-off is waited for; the plan says which restart of how many each is."""
    kubelets = kubernetes.processes("kubelet")
    forbidding = tmp_path / "forbidding.yaml"
    forbidding.write_text(f"restarts_kubelet: false\n{inventory.read_text()}")
    words = ("rotate_authority", forbidding, "--replace", fingerprint(kubernetes))
    with stacked_writers(kubernetes, tmp_path) as writers:
        ended = run_runbook(prefect, *words)
    assert ended.status == 0, ended.output
    assert "restart 2 of 2 there, and the kubelet is not restarted" in ended.output
    assert writers.check().lost == ()
    assert kubernetes.processes("kubelet") == kubelets
