"""What a change of the members does to hosts: whose data goes, whose stays, what is refused."""

from __future__ import annotations

import pytest

from tasks.model.cluster import DesiredMember, Member, SeenMember
from tasks.model.errors import Refused
from tasks.model.observation import DataDirectory, HostObservation, ServiceState, ServiceStatus
from tasks.model.plan import Plan
from tasks.plans import members as plans
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
    leavers = plans.find_leavers((word,), INVENTORY, live, joining)
    return plans.plan_members(
        "replace_member",
        INVENTORY,
        live,
        leavers,
        joining,
        {"m1": bare("m1"), host.host: host},
        {host.host: target(host.host)},
        planned=planned,
        configured=frozenset({host.host}) if host.configuration else frozenset(),
        outdated=frozenset(),
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
    assert any("cannot be reached over SSH" in text for text in made.warnings)
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
    (leaver,) = plans.find_leavers((word,), INVENTORY, DEAD, ())
    assert leaver.member_id == 103
    assert leaver.client_url == "https://10.0.0.3:2379"


def test_nobody_is_called_so() -> None:
    """The members are listed with their ids."""
    with pytest.raises(Refused, match=r"m9: no member.*m1 \(65\), m2 \(66\), m3 \(67\)"):
        plans.find_leavers(("m9",), INVENTORY, DEAD, ())


def test_a_stranger_is_named_with_its_id() -> None:
    """Neither the inventory nor the command knows it."""
    known = [wanted(f"m{n}", f"10.0.0.{n}") for n in (1, 2, 3)]
    plans.refuse_strangers(DEAD, known, ())
    with pytest.raises(Refused, match=r"the unstarted member 6d \(6d\) at https://10.0.0.9:2380"):
        plans.refuse_strangers((*DEAD, seen(9, started=False)), known, ())


@pytest.mark.parametrize(
    ("version", "found"),
    [("3.5.16", ["warning"]), ("3.5.30", ["warning"]), ("3.4.23", ["refusal"])],
)
def test_a_joiner_of_another_version(version: str, found: list[str]) -> None:
    """Another patch is told, another minor is refused; one that may forget a promotion is told."""
    other = inventory(etcd={"version": version, "binaries": {"source": "installed"}})
    findings = plans.version_findings(other, DEAD, ("m3",))
    assert [finding.severity for finding in findings] == found
    assert ("may forget" in findings[0].sentence) is (version == "3.5.16")
