"""Plans of upgrades: the order of each hop, what it waits for, and every finding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.member_settings import SettingsFiles
from tasks.model.members import Alarm, AlarmType, DesiredMember, Member
from tasks.model.plan import Plan, Severity
from tasks.model.upgrades import Accept, Change, LogRemnants, Translation, UpgradeSight
from tasks.plans.upgrade_findings import Weighed, find_down, find_findings
from tasks.plans.upgrade_routes import find_route, minor_of
from tasks.plans.upgrades import (
    AwaitVersion,
    EnableDowngrade,
    EndV2Api,
    UpgradeMember,
    Work,
    find_architecture,
    is_of_hop,
    plan_upgrade,
)
from tests.unit.plan_cases import NAMES, inventory

KNOWN = ("3.5.30", "3.6.16", "3.7.3")
MEMBERS = tuple(DesiredMember(n, f"https://{n}:2380", f"https://{n}:2379") for n in NAMES)
ROWS = tuple(Member(i, m.name, (m.peer_url,), (m.client_url,)) for i, m in enumerate(MEMBERS, 1))


def host(name: str, **changes: Any) -> UpgradeSight:  # noqa: ANN401 - any field
    """Make a host that runs 3.5.30 and has nothing to object to."""
    facts: dict[str, Any] = {
        "host": name,
        "running": "3.5.30",
        "disk": "3.5.30",
        "program": "/usr/local/bin/etcd",
        "real": PurePosixPath("/usr/local/bin/etcd"),
        "architecture": "x86_64",
        "owner": "",
        "is_own_unit": True,
        "free": 10 << 30,
        "data_free": 10 << 30,
        "quota": 0,
        "settings": SettingsFiles("etcd.service", name, ()),
    }
    return UpgradeSight(**{**facts, **changes})


def status(number: int, size: int = 1 << 20) -> EndpointStatus:
    """Make a member's answer; the first one leads."""
    return EndpointStatus(1, number, "3.5.30", 1, 2, 9, 9, size, size, revision=5)


def weighed(
    goal: str = "3.6.16",
    version: str = "3.5.30",
    hosts: dict[str, dict[str, Any]] | None = None,
    **changes: Any,  # noqa: ANN401 - any field
) -> Weighed:
    """Make a healthy cluster of three on its way to a version; change some of its hosts."""
    base = {"running": version, "disk": version}
    sights = {n: host(n, **{**base, **(hosts or {}).get(n, {})}) for n in NAMES}
    cluster = changes.pop("cluster", min(minor_of(sight.version) for sight in sights.values()))
    running = {name: sight.version for name, sight in sights.items()}
    endpoints = tuple(
        EndpointHealth(m.name, m.client_url, True, status(i), ROWS, reads=True)
        for i, m in enumerate(MEMBERS, 1)
    )
    facts: dict[str, Any] = {
        "health": ClusterHealth(endpoints, reads_linearizable=True),
        "work": Work(find_route(running, cluster, goal, KNOWN)),
    }
    return Weighed(goal, MEMBERS, cluster=cluster, hosts=sights, **{**facts, **changes})


def plan(seen: Weighed, leader: str = "m1") -> Plan:
    """Plan with a leader."""
    wanted = inventory(etcd={"version": seen.goal})
    return plan_upgrade(wanted, seen.hosts, seen.work, seen.cluster, leader, find_down(seen))


def upgrades(made: Plan) -> list[tuple[str | None, str, str | None]]:
    """List who becomes what, in the plan's order, and who leads then."""
    return [
        (step.host, step.version, step.successor)
        for step in made.in_order()
        if isinstance(step, UpgradeMember)
    ]


def test_the_leader_comes_last_and_hands_over_to_one_that_is_there() -> None:
    """In each hop; the one that takes over is the last of the next."""
    made = plan(weighed("3.7.3"))
    assert upgrades(made) == [
        ("m2", "3.6.16", "m3"),
        ("m3", "3.6.16", "m2"),
        ("m1", "3.6.16", "m2"),
        ("m1", "3.7.3", "m3"),
        ("m3", "3.7.3", "m1"),
        ("m2", "3.7.3", "m1"),
    ]
    kinds = [type(step).__name__ for step in made.in_order()]
    assert kinds[:6] == ["StagePrograms"] * 6
    hop = ["UpgradeMember"] * 3 + ["AwaitVersion", "CompareData"]
    assert kinds[6:] == hop * 2 + ["ClearPrograms"] * 3
    risen = [step.minor for step in made.steps if isinstance(step, AwaitVersion)]
    assert risen == [(3, 6), (3, 7)]


