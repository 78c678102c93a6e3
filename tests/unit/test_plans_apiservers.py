"""What a plan says of API servers: for how long each is away, and which kubeconfigs wait for it."""

from __future__ import annotations

import pytest

from tasks.config.settings import read_settings
from tasks.model.nodes import NodeObservation
from tasks.plans.apiservers import name_kubeconfigs, warn_of_clients
from tests.unit.test_plans_hardening import manifest, node

ADDRESS = "10.0.0.1"
"""Of the node that the fixtures of kubeadm's manifests are of."""


def first(**kubeconfigs: str) -> NodeObservation:
    """See the first node, with kubeconfigs and the servers that they name."""
    names = {f"{name}.conf": server for name, server in kubeconfigs.items()}
    return node("m1", settings=read_settings(manifest("1.37")), kubeconfigs=names)


@pytest.mark.parametrize(
    ("server", "whose"),
    [
        ("https://ADDRESS:6443", "m1 alone"),
        ("https://m1:6443", "m1 alone"),
        ("https://127.0.0.1:6443", "m2 alone"),
        ("https://lb.example.org:6443", "which is no node's own address"),
    ],
)
def test_a_kubeconfig_that_asks_one_node_alone_is_told(server: str, whose: str) -> None:
    """By its address, its name, or the loopback of where the file is; a balancer is no node."""
    server = server.replace("ADDRESS", ADDRESS)
    other = node("m2", kubeconfigs={"admin.conf": server})
    assert f"m2: admin.conf asks {server}, {whose}" in warn_of_clients([first(), other])


def test_those_of_one_node_are_one_line() -> None:
    """Four files say the same."""
    url = f"https://{ADDRESS}:6443"
    told = warn_of_clients([first(admin=url, kubelet=url)])
    assert told[1:] == (f"m1: admin.conf, kubelet.conf ask {url}, m1 alone",)


def test_users_of_kubeconfigs_are_named_once_for_all_nodes() -> None:
    """They read a certificate at their start alone, and it is none of etcd's."""
    (said,) = name_kubeconfigs([node("m1"), node("m2"), node("m3", kubeconfigs={})])
    assert said.startswith("m1, m2: who uses admin.conf reads its client certificate once")
