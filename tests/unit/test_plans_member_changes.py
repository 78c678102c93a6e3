"""What a change of the members does to hosts: whose data goes, whose stays, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.errors import Refused
from tasks.model.members import DesiredMember, Member, SeenMember
from tasks.model.observation import DataDirectory, HostObservation, ServiceState, ServiceStatus
from tasks.model.plan import Plan
from tasks.model.pointers import pointer
from tasks.plans.agreement import find_gone, refuse_disagreement
from tasks.plans.health import order_sources
from tasks.plans.member_changes import AwaitHost, goal_members, plan_members
from tasks.plans.member_hosts import (
    find_leavers,
    settle_in_place,
    version_findings,
    warn_of_hosts,
)
from tests.unit.plan_cases import bare, inventory, target

INVENTORY = inventory()
RUNNING = ServiceStatus(ServiceState.ACTIVE, is_enabled=True)
STOPPED = ServiceStatus(ServiceState.FAILED, is_enabled=True)


def wanted(name: str, address: str) -> DesiredMember:
    """Make a member at an address."""
    return DesiredMember(name, f"https://{address}:2380", f"https://{address}:2379")


def seen(
    number: int,
    *,
    up: bool = True,
    learner: bool = False,
    started: bool = True,
    address: str | None = None,
) -> SeenMember:
    """Make a row of the member list."""
    at = wanted(f"m{number}", address or f"10.0.0.{number}")
    urls = (at.client_url,) if started else ()
    name = at.name if started else ""
    return SeenMember(
        Member(100 + number, name, (at.peer_url,), urls, learner), up and started, version="3.5.16"
    )


def plan(
    live: tuple[SeenMember, ...],
    host: HostObservation,
    *,
    word: str = "m3",
    joins: DesiredMember | None = None,
    planned: bool = False,
) -> Plan:
    """Plan to replace the member that `word` calls, by the host that was observed."""
    joining = (joins or wanted("m3", "10.0.0.3"),)
    leavers = find_leavers((word,), INVENTORY, live, joining)
    leavers = settle_in_place(leavers, live, joining, planned=planned)
    return plan_members(
        "replace_member",
        INVENTORY,
        live,
        leavers,
        joining,
        {"m1": bare("m1"), host.host: host},
        {host.host: target(host.host)},
        planned=planned,
        configured=frozenset({host.host}) if host.configuration else frozenset(),
        outdated={},
    )


def kinds(made: Plan) -> list[str]:
    """Name the steps, without what prepares a bare host."""
    prepares = {"MakeAccount", "InstallPrograms", "MakeDirectories", "IssueCertificates"}
    names = [type(step).__name__ for step in made.steps]
    return [name for name in names if name not in prepares]


DEAD = (seen(1), seen(2), seen(3, up=False))
JOIN = ["AddLearner", "JoinMember", "PromoteMember"]


@pytest.mark.parametrize("service", [STOPPED, RUNNING])
def test_old_data_on_the_same_machine_is_set_aside_before_it_joins_anew(
    service: ServiceStatus,
) -> None:
    """The dead member's data is not started again under another id."""
    host = bare("m3", data=DataDirectory.INITIALISED, service=service)
    made = plan(DEAD, host)
    assert kinds(made) == ["RetireHost", "RemoveMember", *JOIN]
    assert "with the data" not in "".join(step.sentence for step in made.steps)


def test_a_bare_machine_has_nothing_to_set_aside() -> None:
    """It was reinstalled."""
    assert kinds(plan(DEAD, bare("m3"))) == ["RemoveMember", *JOIN]


def test_another_machine_of_the_same_name_is_not_the_old_one() -> None:
    """It joins; nothing of its own is stopped, neither while it joins nor when it has joined."""
    joins = wanted("m3", "10.0.0.9")
    made = plan(DEAD, bare("m3"), joins=joins)
    assert kinds(made) == ["RemoveMember", *JOIN]
    assert any("its etcd is not stopped" in text for text in made.warnings)
    host = bare("m3", data=DataDirectory.INITIALISED, service=RUNNING)
    learner = (seen(1), seen(2), seen(3, learner=True, address="10.0.0.9"))
    assert kinds(plan(learner, host, joins=joins)) == ["PromoteMember"]
    done = (seen(1), seen(2), seen(3, address="10.0.0.9"))
    assert kinds(plan(done, host, joins=joins, planned=True)) == []