def test_a_mixed_cluster_is_gone_on_with() -> None:
    """Who runs it already is left alone; the one that was begun with and is down comes first."""
    seen = weighed(hosts={"m2": {"running": "3.6.16"}})
    assert [name for name, _, _ in upgrades(plan(seen))] == ["m3", "m1"]
    ill = replace(seen.health.endpoints[2], is_healthy=False, status=None, error="is down")
    health = ClusterHealth((*seen.health.endpoints[:2], ill), reads_linearizable=True)
    begun = weighed(hosts={"m3": {"running": None, "disk": "3.6.16"}}, health=health)
    assert find_down(begun) == {"m3"}
    assert not [f for f in find_findings(begun, ()) if f.severity is Severity.REFUSAL]
    down = weighed(hosts={"m3": {"running": None}}, health=health)
    assert any("bring it back first" in str(f) for f in find_findings(down, ()))


def test_a_run_that_died_between_hops_waits_for_the_clusters_version_first() -> None:
    """Etcd raises it some seconds after the last member; one that is two above it ends."""
    seen = weighed("3.7.3", "3.6.16", cluster=(3, 5))
    first = next(step for step in plan(seen).in_order() if step.stage.is_serial)
    assert isinstance(first, AwaitVersion)
    assert first.minor == (3, 6)
    down = weighed("3.5.30", "3.6.16", cluster=(3, 5))
    kinds = [type(step).__name__ for step in plan(down).in_order() if step.stage.is_serial]
    assert kinds[:3] == ["AwaitVersion", "EnableDowngrade", "UpgradeMember"]


def test_the_v2_api_ends_on_every_member_before_the_first_one_without_it() -> None:
    """What its clients write, on any member, ends who runs 3.6 already; 3.6 is never asked."""
    hosts = {name: {"has_v2_api": True} for name in NAMES}
    made = plan(weighed(hosts={**hosts, "m2": {}}))
    done = [(type(s).__name__, s.host) for s in made.in_order() if s.stage.is_serial]
    assert done[:2] == [("EndV2Api", "m3"), ("EndV2Api", "m1")]
    assert upgrades(made) == [
        ("m1", "3.6.16", "m3"), ("m3", "3.6.16", "m1"), ("m2", "3.6.16", "m1"),
    ]  # fmt: skip
    stays = plan(weighed("3.5.30", "3.5.16", hosts))
    above = plan(weighed("3.7.3", "3.6.16", hosts))
    assert not [s for one in (stays, above) for s in one.steps if isinstance(s, EndV2Api)]


def test_a_way_back_is_enabled_before_the_first_member() -> None:
    """Where the cluster's version has risen; not where it has not."""
    made = plan(weighed("3.5.30", "3.6.16"))
    kinds = [type(step) for step in made.in_order() if step.stage.is_serial]
    assert kinds[0] is EnableDowngrade
    mixed = plan(weighed("3.5.30", hosts={"m1": {"running": "3.6.16"}}))
    assert [name for name, _, _ in upgrades(mixed)] == ["m1"]
    assert not [s for s in mixed.steps if isinstance(s, EnableDowngrade | AwaitVersion)]


@pytest.mark.parametrize(
    ("start", "goal", "way"),
    [
        ("3.5.30", "3.7.3", ("3.6.16", "3.7.3")),
        ("3.7.3", "3.5.30", ("3.6.16", "3.5.30")),
    ],
)
def test_every_serial_step_is_of_one_hop(start: str, goal: str, way: tuple[str, ...]) -> None:
    """What the report tells of a hop is measured over all of it, its downgrade's beginning too."""
    made = plan(weighed(goal, start, {name: {"has_v2_api": True} for name in NAMES}))
    hops = [step for step in made.in_order() if step.stage.is_serial]
    assert len({type(step) for step in hops}) == 4
    for step in hops:
        of = [version for version in way if is_of_hop(step.heading, version)]
        assert of == [step.stage.title.split(",")[0].removeprefix("to ")], step


