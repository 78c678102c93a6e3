"""Firewalls between members that drop what they do not let through, by iptables and nftables.

A way that is shut is named by pair, source and port, before anything is changed, and nobody waits
for it for long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.integration.odd import OddScene, write_inventory
from tests.integration.rotations import authority_digits

if TYPE_CHECKING:
    from tests.integration.runbooks import Prefect
    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.one_etcd, pytest.mark.timeout(300)]

LIMIT_SECONDS = 40.0
"""On a machine that many tests share; the ways themselves are given three."""
IPTABLES = "iptables -I INPUT -s {source} -p tcp --dport {port} -j DROP"
NFTABLES = (
    "nft add table inet lab; "
    "nft add chain inet lab shut '{{ type filter hook input priority 0; }}'; "
    "nft add rule inet lab shut ip saddr {source} tcp dport {port} "
)
NEW = NFTABLES + "ct state new drop"
"""As firewalls are written: what is established stays, so that health tells nothing."""


@dataclass(frozen=True, slots=True)
class Shut:
    """A way that a firewall of the target's shuts."""

    source: str
    target: str
    port: int
    rules: str

    @contextmanager
    def held(self, lab: Lab) -> Iterator[None]:
        """Let the firewall stand for the length of the block."""
        rules = self.rules.format(source=lab[self.source].address, port=self.port)
        lab[self.target].run(rules).check()
        try:
            yield
        finally:
            lab[self.target].run("iptables -F; nft flush ruleset").check()

    def told(self, lab: Lab) -> str:
        """Write the sentence that names it."""
        address = lab[self.target].address
        way = f"cannot reach {self.target} at {address} port {self.port} (timed out)"
        return f"{self.source}: {way}: a firewall drops it"


@pytest.fixture(scope="module")
def scene(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> OddScene:
    """Start three hosts of a cluster that is not yet, and a spare one."""
    lab = start_module_lab(hosts=4)
    path = tmp_path_factory.mktemp("firewalls") / "shut.yaml"
    return OddScene(lab, write_inventory(lab, path, list(lab.hosts)[:3], ""), prefect)


@pytest.fixture(scope="module")
def cluster(scene: OddScene) -> OddScene:
    """Bootstrap the cluster."""
    scene.run("bootstrap_cluster")
    return scene


def pairs(lab: Lab) -> list[str]:
    """Tell every member's pairs and authority."""
    hosts = [host for name, host in lab.hosts.items() if name != "master04"]
    return [host.run("cd /etc/etcd/ssl; sha256sum *").check().stdout for host in hosts]


Refuse = Callable[..., None]


@pytest.fixture
def refused(scene: OddScene) -> Refuse:
    """See a runbook refused for one way, soon, and for no other."""

    def refuse(shut: Shut, runbook: str, *words: str) -> None:
        with shut.held(scene.lab):
            began = time.monotonic()
            said = scene.run(runbook, *words, status=2).stderr
            assert time.monotonic() - began < LIMIT_SECONDS
        assert shut.told(scene.lab) in said, said
        assert said.count("cannot reach") == 1, said

    return refuse


@pytest.mark.parametrize("rules", [IPTABLES, NFTABLES + "drop"], ids=["iptables", "nftables"])
@pytest.mark.parametrize("port", [2379, 2380])
def test_before_the_first_start(refused: Refuse, scene: OddScene, port: int, rules: str) -> None:
    """Members would start and never find each other."""
    refused(Shut("master01", "master03", port, rules), "bootstrap_cluster")
    assert not scene.lab["master02"].run("ls -d /etc/etcd /usr/local/bin/etcd").stdout


@pytest.mark.parametrize("port", [2379, 2380])
def test_before_a_host_joins(refused: Refuse, cluster: OddScene, port: int) -> None:
    """In both directions: a learner that nobody reaches gets no log."""
    joins = ("replace_member", "--member", "master02", "--planned", "--replacement")
    refused(Shut("master04", "master01", port, NEW), *joins, cluster.joining("master04"))
    refused(Shut("master03", "master04", port, NEW), *joins, cluster.joining("master04"))
    assert not cluster.lab["master04"].run("ls -d /etc/etcd /usr/local/bin/etcd").stdout


def test_before_a_pair_or_an_authority_is_exchanged(refused: Refuse, cluster: OddScene) -> None:
    """What is established goes on, so that all are healthy until one of them is started anew."""
    shut = Shut("master03", "master02", 2380, NEW)
    before, authority = pairs(cluster.lab), authority_digits(cluster.lab.inventory)
    with shut.held(cluster.lab):
        cluster.run("check_health")
    refused(shut, "rotate_certificates", "--which", "all")
    refused(shut, "rotate_authority", "--replace", authority)
    assert pairs(cluster.lab) == before
    assert authority_digits(cluster.lab.inventory) == authority
    cluster.run("rotate_certificates", "--which", "all")


def test_clients_ports_between_running_members_may_be_shut(cluster: OddScene) -> None:
    """Members never use each other's."""
    with Shut("master01", "master02", 2379, NEW).held(cluster.lab):
        cluster.run("rotate_certificates", "--which", "all")
        cluster.run("check_health")
