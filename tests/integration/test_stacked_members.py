"""Members of kubeadm's own nodes: hardened, replaced in place, removed; killed anywhere between.

A manifest changes by the kubelet's laws: nothing but finished files in its directory, the API
server out before its etcd, one node at a time. Writers never pause and lose nothing.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from tasks.engine.journal import read_journal
from tests.integration.runbooks import Ended, Prefect, finish, run_runbook, start_runbook
from tests.integration.stacked import (
    OUT,
    edit_etcd,
    eventually,
    lose_disk,
    stacked_writers,
    take_api_servers_out,
    wipe,
)
from tests.integration.stacked_upgrades import aim_at, pin, upgrade
from tests.lab.kubernetes.cluster import KubernetesCluster
from tests.lab.kubernetes.watch import ApiWatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.host import Host

pytest_plugins = ["tests.lab.kubernetes.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.timeout(900)]

MANIFESTS = "/etc/kubernetes/manifests"
FILES = {
    "etcd.yaml",
    "kube-apiserver.yaml",
    "kube-controller-manager.yaml",
    "kube-scheduler.yaml",
}
HARDEN_STEPS = (
    "take the API server and etcd out on {0}",
    "write the manifest of {0} while it is out",
    "put etcd in on {0}",
    "put the API server in on {0}",
)
REPLACE_STEPS = (
    "retire {0}",
    "remove a member",
    "add a learner",
    "compare the manifest of {0}",
    "write the manifest of {0} while it is out",
    "put etcd in on {0}",
    "wait for the log and promote",
    "compare the manifest of {0}#2",
    "write the manifest of {0} while it is out#2",
    "put etcd in on {0}#2",
    "put the API server in on {0}",
)


STARTS = 4
"""After 10, 20 and 40 s; the next one is 80 s away."""
AT_ONCE = 20.0


def listed(node: Host) -> set[str]:
    """List the manifests' directory, with what begins with a dot."""
    return set(node.run(["ls", "-A", MANIFESTS]).check().stdout.split())


def initial(node: Host) -> str:
    """Tell what a manifest says of the initial cluster."""
    return node.run(["grep", "initial-cluster", f"{MANIFESTS}/etcd.yaml"]).check().stdout


def see_whole(cluster: KubernetesCluster, prefect: Prefect) -> None:
    """See full health, and nothing but the four manifests on every node."""
    cluster.wait_until_ready(seconds=60)
    assert {name: listed(node) for name, node in cluster.nodes.items()} == dict.fromkeys(
        cluster.nodes, FILES
    )
    checked = run_runbook(prefect, "check_health", cluster.lab.inventory)
    assert checked.status == 0, checked.output


def killed(prefect: Prefect, inventory: Path, point: str, *words: str) -> Ended:
    """Run a runbook whose runner dies at a point of its journal."""
    killer = ("-m", "tests.integration.killed_run", point)
    return finish(start_runbook(prefect, words[0], inventory, *words[1:], launcher=killer))


def replace(prefect: Prefect, cluster: KubernetesCluster, node: Host) -> Ended:
    """Replace a node's member in place."""
    return run_runbook(prefect, "replace_member", cluster.lab.inventory, "--member", node.name)


def move_there_and_back(
    cluster: KubernetesCluster, prefect: Prefect, node: Host, directory: Path
) -> Iterator[tuple[str, str]]:
    """Give a member a further address of its node's, and then its own; tells the new and the old.

    Each time its id stays, all is whole, and the same run again does nothing.
    """
    lab = cluster.lab
    other = next(each for each in cluster.nodes.values() if each is not node)
    before = cluster.members()[node.name]["ID"]
    prefix, _, last = node.address.rpartition(".")
    address = f"{prefix}.{int(last) + 100}"
    link = "$(ip -o address show scope global | awk '{print $2; exit}')"
    node.run(f"ip address add {address}/24 dev {link}").check()
    known = lab.known_hosts.read_text()
    added = [x.replace(node.address, address) for x in known.splitlines() if node.address in x]
    lab.known_hosts.write_text(known + "\n".join(added) + "\n")
    for new, old in ((address, node.address), (node.address, address)):
        words = ("--member", node.name, "--address", new, "--write-inventory")
        with stacked_writers(cluster, directory / new) as writers:
            ended = run_runbook(prefect, "update_member", lab.inventory, *words)
        assert ended.status == 0, ended.output
        assert "left to kubeadm and the kubelet" in ended.output
        assert writers.check(on=other.name).lost == ()
        entry = cluster.members(on=other)[node.name]
        assert (entry["ID"], entry["peerURLs"]) == (before, [f"https://{new}:2380"])
        yield new, old
        see_whole(cluster, prefect)
        again = run_runbook(prefect, "update_member", lab.inventory, *words)
        assert again.status == 0, again.output
        assert "nothing to do" in again.output