def test_nothing_is_to_do_where_all_run_the_version_and_nothing_is_left() -> None:
    """What a run that died has left is put right."""
    assert plan(weighed("3.5.30")).steps == ()
    left = plan(weighed("3.5.30", hosts={"m2": {"kept": ("/etc/etcd.conf",)}}))
    assert [name for name, _, _ in upgrades(left)] == ["m2"]
    beside = plan(weighed("3.5.30", hosts={"m2": {"staged": ("3.6.16",)}}))
    assert [(type(s).__name__, s.host) for s in beside.steps] == [("ClearPrograms", "m2")]


def one(name: str, **changes: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401 - any field
    """Change one host."""
    return {name: changes}


CHANGE = Change("experimental-x", "1", "x", "1", "/etc/etcd.conf:3")


@pytest.mark.parametrize(
    ("hosts", "accept", "said"),
    [
        (one("m1", owner="etcd-server"), Accept.PACKAGE, "is of the package etcd-server"),
        (one("m1", free=1 << 20), None, "1 MB are free beside its programs, and 300 are needed"),
        (one("m1", data_free=1 << 20), None, "1 MB are free beside its data, and 150 are needed"),
        (one("m1", log=LogRemnants(3, 1, has_keys=True)), None, "the v2 store holds keys"),
    ],
)
def test_what_a_host_has_against_it(
    hosts: dict[str, dict[str, Any]], accept: Accept | None, said: str
) -> None:
    """Refused with its host; what may be accepted is told all the same."""
    seen = weighed(hosts=hosts)
    (found,) = [f for f in find_findings(seen, ()) if f.severity is Severity.REFUSAL]
    assert found.host == "m1"
    assert said in found.sentence
    if accept:
        told = find_findings(seen, {accept})
        assert not [f for f in told if f.severity is Severity.REFUSAL]
        assert any(said in f.sentence for f in told)


def test_what_the_cluster_has_against_it() -> None:
    """An alarm, a full database, clients of the v2 API, settings, members noted as removed."""
    seen = weighed()
    full = replace(seen.health.endpoints[1], status=status(2, size=2 << 30))
    alarm = replace(seen.health.endpoints[2], alarms=(Alarm(3, AlarmType.NOSPACE),))
    health = ClusterHealth((seen.health.endpoints[0], full, alarm), reads_linearizable=True)
    work = Work(
        seen.work.route,
        {
            ("m1", "3.6.16"): Translation(seen.hosts["m1"].settings, (CHANGE,)),
            ("m2", "3.6.16"): Translation(seen.hosts["m2"].settings, (), ("/a:1: no",)),
        },
    )
    bad = replace(
        seen, health=health, work=work, clients={"m1": 7}, removed={"m3": ("m2",)},
        surprises=("m1 would not start again",), absent={"m9": "no route"},
    )  # fmt: skip
    said = "\n".join(str(f) for f in find_findings(bad, ()) if f.severity is Severity.REFUSAL)
    for sentence in (
        "alarm NOSPACE", "reclaim_space leads out",
        "of a quota of", "7 requests", "experimental-x=1 becomes x=1",
        'accept=["settings"]', "/a:1: no", "note m2 as removed", "would not start again",
        "m9: cannot be upgraded: no route",
    ):  # fmt: skip
        assert sentence in said


def test_what_is_only_told() -> None:
    """A foreign unit, a patch below what etcd asks for, writes of v2 clients in the log."""
    seen = weighed(
        version="3.4.23",
        hosts={"m1": {"is_own_unit": False}, "m2": {"log": LogRemnants(2, 2)}},
    )
    told = find_findings(seen, ())
    assert {f.severity for f in told} == {Severity.WARNING}
    said = "\n".join(map(str, told))
    assert "etcd asks for 3.5.32 before 3.6, and the way is over 3.5.30" in said
    assert "kubespray" in said
    assert "its log holds writes" in said


@pytest.mark.parametrize(("machine", "name"), [(0x3E, "x86_64"), (0xB7, "aarch64"), (0xF3, None)])
def test_for_which_machine_a_program_is(machine: int, name: str | None) -> None:
    """By ELF's header; of another kind of file nothing is known."""
    header = b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little") + bytes(44)
    assert find_architecture(header) == name
    assert find_architecture(b"MZ" + header) is None