def test_a_joining_that_was_begun_on_the_same_machine_goes_on() -> None:
    """The entry at its URL is the new one's: its data stays."""
    host = bare("m3", data=DataDirectory.INITIALISED, service=RUNNING)
    pending = (seen(1), seen(2), seen(3, learner=True))
    assert kinds(plan(pending, host)) == ["PromoteMember"]
    unstarted = (seen(1), seen(2), seen(3, started=False, learner=True))
    assert kinds(plan(unstarted, host)) == ["JoinMember", "PromoteMember"]
    assert kinds(plan(unstarted, bare("m3"))) == ["JoinMember", "PromoteMember"]


def test_a_learner_that_lost_its_data_or_never_ran_is_added_anew() -> None:
    """It has no vote, so this costs nothing; what a failed start left is set aside."""
    lost = (seen(1), seen(2), seen(3, learner=True, up=False))
    assert kinds(plan(lost, bare("m3"))) == ["RemoveMember", *JOIN]
    half = bare("m3", data=DataDirectory.LEFTOVERS, service=STOPPED)
    unstarted = (seen(1), seen(2), seen(3, started=False, learner=True))
    assert kinds(plan(unstarted, half)) == ["DiscardData", "JoinMember", "PromoteMember"]
    stuck = bare("m3", data=DataDirectory.INITIALISED, service=STOPPED)
    assert kinds(plan(unstarted, stuck)) == ["DiscardData", "RemoveMember", *JOIN]


@pytest.mark.parametrize("data", [DataDirectory.INITIALISED, DataDirectory.LEFTOVERS])
def test_data_of_which_nothing_is_known_is_refused(data: DataDirectory) -> None:
    """On a machine that is no member's."""
    with pytest.raises(Refused, match="holds data, and this host is no member"):
        plan(DEAD, bare("m3", data=data), joins=wanted("m3", "10.0.0.9"))


@pytest.mark.parametrize("word", ["m3", "10.0.0.3", "67", "0x67"])
def test_a_member_is_called_by_name_address_or_id(word: str) -> None:
    """All of them mean the same one."""
    (leaver,) = find_leavers((word,), INVENTORY, DEAD, ())
    assert leaver.member_id == 103
    assert leaver.client_url == "https://10.0.0.3:2379"


@pytest.mark.parametrize("word", ["m3", "etcd3", "10.0.0.3", "67"])
def test_a_member_that_is_named_otherwise_than_its_host(word: str) -> None:
    """Found by either name; hosts are told by theirs, and what is added bears etcd's."""
    own = inventory(
        hosts=[{"name": f"m{n}", "member": f"etcd{n}", "address": f"10.0.0.{n}"} for n in (1, 2, 3)]
    )
    live = tuple(
        replace(row, host=row.member.name, member=replace(row.member, name=f"etcd{n}"))
        for n, row in enumerate((seen(1), seen(2), seen(3, up=False)), 1)
    )
    joining = (replace(wanted("m3", "10.0.0.3"), member="etcd3"),)
    leavers = find_leavers((word,), own, live, joining)
    assert [(leaver.host, leaver.member_id) for leaver in leavers] == [("m3", 103)]
    made = plan_members(
        "replace_member", own, live, leavers, joining,
        {name: bare(name, data=DataDirectory.INITIALISED) for name in ("m1", "m2", "m3")},
        {"m3": target("m3")}, planned=False, configured=frozenset({"m3"}), outdated={},
    )  # fmt: skip
    assert {step.host for step in made.steps} <= {None, "m1", "m2", "m3"}
    assert "RetireHost" in kinds(made)
    removal = next(step for step in made.steps if type(step).__name__ == "RemoveMember")
    assert "remove the member etcd3 on m3 (67, not healthy)" in removal.sentence
    goal = goal_members(live, frozenset({103}), joining)
    assert [(m.name, m.member) for m in goal] == [(f"m{n}", f"etcd{n}") for n in (1, 2, 3)]
    assert find_gone(goal, live) == ()
    refuse_disagreement(live, goal)