def test_the_version_is_left_to_kubeadm_and_all_else_is_told(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """With its commands; where all run the version, versions and data are compared."""
    before, own = kubernetes.processes(), kubernetes.lab.record.etcd
    goal = aim_at(kubernetes, "3.6.16" if own != "3.6.16" else "3.7.3", tmp_path)
    refused = upgrade(prefect, goal)
    assert refused.status != 0
    assert f"on {kubernetes.first.name} `kubeadm upgrade plan`" in refused.output
    pin(kubernetes, "3.5.16-0")
    refused = upgrade(prefect, goal)
    assert refused.status != 0
    assert "pins etcd.local.imageTag: 3.5.16-0" in refused.output
    pin(kubernetes, None)
    same = upgrade(prefect, kubernetes.lab.inventory)
    assert same.status == 0, same.output
    steps = {r.details.get("step") for r in read_journal(prefect.journals[-1])}
    assert "compare the members' data" in steps
    assert kubernetes.processes() == before


def test_a_wiped_first_member_is_replaced_with_every_api_server_down(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """One run, from no API server at all to three; the member's pod is the one that joins."""
    first = kubernetes.first
    take_api_servers_out(kubernetes)
    wipe(kubernetes, first)
    with stacked_writers(kubernetes, tmp_path) as writers:
        began = time.monotonic()
        ended = replace(prefect, kubernetes, first)
        print(f"\nreplaced in {time.monotonic() - began:.1f} s")  # noqa: T201 - the figure
    assert ended.status == 0, ended.output
    report = writers.check()
    assert report.acknowledged
    assert report.lost == ()
    assert f"initial-cluster={first.name}=https://{first.address}:2380\n" in initial(first)
    assert "initial-cluster-state=existing" in initial(first)
    see_whole(kubernetes, prefect)


@pytest.mark.chaos
def test_hardened_members_begin_nothing_without_their_data(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """One API server away at a time; then a wiped disk serves nothing, whoever else is there."""
    writers, watch = stacked_writers(kubernetes, tmp_path), ApiWatch(kubernetes)
    with writers, watch:
        ended = run_runbook(prefect, "harden_members", kubernetes.lab.inventory)
    assert ended.status == 0, ended.output
    report = writers.check()
    assert report.acknowledged
    assert report.lost == ()
    print(f"\n{report}\n{watch.report()}")  # noqa: T201 - the figures
    for node in kubernetes.nodes.values():
        assert f"initial-cluster={node.name}=https://{node.address}:2380\n" in initial(node)
    see_whole(kubernetes, prefect)
    again = run_runbook(prefect, "harden_members", kubernetes.lab.inventory)
    assert again.status == 0, again.output
    assert "take" not in again.output


@pytest.mark.chaos
@pytest.mark.parametrize("leader", [True, False], ids=["with a leader", "without one"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_wiped_disk_serves_no_other_history(
    kubernetes: KubernetesCluster, prefect: Prefect, number: int, *, leader: bool
) -> None:
    """It ends, again and again, until replace_member takes it back in."""
    hardened = run_runbook(prefect, "harden_members", kubernetes.lab.inventory)
    assert hardened.status == 0, hardened.output
    names = list(kubernetes.nodes)
    node, other = kubernetes.nodes[names[number]], kubernetes.nodes[names[number - 1]]
    if not leader:
        other.run("systemctl stop kubelet; kill -9 $(pgrep -x etcd)").check()
    lose_disk(node)
    deadline = time.monotonic() + 45
    while time.monotonic() < deadline:
        assert node.run(["curl", "-sfm1", "http://127.0.0.1:2381/readyz"]).status != 0
        time.sleep(0.2)
    if not leader:
        other.run("systemctl start kubelet").check()
        kubernetes.wait_until_ready(other)
    ended = replace(prefect, kubernetes, node)
    assert ended.status == 0, ended.output
    see_whole(kubernetes, prefect)


@pytest.mark.chaos
def test_a_hardened_member_that_has_ended_again_and_again_is_replaced(
    kubernetes: KubernetesCluster, prefect: Prefect
) -> None:
    """Its manifest is the same before and after, and so is its pod, with a back-off of minutes."""
    hardened = run_runbook(prefect, "harden_members", kubernetes.lab.inventory)
    assert hardened.status == 0, hardened.output
    node = kubernetes.first
    # Beside an API server without its etcd the kubelet is deaf, and starts it twice in a minute.
    node.run(f"{OUT}; pkill -9 -x kube-apiserver").check()
    wipe(kubernetes, node)
    listed_there = "crictl ps --all --label io.kubernetes.container.name=etcd --output json"

    def starts() -> int:
        found = json.loads(node.run(listed_there).check().stdout)["containers"]
        return max((each["metadata"]["attempt"] for each in found), default=0)

    eventually(lambda: starts() >= STARTS, 240)
    ended = replace(prefect, kubernetes, node)
    assert ended.status == 0, ended.output
    *_, took = re.findall(r"put etcd in: changed \((.*) s\)", ended.output)
    assert float(took) < AT_ONCE
    see_whole(kubernetes, prefect)


@pytest.mark.chaos
@pytest.mark.parametrize("step", HARDEN_STEPS)
@pytest.mark.parametrize("event", ["step-started", "step-finished"])
def test_a_killed_hardening_is_finished_by_the_next_run(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path, step: str, event: str
) -> None:
    """Whatever is out goes back in, and what is out is told meanwhile."""
    node = list(kubernetes.nodes.values())[1]
    inventory = kubernetes.lab.inventory
    # As kubeadm leaves it: without the state.
    edit_etcd(kubernetes, node, "/initial-cluster-state/d")
    with stacked_writers(kubernetes, tmp_path) as writers:
        died = killed(prefect, inventory, f"{event}|{step.format(node.name)}", "harden_members")
        assert died.status == -9, died.output
        if listed(node) != FILES:
            checked = run_runbook(prefect, "check_health", inventory)
            assert "a run that did not end has taken" in checked.output
        ended = run_runbook(prefect, "harden_members", inventory)
    assert ended.status == 0, ended.output
    assert writers.check().lost == ()
    see_whole(kubernetes, prefect)


@pytest.mark.chaos
@pytest.mark.parametrize("step", REPLACE_STEPS)
@pytest.mark.parametrize("event", ["step-started", "step-finished"])
def test_a_killed_replacement_is_finished_by_the_next_run(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path, step: str, event: str
) -> None:
    """The member list and the manifests say how far it came."""
    node = kubernetes.first
    words = ("replace_member", "--member", node.name)
    wipe(kubernetes, node)
    with stacked_writers(kubernetes, tmp_path) as writers:
        point = f"{event}|{step.format(node.name)}"
        died = killed(prefect, kubernetes.lab.inventory, point, *words)
        assert died.status == -9, died.output
        ended = replace(prefect, kubernetes, node)
    assert ended.status == 0, ended.output
    assert writers.check().lost == ()
    see_whole(kubernetes, prefect)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_replacement_that_is_killed_at_each_step_in_turn_gets_through(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """Each run begins where the last one died, and dies at the next line; the last does not."""
    node, inventory = kubernetes.first, kubernetes.lab.inventory
    words = ("replace_member", "--member", node.name)
    wipe(kubernetes, node)
    with stacked_writers(kubernetes, tmp_path) as writers:
        for step in REPLACE_STEPS:
            for event in ("step-started", "step-finished"):
                # What is a run's second step of a name is this run's first.
                point = f"{event}|{step.format(node.name).partition('#')[0]}"
                died = killed(prefect, inventory, point, *words)
                assert died.status == -9, f"{point}: {died.output}"
        ended = replace(prefect, kubernetes, node)
    assert ended.status == 0, ended.output
    assert writers.check().lost == ()
    see_whole(kubernetes, prefect)


@pytest.mark.chaos
def test_a_member_leaves_and_comes_back_to_its_node(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """Its manifests lie beside their directory meanwhile; the others never pause."""
    node = list(kubernetes.nodes.values())[1]
    inventory = tmp_path / "even.yaml"
    inventory.write_text(f"even_members: true\n{kubernetes.lab.inventory.read_text()}")
    with stacked_writers(kubernetes, tmp_path) as writers:
        removed = run_runbook(prefect, "remove_member", inventory, "--member", node.name)
        assert removed.status == 0, removed.output
        assert "left to kubeadm: `kubeadm reset`" in removed.output
        assert not listed(node) & {"etcd.yaml", "kube-apiserver.yaml"}
        added = run_runbook(prefect, "add_member", inventory, "--member", node.name)
    assert added.status == 0, added.output
    assert writers.check().lost == ()
    assert f"initial-cluster={node.name}=https://{node.address}:2380\n" in initial(node)
    see_whole(kubernetes, prefect)


@pytest.mark.chaos
def test_a_member_moves_to_another_address_with_its_data(
    kubernetes: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """Manifest, annotation, certificates and list say the new one; the id stays, and so on again.

    It leads, and goes back to where it was at the end, since the others' tests know it there.
    """
    node = kubernetes.first
    leading = kubernetes.members()[node.name]["ID"]
    kubernetes.etcdctl("move-leader", f"{leading:x}")
    for new, old in move_there_and_back(kubernetes, prefect, node, tmp_path):
        text = (node.root / MANIFESTS[1:] / "etcd.yaml").read_text()
        assert f"etcd.advertise-client-urls: https://{new}:2379" in text
        assert f"--listen-client-urls=https://127.0.0.1:2379,https://{new}:2379" in text
        assert f"//{old}:" not in text


def test_a_node_without_power_leaves_the_list(
    kubernetes: KubernetesCluster, prefect: Prefect
) -> None:
    """Its stale member is removed, so that kubeadm can join it again; the rest is kubeadm's."""
    node = list(kubernetes.nodes.values())[2]
    node.power_cut()
    ended = replace(prefect, kubernetes, node)
    assert ended.status == 0, ended.output
    assert "kubeadm join --control-plane" in ended.output
    assert len(kubernetes.members()) == 2
