"""etcd of kubeadm's own nodes upgraded by kubeadm itself, with the commands that are said here.

The nodes are of one release of kubeadm, whose manifests have the etcd of an older one: as a cluster
is whose programs of Kubernetes are new already. What kubeadm is told besides is the lab's: there is
no network plugin, so no node is ready and no job runs, and no registry.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.integration.runbooks import Prefect, run_runbook
from tests.integration.stacked import eventually, gaps, stacked_writers
from tests.integration.stacked_upgrades import (
    aim_at,
    give_image,
    pin,
    upgrade,
    version_on,
    versions,
)
from tests.lab.etcd_programs import ETCD_3_6
from tests.lab.kubernetes.cluster import MANIFESTS, KubernetesCluster
from tests.lab.kubernetes.images import list_names
from tests.lab.kubernetes.programs import KUBERNETES_1_37, get_kubernetes
from tests.lab.kubernetes.watch import ApiWatch
from tests.lab.lab import Lab

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.runbooks import Ended
    from tests.lab.host import Host

pytest_plugins = ["tests.lab.kubernetes.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.chaos, pytest.mark.timeout(1500)]

GOAL = "3.7.0"
"""What the tag says that 1.37.2 brings; the lab's own image has another version under it."""

OPTIONS = f"""\
etcd: {{local: {{imageTag: {ETCD_3_6}-0}}}}
dns: {{disabled: true}}
proxy: {{disabled: true}}
"""

IGNORED = (
    "CreateJob,ControlPlaneNodesReady,ImagePull,SystemVerification,"
    "CoreDNSMigration,CoreDNSUnsupportedPlugins"
)
"""Of kubeadm's preflight, what this lab has not: its addons are none either."""

KUBEADM_SECONDS = 400.0

BACKUP = "/etc/kubernetes/tmp/kubeadm-backup-manifests-2026-01-01-00-00-00"


@pytest.fixture(scope="module")
def older(kubernetes_version: str) -> Iterator[KubernetesCluster]:
    """Three nodes with the etcd of an older kubeadm, and the image of their own there."""
    if kubernetes_version != KUBERNETES_1_37:
        pytest.skip("etcd 3.6.16, the older one here, is newer than what this kubeadm brings")
    programs = get_kubernetes(kubernetes_version).programs
    with Lab.start(kubernetes=kubernetes_version, hosts=3) as lab:
        cluster = KubernetesCluster(lab)
        for node in cluster.nodes.values():
            node.run("systemctl start containerd").check()
        give_image(cluster, ETCD_3_6)
        give_image(cluster, GOAL, list_names(kubernetes_version, programs)["etcd"])
        cluster = KubernetesCluster.form(lab, OPTIONS)
        pin(cluster, None)
        yield cluster


def kubeadm(node: Host, command: str) -> str:
    """Type a command of kubeadm's on a node, with what this lab needs."""
    words = f"{command} --ignore-preflight-errors={IGNORED}"
    if " apply " in command:
        words += " --yes"
    ended = node.run(words, timeout=KUBEADM_SECONDS)
    said = f"{ended.stdout}{ended.stderr}"
    print(f"\n{node.name}# {words}\n{said}")  # noqa: T201 - for whoever runs it with -s
    assert ended.status == 0, said
    return said


def look(prefect: Prefect, inventory: Path, *runbooks: str) -> dict[str, Ended]:
    """Ask several runbooks what they see."""
    found = {}
    for name in runbooks:
        options = ("--dry-run",) if name == "upgrade_cluster" else ()
        found[name] = run_runbook(prefect, name, inventory, *options)
        print(f"\n{name}: {found[name].status}\n{found[name].output}")  # noqa: T201 - as above
    return found


def test_the_commands_of_kubeadm_s_that_are_said_bring_the_version(
    older: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """Typed as they stand, looked at before, between and after; no write is lost.

    On the second node kubeadm is killed while the kubelet exchanges etcd's pod, and typed again; on
    the third the power fails between its two renames: the manifest is in its backup alone.
    """
    inventory = aim_at(older, GOAL, tmp_path)
    told = look(prefect, inventory, "upgrade_cluster", "check_health")
    assert told["check_health"].status == 0
    assert told["upgrade_cluster"].status == 2
    apply, node_command = commands(told["upgrade_cluster"])
    assert apply == f"kubeadm upgrade apply v{older.version}"
    first, second, third = older.nodes.values()
    kubeadm(first, "kubeadm upgrade plan")
    with stacked_writers(older, tmp_path) as writers, ApiWatch(older) as watch:
        began = time.monotonic()
        kubeadm(first, apply)
        print(f"apply: {time.monotonic() - began:.0f} s")  # noqa: T201 - a figure
        see_begun(older, prefect, inventory, first)

        kill_kubeadm(second, node_command)
        look(prefect, inventory, "check_health", "upgrade_cluster", "diagnose")
        older.wait_until_ready()
        assert version_on(older, second) == GOAL
        kubeadm(second, node_command)
        see_begun(older, prefect, inventory, second)

        lose_manifest(older, third)
        look(prefect, inventory, "check_health", "upgrade_cluster", "diagnose")
        third.run(f"mv {BACKUP}/etcd.yaml /{MANIFESTS}/").check()
        older.wait_until_ready()
        began = time.monotonic()
        kubeadm(third, node_command)
        print(f"node: {time.monotonic() - began:.0f} s")  # noqa: T201 - a figure
        older.wait_until_ready()
    facts = f"{gaps(writers)}; {watch.report()}; {os.getloadavg()[0]:.0f}"
    print(f"\nto {GOAL} by kubeadm: {facts}")  # noqa: T201 - the figures
    assert writers.check().lost == ()
    assert versions(older) == {GOAL}
    after = look(prefect, inventory, "check_health", "upgrade_cluster")
    assert after["check_health"].status == 0
    again = upgrade(prefect, inventory)
    assert again.status == 0, again.output
    assert "nothing to do" in again.output


def commands(told: Ended) -> list[str]:
    """Read the commands that change something out of a refusal."""
    said = " ".join(told.output.split())
    return re.findall(r"`(kubeadm upgrade (?:apply|node)[^`]*)`", said)


def see_begun(cluster: KubernetesCluster, prefect: Prefect, inventory: Path, last: Host) -> None:
    """See a node of the new version among others, all healthy, and what is said of the rest."""
    cluster.wait_until_ready()
    assert version_on(cluster, last) == GOAL
    told = look(prefect, inventory, "upgrade_cluster", "check_health")
    assert told["check_health"].status == 0
    assert told["upgrade_cluster"].status == 2
    assert set(commands(told["upgrade_cluster"])) == {"kubeadm upgrade node"}


def kill_kubeadm(node: Host, command: str) -> None:
    """Let a node's upgrade die after the new manifest is in, before its etcd is."""
    log = node.root / "var/tmp/kubeadm.log"
    command = f"{command} --ignore-preflight-errors={IGNORED}"
    node.run(f"nohup {command} > /var/tmp/kubeadm.log 2>&1 < /dev/null &").check()
    eventually(lambda: "Waiting for the kubelet to restart the component" in log.read_text())
    node.run("pkill -9 -x kubeadm").check()


def lose_manifest(cluster: KubernetesCluster, node: Host) -> None:
    """Leave etcd's manifest where kubeadm has moved it to before it moves the new one in."""
    node.run(f"mkdir -p -m 0700 {BACKUP}; mv /{MANIFESTS}/etcd.yaml {BACKUP}/").check()
    eventually(lambda: cluster.process(node, "etcd") is None)