def test_the_list_s_members_are_told_by_their_hosts() -> None:
    """Who answers for it, is asked there, or is to be named so; else nobody's but its own name."""
    rows = tuple(
        Member(100 + n, f"etcd{n}", (f"https://10.0.0.{n}:2380",), (f"https://10.0.0.{n}:2379",))
        for n in (1, 2, 3, 4)
    )
    status = EndpointStatus(1, 101, "3.5.16", 101, 2, 9, 9, 1, 1)
    health = ClusterHealth(
        (
            EndpointHealth("m1", "https://elsewhere:2379", True, status, rows, member="etcd1"),
            EndpointHealth("m2", "https://10.0.0.2:2379", is_healthy=False, error="no answer"),
            EndpointHealth("m3", "https://x:2379", is_healthy=False, error="x", member="etcd3"),
        ),
        reads_linearizable=True,
    )
    found = health.seen_members()
    assert [m.host for m in found] == ["m1", "m2", "m3", "etcd4"]
    assert found[1].label == "etcd2 on m2"
    assert found[1].as_desired.member == "etcd2"


def test_nobody_is_called_so() -> None:
    """The members are listed with their ids."""
    with pytest.raises(Refused, match=r"m9: no member.*m1 \(65\), m2 \(66\), m3 \(67\)"):
        find_leavers(("m9",), INVENTORY, DEAD, ())


KNOWN = tuple(wanted(f"m{n}", f"10.0.0.{n}") for n in (1, 2, 3))


def test_a_stranger_is_named_with_its_id() -> None:
    """Neither the inventory nor the command knows it."""
    refuse_disagreement(DEAD, KNOWN)
    with pytest.raises(Refused, match=r"the unstarted member 6d \(6d\) at https://10.0.0.9:2380"):
        refuse_disagreement((*DEAD, seen(9, started=False)), KNOWN)


def test_a_member_that_was_removed_by_hand_is_not_passed_over() -> None:
    """The refusal names the commands that lead out; naming it in the run is one of them."""
    live = (seen(1), seen(2))
    with pytest.raises(Refused, match="replace_member --member m3"):
        refuse_disagreement(live, KNOWN)
    refuse_disagreement(live, KNOWN, named=frozenset({"m3"}))
    assert find_gone(KNOWN, ()) == ()


def test_a_member_whose_address_nobody_knows_is_no_stranger() -> None:
    """Its host was entered by a DNS name and is dead: it is known by its name."""
    refuse_disagreement(DEAD, KNOWN[:2], unlocated=frozenset({"m3"}))


def test_a_member_at_another_address_than_the_inventorys_is_told_as_that() -> None:
    """It is no stranger."""
    live = (seen(1), seen(2), seen(3, address="10.0.0.9"))
    with pytest.raises(Refused, match=r"m3 \(67\) at \S+ is at https://10.0.0.3:2380 in the"):
        refuse_disagreement(live, KNOWN)


def test_a_replacement_in_place_that_died_in_its_last_look_is_done() -> None:
    """The member is healthy and all others are: there is nothing to do, and that is said."""
    host = bare("m3", data=DataDirectory.INITIALISED, service=RUNNING)
    healthy = (seen(1), seen(2), seen(3))
    made = plan(healthy, host)
    assert kinds(made) == []
    assert "taken as replaced already" in made.warnings[0]
    with pytest.raises(Refused, match=r"is a healthy voter \(members that are down: m2"):
        plan((seen(1), seen(2, up=False), seen(3)), host)
    with pytest.raises(Refused, match="--replacement NAME=ADDRESS"):
        plan(healthy, host, planned=True)


