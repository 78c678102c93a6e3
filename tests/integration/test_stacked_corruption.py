"""Data changed behind a member's back on kubeadm's own nodes: found, and healed by one command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.model.corruption import INCONSISTENT
from tests.integration.runbooks import Prefect, run_runbook
from tests.integration.stacked import KEPT, do_while_out, eventually, stacked_writers
from tests.integration.test_corruption import OTHER, SECRET
from tests.integration.test_stacked_members import REPLACE_STEPS, killed, see_whole

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.host import Host
    from tests.lab.kubernetes.cluster import KubernetesCluster

pytest_plugins = ["tests.lab.kubernetes.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.one_etcd, pytest.mark.timeout(1500)]

RUNBOOK = "repair_corruption"
CHAIN = (
    "compare the members' data",
    *REPLACE_STEPS[:-1],
    "take the alarm CORRUPT back",
    REPLACE_STEPS[-1],
)
"""As a run has them: with the API server in, nothing is left."""
LOGS = "/var/log/pods/kube-system_etcd-*/etcd/*.log"
DATABASE = "/var/lib/etcd/member/snap/db"


def spoil(cluster: KubernetesCluster, node: Host, *, looks: bool = False) -> None:
    """Change a value in a node's database while its etcd is out; one that `looks` then ends."""
    assert len(OTHER) == len(SECRET)
    cluster.etcdctl("put", "told", SECRET)
    spoilt = f"grep -q '{SECRET}' {DATABASE} && sed -i 's/{SECRET}/{OTHER}/g' {DATABASE}"
    words = "s/InitialCorruptCheck=[a-z]*/InitialCorruptCheck="
    check = f"sed -i {words}{str(looks).lower()}/ {KEPT}/etcd.yaml"
    do_while_out(cluster, node, f"export LC_ALL=C; {check}; {spoilt}", serves=not looks)
    if not looks:
        assert tell(cluster, node) == OTHER


def let_lead(cluster: KubernetesCluster, node: Host) -> None:
    """Give a node's member the leadership."""
    cluster.etcdctl("move-leader", f"{cluster.members()[node.name]['ID']:x}")


def tell(cluster: KubernetesCluster, node: Host) -> str:
    """Read the value from a node's own data."""
    words = ("get", "told", "--print-value-only", "--consistency=s")
    return cluster.etcdctl(*words, on=node).strip()


def check_healed(cluster: KubernetesCluster, prefect: Prefect) -> None:
    """See every node with the right value, and whole."""
    assert {tell(cluster, node) for node in cluster.nodes.values()} == {SECRET}
    assert cluster.etcdctl("alarm", "list").strip() == ""
    see_whole(cluster, prefect)
    assert "nothing to do" in run_runbook(prefect, RUNBOOK, cluster.lab.inventory).output


@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
def test_a_node_whose_data_differ_is_repaired(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path, *, leads: bool
) -> None:
    """By the other two, whose etcd goes on; API servers write all the time."""
    node = list(kubernetes.nodes.values())[-1]
    spoil(kubernetes, node)
    let_lead(kubernetes, node if leads else kubernetes.first)
    before, ids = kubernetes.processes("etcd"), kubernetes.members()
    with stacked_writers(kubernetes, tmp_path) as writers:
        ended = run_runbook(prefect, RUNBOOK, kubernetes.lab.inventory)
    print(ended.output)  # noqa: T201 - the figures, for whoever runs it with -s
    assert ended.status == 0, ended.output
    assert writers.check().lost == ()
    after, new = kubernetes.processes("etcd"), kubernetes.members()
    assert {name for name in before if before[name] != after[name]} == {node.name}
    assert {name for name in ids if ids[name]["ID"] != new[name]["ID"]} == {node.name}
    check_healed(kubernetes, prefect)


def test_a_node_whose_etcd_ends_at_its_start_is_healed(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """By its own look, which is kubeadm's default; its API server waits for it all the time."""
    node = list(kubernetes.nodes.values())[-1]
    spoil(kubernetes, node, looks=True)
    eventually(lambda: node.run(f"grep -q '{INCONSISTENT}' {LOGS}").status == 0)
    checked = run_runbook(prefect, "check_health", kubernetes.lab.inventory)
    print(checked.output)  # noqa: T201 - what an operator reads
    assert checked.status == 1
    assert RUNBOOK in checked.output
    ids = kubernetes.members()
    with stacked_writers(kubernetes, tmp_path) as writers:
        ended = run_runbook(prefect, RUNBOOK, kubernetes.lab.inventory)
    print(ended.output)  # noqa: T201 - as above
    assert ended.status == 0, ended.output
    assert writers.check().lost == ()
    new = kubernetes.members()
    assert {name for name in ids if ids[name]["ID"] != new[name]["ID"]} == {node.name}
    check_healed(kubernetes, prefect)


def test_a_repair_that_is_killed_at_each_step_in_turn_gets_through(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """Each run begins where the last one died, and dies at the next line; the last does not."""
    node = list(kubernetes.nodes.values())[1]
    spoil(kubernetes, node)
    with stacked_writers(kubernetes, tmp_path) as writers:
        for step in CHAIN:
            for event in ("step-started", "step-finished"):
                # What is a run's second step of a name is this run's first.
                point = f"{event}|{step.format(node.name).partition('#')[0]}"
                died = killed(prefect, kubernetes.lab.inventory, point, RUNBOOK)
                assert died.status == -9, f"{point}: {died.output}"
        ended = run_runbook(prefect, RUNBOOK, kubernetes.lab.inventory)
    assert ended.status == 0, ended.output
    assert writers.check().lost == ()
    check_healed(kubernetes, prefect)
