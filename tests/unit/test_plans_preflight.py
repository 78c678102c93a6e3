"""Preflight: each reason as a row, with one thing of a healthy baseline changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tasks.model.machines import Host
from tasks.model.observation import (
    DataDirectory,
    Listener,
    Path,
    Program,
    Reachability,
    ServiceState,
    ServiceStatus,
)
from tasks.model.plan import Severity
from tasks.plans.preflight import find_reasons, find_unmoved_names, is_bound_elsewhere
from tests.unit.plan_cases import NAMES, bare, inventory, ways

REFUSAL, WARNING = Severity.REFUSAL, Severity.WARNING
ETCD = Listener(2379, "etcd", unit="etcd.service", is_own=True)
MASKED = ServiceStatus(ServiceState.INACTIVE, is_enabled=False, is_masked=True)


def test_nothing_is_found_on_healthy_hosts() -> None:
    """The no-op case."""
    assert find_reasons(inventory(), tuple(map(bare, NAMES)), ways()) == ()


@pytest.mark.parametrize(
    ("change", "severity", "says"),
    [
        ({"architecture": "riscv64"}, REFUSAL, "etcd supports"),
        ({"systemd_version": None}, REFUSAL, "does not run systemd"),
        ({"systemd_version": 215}, REFUSAL, "has systemd 215"),
        ({"service": MASKED}, REFUSAL, "systemctl unmask etcd.service"),
        ({"missing_tools": ("openssl", "ss")}, REFUSAL, "lacks openssl, ss"),
        ({"clock_offset": 2.0}, WARNING, "ahead of"),
        ({"clock_offset": 3600.0}, REFUSAL, "away from the runner's"),
        ({"disk_free": 1 << 20}, REFUSAL, "has only 1 MiB free"),
        ({"disk_free": 1 << 30}, WARNING, "1024 MiB free"),
        ({"fsync_mean": None}, REFUSAL, "took no test write"),
        ({"fsync_mean": 0.05}, WARNING, "50.0 ms"),
        ({"listeners": (Listener(2380, "nginx"),)}, REFUSAL, "port 2380 is taken by nginx"),
        (
            {"listeners": (Listener(2379, "etcd", "*", "a Kubernetes pod"),) * 2},
            REFUSAL,
            "port 2379 is taken by etcd of a Kubernetes pod; it is not",
        ),
        ({"programs": ()}, REFUSAL, "there is no /usr/local/bin/etcd"),
        ({"programs": (Program("etcd", "b", "3.4.1"),)}, REFUSAL, "is version 3.4.1"),
        ({"programs": (Program("etcd", "b", None),)}, REFUSAL, "is version unknown"),
        ({"resolved": {"m2": ()}}, WARNING, "does not resolve m2"),
        ({"hostname": "other"}, WARNING, "calls itself other"),
        ({"addresses": ("192.168.0.9",)}, REFUSAL, "does not have the address 10.0.0.1"),
    ],
)
def test_one_thing_that_is_wrong_is_found_on_its_host(
    change: dict[str, Any], severity: Severity, says: str
) -> None:
    """One finding, of the right severity, that names the host and what is wrong."""
    hosts = (bare("m1", **change), bare("m2"), bare("m3"))
    found = find_reasons(inventory(), hosts, ways())
    assert any(f.severity is severity and says in f.sentence and f.host == "m1" for f in found)
    assert {f.host for f in found} <= {"m1"}


def test_a_clock_that_is_behind_is_told_on_both_sides() -> None:
    """The one that is behind the runner, and the one that is ahead of it."""
    hosts = (bare("m1", clock_offset=-3600.0), bare("m2"), bare("m3"))
    found = find_reasons(inventory(), hosts, ways())
    assert {f.host for f in found} == {"m1", "m2"}
    assert all(f.severity is REFUSAL for f in found)


@pytest.mark.parametrize(
    "change",
    [
        {"listeners": (ETCD, Listener(22, "sshd"))},
        {"hostname": "m1.example.org"},
        {"hostname": "M1.Example.org"},
        {"clock_offset": 0.5},
        {"clock_offset": 30.0, "clock_uncertainty": 30.0},
        {"disk_free": 3 << 30},
        {"architecture": "aarch64"},
    ],
)
def test_what_is_fine_is_not_found(change: dict[str, Any]) -> None:
    """Etcd on its own port, a full host name, a clock within what can be known."""
    hosts = (bare("m1", **change), bare("m2"), bare("m3"))
    assert find_reasons(inventory(), hosts, ways()) == ()


@pytest.mark.parametrize(
    ("met", "says"),
    [
        (Reachability.TIMED_OUT, "drops"),
        (Reachability.REFUSED, "rejects"),
        (Reachability.WRONG_HOST, "two machines"),
    ],
)
def test_a_closed_way_is_refused_with_its_cause(met: Reachability, says: str) -> None:
    """Source, target and port are named."""
    paths = (Path("m1", "m2", "10.0.0.2", 2380, met), *ways()[1:])
    (found,) = find_reasons(inventory(), tuple(map(bare, NAMES)), paths)
    assert found.severity is REFUSAL
    assert found.host == "m1"
    assert "m2 at 10.0.0.2 port 2380" in found.sentence
    assert says in found.sentence


def test_a_member_whose_name_is_elsewhere_does_not_move() -> None:
    """It would listen where nobody looks for it; its own host may know its name as local."""
    moved = Host(name="m1", address="10.0.0.9", peer_address="m1.example")
    known = {"m1": "127.0.1.1", "m2": "10.0.0.9", "m3": "10.0.0.1"}
    seen = [bare(name, resolved={"m1.example": (at,)}) for name, at in known.items()]
    (found,) = find_unmoved_names(moved, seen)
    assert (found.host, found.severity) == ("m3", REFUSAL)
    assert "has m1.example at 10.0.0.1; let it resolve to 10.0.0.9 there" in found.sentence
    addressed = Host(name="m1", address="10.0.0.9", peer_address="10.0.0.9")
    assert list(find_unmoved_names(addressed, seen)) == []


def test_an_even_number_is_refused_unless_it_is_on_purpose() -> None:
    """It tolerates no more failures than one fewer."""
    hosts = [{"name": n, "address": f"10.0.0.{i}"} for i, n in enumerate(NAMES[:2], 1)]
    observed = (bare("m1"), bare("m2"))
    (found,) = find_reasons(inventory(hosts=hosts), observed, ())
    assert found.severity is REFUSAL
    (found,) = find_reasons(inventory(hosts=hosts, even_members=True), observed, ())
    assert found.severity is WARNING


def test_all_findings_come_at_once_and_refusals_first() -> None:
    """Not the first alone."""
    hosts = (
        bare("m1", hostname="other"),
        bare("m2", missing_tools=("openssl",)),
        bare("m3", systemd_version=None),
    )
    found = find_reasons(inventory(), hosts, ways())
    assert [f.severity for f in found] == [REFUSAL, REFUSAL, WARNING]


def test_a_running_members_full_disk_does_not_refuse_a_second_run() -> None:
    """What is there already needs no room."""
    running = replace(bare("m1", disk_free=1 << 20), data=DataDirectory.INITIALISED)
    found = find_reasons(inventory(), (running, bare("m2"), bare("m3")), ways())
    assert [f.severity for f in found] == [WARNING]


@pytest.mark.parametrize(("listeners", "met", "bound"), [
    ((Listener(2380, "etcd", "10.0.0.1", is_own=True),), Reachability.REFUSED, True),
    ((Listener(2380, "etcd", "10.0.0.1", is_own=True),), Reachability.TIMED_OUT, False),
    ((Listener(2380, "etcd", "0.0.0.0", is_own=True),), Reachability.REFUSED, False),
    ((Listener(2380, "etcd", "10.0.0.9", is_own=True),), Reachability.REFUSED, False),
    ((Listener(2380, "etcd", "10.0.0.1"),), Reachability.REFUSED, False),
    ((), Reachability.REFUSED, False),
])  # fmt: skip
def test_loopback_listener_refuses_at_an_address_that_is_to_come(
    listeners: tuple[Listener, ...], met: Reachability, bound: bool
) -> None:
    """Etcd that is bound to its present address alone is no firewall."""
    host = replace(bare(NAMES[0]), listeners=listeners)
    assert is_bound_elsewhere(Path(NAMES[1], NAMES[0], "10.0.0.9", 2380, met), host) is bound


def test_an_ipv6_address_is_had_however_it_is_written() -> None:
    """The inventory's need not be the shortest form, which the host tells."""
    hosts = [{"name": n, "address": f"FD77:0:0::{i}"} for i, n in enumerate(NAMES, 1)]
    seen = [bare(n, addresses=(f"fd77::{i}",)) for i, n in enumerate(NAMES, 1)]
    assert find_reasons(inventory(hosts=hosts), tuple(seen), ways()) == ()