def test_a_host_that_was_never_asked_is_not_called_unreachable() -> None:
    """A replacement that has ended, run again: the old host is not in the inventory any more."""
    joins = wanted("m9", "10.0.0.9")
    inventory_now = inventory(hosts=[{"name": "m1", "address": "10.0.0.1"}])
    live = (seen(1), seen(9))
    leavers = find_leavers(("m3",), inventory_now, live, (joins,))
    (told,) = warn_of_hosts(leavers, {}, set(), INVENTORY)
    assert "cannot be reached" not in told
    assert "taken as replaced already" in told


def test_removed_while_away() -> None:
    """The report names what finishes it, with the inventory's host and without."""
    live = (seen(1), seen(2), seen(3, up=False))
    named = inventory(paths={"unit": "/etc/systemd/system/etcd3.service"})
    leavers = find_leavers(("m3",), named, live, ())
    (told,) = warn_of_hosts(leavers, {}, set(), named)
    assert "its etcd is not stopped" in told
    assert pointer("remove_member", member=["m3"]) in told
    assert "`systemctl disable --now etcd3.service`" in told


def test_a_dead_host_is_waited_for_before_its_removal_alone() -> None:
    """Beside what the joining host needs; should it answer, it is retired first."""
    joining = (wanted("m9", "10.0.0.9"),)
    leavers = find_leavers(("m3",), INVENTORY, DEAD, joining)
    made = plan_members(
        "replace_member",
        inventory(
            hosts=[
                {"name": name, "address": f"10.0.0.{n}"}
                for name, n in (("m1", 1), ("m2", 2), ("m9", 9))
            ]
        ),
        DEAD,
        leavers,
        joining,
        {"m1": bare("m1"), "m9": replace(bare("m3"), host="m9")},
        {"m9": target("m9")},
        planned=False,
        configured=frozenset(),
        outdated={},
        awaited=frozenset({"m3"}),
    )
    (wait,) = [step for step in made.steps if isinstance(step, AwaitHost)]
    removal = next(step for step in made.steps if type(step).__name__ == "RemoveMember")
    assert wait.host == "m3"
    assert wait.stage < removal.stage
    assert not wait.stage.is_serial
    assert "has not answered over SSH yet" in made.warnings[0]


def test_the_snapshot_comes_from_the_healthy_follower_that_is_furthest() -> None:
    """Also where a member that moves is asked at two addresses, of which one is dead."""

    def endpoint(url: str, applied: int | None, *, leads: bool = False) -> EndpointHealth:
        status = applied and EndpointStatus(
            1, 7, "3.5.16", 7 if leads else 1, 2, applied, applied, 1, 1
        )
        return EndpointHealth("m1", url, is_healthy=bool(status), status=status or None)

    seen_now = ClusterHealth(
        (
            endpoint("https://10.0.0.9:2379", None),
            endpoint("https://10.0.0.1:2379", 90, leads=True),
            endpoint("https://10.0.0.2:2379", 70),
            endpoint("https://10.0.0.3:2379", 80),
        ),
        reads_linearizable=True,
    )
    assert order_sources(seen_now)[0] == "https://10.0.0.3:2379"
    assert order_sources(ClusterHealth(seen_now.endpoints[:2], reads_linearizable=True))[0] == (
        "https://10.0.0.1:2379"
    )
    assert order_sources(ClusterHealth(seen_now.endpoints[:1], reads_linearizable=False)) == ()


@pytest.mark.parametrize(
    ("version", "found"),
    [("3.5.16", ["warning"]), ("3.5.30", ["warning"]), ("3.4.23", ["refusal"])],
)
def test_a_joiner_of_another_version(version: str, found: list[str]) -> None:
    """Another patch is told, another minor is refused; one that may forget a promotion is told."""
    other = inventory(etcd={"version": version, "binaries": {"source": "installed"}})
    findings = version_findings(other, DEAD, ("m3",))
    assert [finding.severity for finding in findings] == found
    assert ("may forget" in findings[0].sentence) is (version == "3.5.16")
