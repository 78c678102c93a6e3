"""recover_certificates on kubeadm's own nodes, with every API server down."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tasks.plans.refilled import APART_SECONDS
from tests.integration.runbooks import Prefect, run_runbook
from tests.integration.stacked import READY, eventually, expire, lose_disk, outgrow
from tests.lab.kubernetes.cluster import KubernetesCluster, probe

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.host import Host

pytest_plugins = ["tests.lab.kubernetes.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.chaos, pytest.mark.timeout(900)]

PAIRS = "/etc/kubernetes/pki/etcd"


def let_all_die(cluster: KubernetesCluster) -> None:
    """End every etcd, so that no connection is left; none finds a quorum, no API server etcd."""
    for node in cluster.nodes.values():
        node.run("pkill -9 -x etcd; pkill -9 -x kube-apiserver").check()
    eventually(lambda: not any(probe(node) == "200" for node in cluster.nodes.values()), 120)
    time.sleep(30)  # the kubelets' back-offs grow


def digest(node: Host) -> str:
    """Tell what is on a node beside etcd's pairs, which recovery leaves as it was."""
    found = "cd /etc/kubernetes; sha256sum manifests/* pki/{ca,sa,apiserver,etcd/ca}.key *.conf"
    return node.run(found).check().stdout


def recover(prefect: Prefect, cluster: KubernetesCluster) -> str:
    """Recover, and see that all is whole and nothing is left to do."""
    began = time.monotonic()
    ended = run_runbook(prefect, "recover_certificates", cluster.lab.inventory)
    print(f"\nrecovered in {time.monotonic() - began:.1f} s")  # noqa: T201 - the figure
    assert ended.status == 0, ended.output
    cluster.wait_until_ready(seconds=5)
    checked = run_runbook(prefect, "check_health", cluster.lab.inventory)
    assert checked.status == 0, checked.output
    again = run_runbook(prefect, "recover_certificates", cluster.lab.inventory)
    assert "nothing to recover" in again.output, again.output
    asked = "kubeadm certs check-expiration --config /etc/kubernetes/kubeadm.yaml"
    assert "<invalid>" not in cluster.first.run(asked).check().stdout
    return ended.output


def test_a_wiped_leader_that_was_filled_again_is_told(
    kubernetes: KubernetesCluster, prefect: Prefect
) -> None:
    """It has its old id and all of the log; only its data's age tells. Hardened it cannot again."""
    first, second, _ = kubernetes.nodes.values()
    inventory, said = kubernetes.lab.inventory, "its disk was lost and it was filled again"
    assert said not in run_runbook(prefect, "check_health", inventory).output
    # A member that joins soon after the first began is told from nothing.
    born = ["stat", "-c", "%W", "/var/lib/etcd/member"]
    joined = int(second.run(born).check().stdout)
    time.sleep(max(0.0, joined + APART_SECONDS + 2 - time.time()))
    before = kubernetes.members(on=second)[first.name]["ID"]
    kubernetes.etcdctl("move-leader", f"{before:x}")
    lose_disk(first)
    kubernetes.wait_until_ready()
    assert kubernetes.members(on=first)[first.name]["ID"] == before
    checked = run_runbook(prefect, "check_health", inventory)
    assert checked.status == 0, checked.output
    assert f"{first.name}: it began this cluster, and its data are younger" in checked.output
    planned = run_runbook(prefect, "harden_members", inventory, "--dry-run")
    assert said in planned.output


