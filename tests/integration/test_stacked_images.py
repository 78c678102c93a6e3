"""Where the images of kubeadm's own nodes come from: a registry, and who says which.

The first test wants the nodes as kubeadm leaves them; the others bring them to where they begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.engine.journal import read_journal
from tests.integration.runbooks import Prefect, run_runbook
from tests.integration.stacked_upgrades import (
    BINDING,
    CONFIGURATION,
    aim_at,
    gone,
    image,
    image_files,
    pin,
    upgrade,
)
from tests.integration.test_stacked_upgrades import MANIFEST, bring, other, see_whole
from tests.lab.etcd_programs import ETCD_3_6, ETCD_3_7
from tests.lab.kubernetes.registry import Fault, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.kubernetes.cluster import KubernetesCluster

pytest_plugins = ["tests.lab.kubernetes.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.chaos, pytest.mark.timeout(900)]

TAKEN = "take the API server and etcd out on {}"
NO_CONFIGURATION = "no ConfigMap kube-system/kubeadm-config"


@pytest.fixture(scope="module")
def registry(kubernetes: KubernetesCluster) -> Iterator[Registry]:
    """Let the nodes have a registry with both versions, of which they have no image."""
    with Registry(kubernetes.lab.gateway) as registry:
        for version in (ETCD_3_6, ETCD_3_7):
            registry.add(image(version), image_files(version))
        registry.serve(*kubernetes.nodes.values())
        yield registry


@pytest.fixture
def goal(kubernetes: KubernetesCluster) -> str:
    """Name the version that kubeadm does not bring."""
    return other(kubernetes.lab.record.etcd)


def manifests(kubernetes: KubernetesCluster) -> dict[str, str]:
    """Read etcd's manifest on each node."""
    return {name: node.run(["cat", MANIFEST]).stdout for name, node in kubernetes.nodes.items()}


def see_untouched_checks(prefect: Prefect, inventory: Path) -> None:
    """See that what reads alone says nothing else than ever."""
    checked = run_runbook(prefect, "check_health", inventory)
    assert checked.status == 0, checked.output
    told = run_runbook(prefect, "diagnose", inventory)
    assert told.status == 0, told.output
    assert "kubeadm-config" not in checked.output + told.output


def test_a_tag_that_does_not_tell_the_version_needs_kubeadms_word(
    kubernetes: KubernetesCluster, prefect: Prefect, goal: str, tmp_path: Path
) -> None:
    """Kubeadm's own tag is not etcd's version in the lab; without the ConfigMap nobody tells."""
    before, inventory = kubernetes.processes(), aim_at(kubernetes, goal, tmp_path)
    with gone(kubernetes, CONFIGURATION):
        see_untouched_checks(prefect, kubernetes.lab.inventory)
        refused = upgrade(prefect, inventory, "--dry-run")
    print(refused.output)  # noqa: T201 - what an operator reads
    assert refused.status != 0
    assert f"and there is {NO_CONFIGURATION} that says it" in refused.output
    with gone(kubernetes, BINDING):
        see_untouched_checks(prefect, kubernetes.lab.inventory)
        refused = upgrade(prefect, inventory, "--dry-run")
    print(refused.output)  # noqa: T201 - what an operator reads
    assert refused.status != 0
    assert "does not let nodes read the ConfigMap" in refused.output
    assert "bring one back" not in refused.output
    assert kubernetes.processes() == before


@pytest.mark.parametrize("fault", Fault)
def test_an_image_that_one_node_cannot_have_changes_nothing(
    kubernetes: KubernetesCluster,
    prefect: Prefect,
    registry: Registry,
    goal: str,
    tmp_path: Path,
    fault: Fault,
) -> None:
    """No manifest is touched on any node, and the reason is the runtime's."""
    bring(kubernetes, prefect, kubernetes.lab.record.etcd, tmp_path)
    node = list(kubernetes.nodes.values())[-1]
    node.run(["crictl", "rmi", image(goal)])
    pin(kubernetes, f"{goal}-0")
    registry.faults[node.address] = fault
    before, text = kubernetes.processes(), manifests(kubernetes)
    failed = upgrade(prefect, aim_at(kubernetes, goal, tmp_path))
    registry.faults.clear()
    print(failed.output)  # noqa: T201 - what an operator reads
    assert failed.status != 0
    assert f"{node.name}: {image(goal)} cannot be had there" in failed.output
    assert "no member has been touched" in failed.output
    assert (kubernetes.processes(), manifests(kubernetes)) == (before, text)


def test_an_image_is_pulled_on_all_nodes_before_a_manifest_is_touched(
    kubernetes: KubernetesCluster, prefect: Prefect, registry: Registry, goal: str, tmp_path: Path
) -> None:
    """From the registry that its name says, or that the runtime has in its place."""
    bring(kubernetes, prefect, kubernetes.lab.record.etcd, tmp_path)
    for node in kubernetes.nodes.values():
        node.run(["crictl", "rmi", image(goal)])
    registry.asked.clear()
    before = prefect.journals
    bring(kubernetes, prefect, goal, tmp_path)
    assert set(registry.asked) == {node.address for node in kubernetes.nodes.values()}
    lines = [
        f"{record.event}|{record.details.get('step', '')}"
        for journal in prefect.journals
        if journal not in before
        for record in read_journal(journal)
    ]
    fetched = [lines.index(f"step-finished|have the image on {name}") for name in kubernetes.nodes]
    out = [lines.index(f"step-started|{TAKEN.format(name)}") for name in kubernetes.nodes]
    assert max(fetched) < min(out)


@pytest.mark.usefixtures("registry")
def test_without_kubeadms_configuration_the_versions_in_the_tags_are_changed(
    kubernetes: KubernetesCluster, prefect: Prefect, goal: str, tmp_path: Path
) -> None:
    """It is told that kubeadm has lost it, before and after a whole run."""
    bring(kubernetes, prefect, goal, tmp_path)
    own = kubernetes.lab.record.etcd
    inventory = aim_at(kubernetes, own, tmp_path)
    with gone(kubernetes, CONFIGURATION):
        dry = upgrade(prefect, inventory, "--dry-run")
        assert dry.status == 0, dry.output
        print(dry.output)  # noqa: T201 - what an operator reads
        assert NO_CONFIGURATION in dry.output
        assert image(own) in dry.output
        ended = upgrade(prefect, inventory)
        assert ended.status == 0, ended.output
        see_whole(kubernetes, prefect, inventory, own)
    for text in manifests(kubernetes).values():
        assert f"image: {image(own)}\n" in text
