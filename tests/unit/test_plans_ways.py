"""Ways between control-plane nodes that a firewall closes: found before the first change."""

from __future__ import annotations

import pytest

from tasks.model.nodes import Kubelet
from tasks.model.observation import Path, Reachability
from tasks.model.plan import Severity
from tasks.plans.nodes import find_even, find_hindrances, find_obstructions
from tasks.plans.ways import find_closed
from tests.unit.test_plans_hardening import node, stacked

OPEN, REFUSED, TIMED_OUT = Reachability.OPEN, Reachability.REFUSED, Reachability.TIMED_OUT
STOPPED = Kubelet(False, None, "https://m:6443", False, None)
HERE = {"kubelet": "1.37.2", "kubeadm": "1.37.2", "containerd": "1.6.20"}


def ways(port: int, *met: Reachability) -> tuple[Path, ...]:
    """Let m1, m2, ... meet something at a port of m3."""
    return tuple(Path(f"m{n}", "m3", "10.0.0.3", port, one) for n, one in enumerate(met, 1))


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (ways(2380, OPEN, OPEN), []),
        (ways(2380, OPEN, TIMED_OUT), [("m2", Severity.REFUSAL)]),
        (ways(2380, OPEN, REFUSED), [("m2", Severity.REFUSAL)]),
        (ways(2380, REFUSED, REFUSED), []),
        (ways(2379, TIMED_OUT, OPEN), [("m1", Severity.WARNING)]),
        (ways(6443, OPEN, TIMED_OUT), [("m2", Severity.WARNING)]),
    ],
    ids=["open", "dropped", "rejected", "nobody listens", "etcd's clients", "the API server"],
)
def test_what_a_firewall_closes(paths: tuple[Path, ...], found: list[tuple[str, Severity]]) -> None:
    """The peers' port forbids a change; a port where nobody listens is no firewall's."""
    closed = find_closed(stacked(), paths)
    assert [(each.host, each.severity) for each in closed] == found
    assert all("cannot reach m3 at 10.0.0.3 port" in each.sentence for each in closed)


@pytest.mark.parametrize(
    ("lacking", "said"),
    [("kubelet", "no kubelet"), ("containerd", "no container runtime"), ("kubeadm", None)],
)
def test_a_node_without_what_starts_pods_is_not_changed(lacking: str, said: str | None) -> None:
    """What runs all the same is there under another name; kubeadm is needed for the rest alone."""
    seen = node("m1", versions=HERE | {lacking: None})
    idle = node("m1", versions=HERE | {lacking: None}, kubelet=STOPPED)
    found = find_hindrances(idle, stacked())
    assert len(found) == bool(said)
    assert said is None or said in found[0]
    warned = [
        f.sentence
        for f in find_obstructions(stacked(), [seen], {"m1"})
        if "no kubeadm" in f.sentence
    ]
    assert bool(warned) == (lacking == "kubeadm")


@pytest.mark.parametrize("may_restart", [True, False])
def test_a_deaf_kubelet_that_may_not_be_restarted_is_found_first(*, may_restart: bool) -> None:
    """Else a change stops it and starts it again."""
    inventory = stacked().model_copy(update={"restarts_kubelet": may_restart})
    deaf = node("m1", kubelet=Kubelet(True, "/etc/kubernetes/manifests", "https://m", False, False))
    found = find_hindrances(deaf, inventory)
    assert [("systemctl restart kubelet" in said) for said in found] == [True] * (not may_restart)


def test_an_even_number_is_told_before_members_are_restarted() -> None:
    """Four bear no more than three."""
    (said,) = find_even(4)
    assert said.severity is Severity.WARNING
    assert said.sentence == "4 control planes bear no more failures than 3: 1"
    assert find_even(3) == ()