def test_a_wiped_first_node_that_begins_another_history_is_named(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """It is healthy, with its old ids, while the others have no leader; then by the way out.

    When it has outgrown the others no count tells it any more, and its data do.
    """
    inventory = kubernetes.lab.inventory
    kubernetes.etcdctl("put", "kept", "since the beginning")
    before = kubernetes.members()
    first, second, third = kubernetes.nodes.values()
    third.run("systemctl stop kubelet; pkill -9 -x etcd").check()
    lose_disk(first)
    eventually(lambda: first.run(["curl", "-sfm1", READY]).status == 0)
    own = kubernetes.members(on=first)
    assert [(m["name"], m["ID"]) for m in own.values()] == [(first.name, before[first.name]["ID"])]
    checked = run_runbook(prefect, "check_health", inventory)
    assert checked.status == 1, checked.output
    assert f"{first.name} has begun another history, alone" in checked.output
    outgrow(kubernetes, first, second, tmp_path / "client")
    checked = run_runbook(prefect, "check_health", inventory)
    assert checked.status == 1, checked.output
    assert f"{first.name} has begun another history: " in checked.output
    assert f"as {second.name} has it" in checked.output
    words = ("--member", first.name)
    refused = run_runbook(prefect, "replace_member", inventory, *words)
    assert refused.status == 2, refused.output
    kept = "/etc/kubernetes/etcd-runbooks"
    out = f"mkdir -p {kept}; cd /etc/kubernetes/manifests; mv kube-apiserver.yaml {kept}"
    first.run(f"{out}; sleep 3; pkill -9 -x kube-apiserver; mv etcd.yaml {kept}").check()
    third.run("systemctl start kubelet").check()
    kubernetes.wait_until_ready(second, third)
    replaced = run_runbook(prefect, "replace_member", inventory, *words)
    assert replaced.status == 0, replaced.output
    kubernetes.wait_until_ready(seconds=30)
    assert kubernetes.etcdctl("get", "kept", "--print-value-only").strip() == "since the beginning"


def test_pairs_that_have_expired_or_are_lost_or_another_members(
    kubernetes: KubernetesCluster, prefect: Prefect
) -> None:
    """They are as kubeadm makes them, the pods run again, and the data are there."""
    kubernetes.etcdctl("put", "kept", "since the beginning")
    _, second, third = kubernetes.nodes.values()
    before = {name: digest(node) for name, node in kubernetes.nodes.items()}
    expire(kubernetes)
    second.run(f"cd {PAIRS}; rm peer.crt peer.key ../apiserver-etcd-client.key").check()
    for name in ("server.crt", "server.key"):
        (third.root / PAIRS[1:] / name).write_bytes((second.root / PAIRS[1:] / name).read_bytes())
    let_all_die(kubernetes)
    # What is lost is written anew, and what a run that died has taken out goes in again.
    second.run("cd /etc/kubernetes; rm manifests/etcd.yaml manifests/kube-apiserver.yaml").check()
    kept = "/etc/kubernetes/etcd-runbooks"
    third.run(f"mkdir -p {kept}; cd /etc/kubernetes/manifests; mv etcd.yaml {kept}").check()
    refused = run_runbook(prefect, "rotate_certificates", kubernetes.lab.inventory)
    assert refused.status == 2, refused.output
    said = recover(prefect, kubernetes)
    assert "left to kubeadm: the API servers' own certificates" in said
    assert kubernetes.etcdctl("get", "kept", "--print-value-only").strip() == "since the beginning"
    after = {name: digest(node) for name, node in kubernetes.nodes.items()}
    assert [name for name in before if after[name] != before[name]] == [second.name]
    manifest = second.run("cat /etc/kubernetes/manifests/etcd.yaml").check().stdout
    assert f"--initial-cluster={second.name}=https://{second.address}:2380\n" in manifest
    again = second.run("cd /etc/kubernetes/manifests; sha256sum kube-apiserver.yaml").check().stdout
    assert again.split()[0] in before[second.name]
    shown = third.run(f"openssl x509 -noout -subject -ext subjectAltName -in {PAIRS}/server.crt")
    told = shown.check().stdout
    assert f"CN = {third.name}" in told
    assert second.name not in told
    assert f"IP Address:{third.address}" in told


def test_an_authority_that_has_expired_too(kubernetes: KubernetesCluster, prefect: Prefect) -> None:
    """It gets a new life with the same key, on every node; kubeadm goes on with it."""
    expire(kubernetes, authority=True)
    let_all_die(kubernetes)
    said = recover(prefect, kubernetes)
    assert "renew the authority: changed" in said
    renewed = "kubeadm certs renew etcd-server --config /etc/kubernetes/kubeadm.yaml"
    for node in kubernetes.nodes.values():
        node.run(f"openssl verify -CAfile {PAIRS}/ca.crt {PAIRS}/server.crt").check()
    kubernetes.first.run(renewed).check()
    assert run_runbook(prefect, "check_health", kubernetes.lab.inventory).status == 0
