"""What is tried before a plan begins: what its own steps write, and nothing that no step writes."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from tasks.model.plan import Plan, Stage, Step
from tasks.plans.dependents import TellHook, UpdateApiserver, UpdateHaproxy
from tasks.plans.hardening import HardenMember
from tasks.plans.leaves import StageLeaves, SwapLeaves
from tasks.plans.member_changes import RefreshConfiguration
from tasks.plans.succession import MakeSuccessor, RestartMember, WriteTrust
from tasks.plans.trials import find_places
from tests.unit.plan_cases import inventory

BACKUPS = "/var/backups/etcd-runbooks"
NOTES = "/var/lib/etcd-runbooks"
MANIFESTS = {"/etc/kubernetes/manifests/etcd.yaml", "/etc/kubernetes/etcd-runbooks/etcd.yaml"}
SUCCESSOR = {"/etc/kubernetes/pki/etcd/ca.next.crt", "/etc/kubernetes/pki/etcd/ca.next.key"}
LISTING: dict[str, Any] = {
    "clients": [{"name": "app", "managed": False}],
    "kube_apiservers": [
        {"name": "api", "address": "10.0.0.9", "manifest": "/etc/kubernetes/manifests/api.yaml"}
    ],
    "load_balancers": [
        {"name": "lb", "address": "10.0.0.8", "haproxy": {"backend": "etcd"}},
        {"name": "hook", "address": "10.0.0.7", "hook": "true"},
    ],
}


def planned(kind: type[Step], host: str | None = "m1", **more: object) -> Plan:
    """Make a plan of one step."""
    about: dict[str, Any] = {"stage": Stage(1, "s"), "host": host, "sentence": "", **more}
    return Plan("r", "c1", "", (kind(**about),))


@pytest.mark.parametrize(
    ("plan", "places"),
    [
        (planned(RestartMember), {}),
        (planned(StageLeaves, name="m1", labels=()), {}),
        (planned(WriteTrust, name="m1", both=True), {}),
        (planned(MakeSuccessor, host=None), {}),
        (planned(StageLeaves, host="app", name="app", labels=()), {"app": {NOTES}}),
        (planned(WriteTrust, name="app", both=True), {"m1": {NOTES}}),
        (
            planned(UpdateApiserver, host="api", text="", servers=""),
            {"api": {"/etc/kubernetes/manifests/api.yaml"}},
        ),
        (planned(UpdateHaproxy, host="lb", text=""), {"lb": {"/etc/haproxy/haproxy.cfg"}}),
        (planned(TellHook, host="hook", endpoints=""), {"hook": {NOTES}}),
        (planned(RefreshConfiguration), {"m1": {"/etc/etcd.env"}}),
    ],
)
def test_a_plan_s_own_places_are_tried(plan: Plan, places: dict[str, set[str]]) -> None:
    """Where an external member's own files are, the first look has tried."""
    found = find_places(plan, inventory(**LISTING), {"m1": ("/etc/etcd.env",), "m2": ("/x",)})
    assert found == as_paths(places)


@pytest.mark.parametrize(
    ("plan", "places"),
    [
        (planned(HardenMember), {"m1": MANIFESTS}),
        (planned(SwapLeaves, name="m1", labels=()), {}),
        (planned(StageLeaves, name="m1", labels=()), {"m1": {NOTES}}),
        (planned(WriteTrust, name="m1", both=True), {"m1": {NOTES}}),
        (planned(MakeSuccessor, host=None), dict.fromkeys(("m1", "m2", "m3"), SUCCESSOR)),
    ],
)
def test_a_node_s_places_are_those_of_its_pods_and_authority(
    plan: Plan, places: dict[str, set[str]]
) -> None:
    """A manifest goes out beside its directory, and an authority is made where the old one is."""
    assert find_places(plan, inventory(topology="stacked")) == as_paths(places)


def as_paths(places: dict[str, set[str]]) -> dict[str, frozenset[PurePosixPath]]:
    """Make them paths; what is replaced goes to the backups, which are tried with any."""
    return {
        name: frozenset(PurePosixPath(path) for path in {*paths, BACKUPS})
        for name, paths in places.items()
    }
