"""Kubernetes nodes whose etcd lost its quorum, or is to go back in time: by the same runbooks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.integration.runbooks import Ended, Prefect, finish, run_runbook, start_runbook
from tests.integration.stacked import KEPT, OUT, do_while_out, wipe
from tests.lab.etcd_programs import get_programs
from tests.lab.kubernetes.cluster import KubernetesCluster

pytest_plugins = ["tests.lab.kubernetes.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.chaos, pytest.mark.timeout(900)]

DATA = "/var/lib/etcd"


@pytest.fixture(scope="module")
def inventory(kubernetes: KubernetesCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name the runner's programs, which are lent to nodes: the lab's image has etcd alone."""
    lab = kubernetes.lab
    path = tmp_path_factory.mktemp("stacked") / "stacked.yaml"
    programs = get_programs(lab.record.etcd).directory
    path.write_text(f"{lab.inventory.read_text()}snapshots:\n  programs: {programs}\n")
    return path


def lose(kubernetes: KubernetesCluster) -> None:
    """Let all but the first node lose etcd and its data, as with their disks.

    The manifests are out: with the first one alive a wiped member comes up with an empty log,
    votes, and the quorum is back.
    """
    _, *others = kubernetes.nodes.values()
    for node in others:
        node.run(f"{OUT}; sleep 1; pkill -9 -x kube-apiserver").check()
    for node in others:
        out = "cd /etc/kubernetes; mv manifests/etcd.yaml etcd-runbooks/"
        node.run(f"{out}; for n in $(seq 20); do pkill -9 -x etcd || break; sleep 1; done").check()
        node.run(f"rm -rf {DATA}/member").check()


def keys(kubernetes: KubernetesCluster) -> set[str]:
    """List the keys of tests that the last node has."""
    *_, last = kubernetes.nodes.values()
    return set(kubernetes.etcdctl("get", "own/", "--prefix", "--keys-only", on=last).split())


def check_whole(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path, data: str = DATA
) -> None:
    """See every node ready, in full health, with its manifests in place."""
    kubernetes.wait_until_ready(seconds=60)
    checked = run_runbook(prefect, "check_health", inventory)
    assert checked.status == 0, checked.output
    for node in kubernetes.nodes.values():
        left = node.run("ls /etc/kubernetes/etcd-runbooks 2>/dev/null").stdout
        assert "etcd.yaml" not in left
        assert node.run(f"stat -c %a {data}").stdout.strip() == "700"
    kubernetes.first.run("kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes").check()


def timed(prefect: Prefect, runbook: str, inventory: Path, *options: str) -> Ended:
    """Run a runbook with consent, and print how long it took."""
    began = time.monotonic()
    name = next(x.split()[1] for x in inventory.read_text().splitlines() if x.startswith("name:"))
    ended = run_runbook(prefect, runbook, inventory, "--consent", name, *options)
    print(f"\n{runbook}: {time.monotonic() - began:.1f} s")  # noqa: T201 - the figure
    assert ended.status == 0, ended.output
    return ended


def test_a_lost_majority_of_nodes_is_recovered(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path
) -> None:
    """All that the survivor had is there, and the API servers serve."""
    kubernetes.etcdctl("put", "own/kept", "x")
    lose(kubernetes)
    time.sleep(5)
    timed(prefect, "recover_quorum", inventory)
    check_whole(kubernetes, prefect, inventory)
    assert keys(kubernetes) == {"own/kept"}


def test_nodes_go_back_to_a_snapshot(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path
) -> None:
    """What was written since is gone, and API servers list anew."""
    saved = run_runbook(prefect, "take_snapshot", inventory, named="--clusters")
    assert saved.status == 0, saved.output
    kubernetes.etcdctl("put", "own/later", "x")
    timed(prefect, "restore_cluster", inventory)
    check_whole(kubernetes, prefect, inventory)
    assert keys(kubernetes) == {"own/kept"}


@pytest.mark.parametrize(
    "point",
    [
        "step-finished|run a copy of the data alone on {first}",
        "step-finished|put what is ready in place on {first}",
        "step-started|let clients in on {first}",
        "step-started|bring the API server back on {first}",
    ],
)
def test_a_recovery_that_was_killed_is_finished(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path, point: str
) -> None:
    """By the same command."""
    lose(kubernetes)
    killer = ("-m", "tests.integration.killed_run", point.format(first=kubernetes.first.name))
    words = ("--consent", kubernetes.lab.name)
    killed = finish(start_runbook(prefect, "recover_quorum", inventory, *words, launcher=killer))
    assert killed.status == -9, killed.output
    timed(prefect, "recover_quorum", inventory)
    check_whole(kubernetes, prefect, inventory)
    assert keys(kubernetes) == {"own/kept"}


def test_data_that_a_hand_restored_beside_the_old_ones(
    kubernetes: KubernetesCluster, prefect: Prefect, inventory: Path, tmp_path: Path
) -> None:
    """The pod's hostPath was changed alone: its --data-dir names the old data of the host."""
    restored, stale = "/var/lib/etcd-from-backup", f"{DATA}/member/stale"
    kubernetes.etcdctl("put", "own/kept", "x")
    for node in kubernetes.nodes.values():
        edit = f"sed -i 's|path: {DATA}$|path: {restored}|' {KEPT}/etcd.yaml"
        aside = f"mv {DATA} {restored}; mkdir -m 700 -p {DATA}/member; echo {node.name} > {stale}"
        do_while_out(kubernetes, node, f"{edit}; {aside}")
    told = run_runbook(prefect, "check_health", inventory)
    assert told.status != 0
    assert f"keeps etcd's data in {restored}" in told.output
    right = tmp_path / "right.yaml"
    right.write_text(f"{inventory.read_text()}paths:\n  data_directory: {restored}\n")
    check_whole(kubernetes, prefect, right, restored)
    saved = run_runbook(prefect, "take_snapshot", right, named="--clusters")
    assert saved.status == 0, saved.output
    kubernetes.etcdctl("put", "own/later", "x")
    timed(prefect, "restore_cluster", right)
    check_whole(kubernetes, prefect, right, restored)
    assert keys(kubernetes) == {"own/kept"}
    # As kubeadm leaves it, the first one would begin a cluster with the ids of before the restore.
    hardened = run_runbook(prefect, "harden_members", right)
    assert hardened.status == 0, hardened.output
    node = kubernetes.first
    wipe(kubernetes, node, restored)
    replaced = run_runbook(prefect, "replace_member", right, "--member", node.name)
    assert replaced.status == 0, replaced.output
    check_whole(kubernetes, prefect, right, restored)
    for name, each in kubernetes.nodes.items():
        assert each.run(["cat", stale]).stdout.strip() == name
        assert each.run(["ls", f"{DATA}/member"]).stdout.strip() == "stale"
