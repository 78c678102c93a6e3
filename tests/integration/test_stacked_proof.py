"""The figures of kubeadm's own nodes under writers, with 100 MB in etcd; printed, and bounded."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.integration.handshakes import Handshakes
from tests.integration.runbooks import Prefect, run_runbook
from tests.integration.stacked import (
    gaps,
    put_many,
    stacked_writers,
    take_api_servers_out,
    wipe,
)
from tests.lab.kubernetes.watch import ApiWatch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.kubernetes.cluster import KubernetesCluster

pytest_plugins = ["tests.lab.kubernetes.fixtures", "tests.integration.fixtures"]
pytestmark = [
    pytest.mark.lab,
    pytest.mark.one_etcd,
    pytest.mark.chaos,
    pytest.mark.timeout(1500),
]

MEGABYTES = 100


@pytest.fixture(scope="module")
def filled(
    kubernetes: KubernetesCluster, tmp_path_factory: pytest.TempPathFactory
) -> KubernetesCluster:
    """Fill etcd with what nothing makes smaller."""
    directory = tmp_path_factory.mktemp("fill") / "client"
    put_many(kubernetes, kubernetes.first, directory, MEGABYTES, 1 << 20)
    return kubernetes


def tell(what: str, began: float, *said: object) -> None:
    """Print what was seen."""
    load = os.getloadavg()[0]
    facts = "; ".join(map(str, said))
    print(f"\n{what}: {time.monotonic() - began:.1f} s; {facts}; load {load:.0f}")  # noqa: T201


def test_leaves_and_the_authority(
    filled: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """No restart for leaves; for the authority one of each, and never none ready."""
    inventory, processes = filled.lab.inventory, filled.processes()
    files = filled.client_files(tmp_path / "handshakes")
    addresses = {name: node.address for name, node in filled.nodes.items()}
    digest = "openssl x509 -noout -fingerprint -sha256 -in /etc/kubernetes/pki/etcd/ca.crt"
    said = filled.first.run(digest).check().stdout
    old = said.rpartition("=")[2].replace(":", "").strip().lower()
    for what, words in (
        ("rotate_certificates", ("--which", "all")),
        ("rotate_authority", ("--replace", old)),
    ):
        writers, watch = stacked_writers(filled, tmp_path / what, 6), ApiWatch(filled)
        handshakes = Handshakes(addresses, files, follows=True)
        began = time.monotonic()
        with writers, watch, handshakes:
            ended = run_runbook(prefect, what, inventory, *words)
        assert ended.status == 0, ended.output
        seen, rejected = (
            watch.report(),
            [
                text
                for texts in handshakes.refused.values()
                for text in texts
                if "alert" in text.lower() or "certificate" in text.lower()
            ],
        )
        restarted = sum(
            before != after
            for before, after in zip(
                (p for node in processes.values() for p in node.values()),
                (p for node in filled.processes().values() for p in node.values()),
                strict=True,
            )
        )
        tell(what, began, gaps(writers), seen, handshakes.done, rejected, f"{restarted} restarted")
        assert writers.check().lost == ()
        assert rejected == []
        # One that is slow to answer on a busy machine is no failure of etcd's.
        if what == "rotate_certificates":
            assert restarted == 0
            assert not any("500" in texts for texts in seen.refused.values())
        else:
            assert restarted == 2 * len(filled.nodes)
            assert seen.longest_without_any == 0


def test_a_dead_first_member_with_every_api_server_down(
    filled: KubernetesCluster, prefect: Prefect, tmp_path: Path
) -> None:
    """One run, from no API server at all to full health."""
    take_api_servers_out(filled)
    wipe(filled, filled.first)
    writers, began = stacked_writers(filled, tmp_path, 6), time.monotonic()
    with writers:
        words = ("--member", filled.first.name)
        ended = run_runbook(prefect, "replace_member", filled.lab.inventory, *words)
    assert ended.status == 0, ended.output
    assert "as a learner" in ended.output
    told = [line.strip() for line in ended.output.splitlines() if "full health" in line]
    tell("replace_member", began, gaps(writers), *told)
    assert writers.check().lost == ()
    filled.wait_until_ready(seconds=30)
