"""The plans of rotation and recovery: what is due, in which order, and when it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.errors import Refused
from tasks.model.members import DesiredMember, Member
from tasks.model.observation import LeafFiles, PairsObservation
from tasks.model.plan import Plan
from tasks.plans.leaves import StageLeaves, SwapLeaves, Work, refuse_reinstalled
from tasks.plans.recovery import (
    Damage,
    RenewAuthority,
    ReviveMember,
    leave_out,
    plan_recovery,
)
from tasks.plans.rotation import VerifyLeaves, plan_rotation
from tasks.plans.succession import WriteTrust
from tests.unit.plan_cases import inventory, leaf, text_file

NAMES = ("m1", "m2", "m3")
MEMBERS = tuple(DesiredMember(name, f"p{name}", f"c{name}") for name in NAMES)
NOTHING: Work = {name: {"server": (), "peer": ()} for name in NAMES}
DUE: Work = {name: {"server": ("it expires soon",), "peer": ()} for name in NAMES}


def health(*ill: str, leader: int = 2, reads: bool = True) -> ClusterHealth:
    """Make health in which some members are ill."""
    endpoints = []
    for number, name in enumerate(NAMES, 1):
        status = EndpointStatus(7, number, "3.5.16", leader, 1, 1, 1, 1, 1)
        endpoints.append(
            EndpointHealth(
                name, f"c{name}", name not in ill, status, error="bad" if name in ill else None
            )
        )
    return ClusterHealth(tuple(endpoints), reads_linearizable=reads)


def rotation(work: Work, *ill: str, absent: dict[str, str] | None = None) -> Plan:
    """Plan a rotation."""
    return plan_rotation(inventory(), MEMBERS, health(*ill), work, absent or {})


def pairs_of(name: str, *, bare: bool = False) -> PairsObservation:
    """See a host's pairs, or a host on which nothing of etcd's is."""
    pair = LeafFiles(None, None, None) if bare else leaf()
    trusted = None if bare else text_file("CA")
    return PairsObservation(name, 0, 0, None, trusted, None, {"server": pair}, {})


def test_nothing_due_is_nothing_to_do() -> None:
    """No step, and the goal says so."""
    plan = rotation(NOTHING)
    assert plan.steps == ()
    assert plan.goal == "no pair is due"


def test_all_are_staged_before_the_first_is_swapped_and_the_leader_is_last() -> None:
    """Staging is side by side, swapping one by one, then everything is verified."""
    plan = rotation(DUE)
    kinds = [type(step) for step in plan.steps]
    assert kinds == [StageLeaves] * 3 + [SwapLeaves] * 3 + [VerifyLeaves]
    assert [s.name for s in plan.steps if isinstance(s, SwapLeaves)] == ["m1", "m3", "m2"]
    assert [stage.is_serial for stage in plan.stages()] == [False, True, False]
    assert "server: it expires soon" in plan.steps[0].sentence
    assert "peer" not in plan.steps[0].sentence


def test_a_reinstalled_host_is_refused_in_the_plan() -> None:
    """No pair can be put where nothing of etcd's is; replace_member leads out."""
    sound = {name: pairs_of(name) for name in NAMES}
    refuse_reinstalled(inventory(), sound)
    with pytest.raises(Refused, match="replace_member --member m2"):
        refuse_reinstalled(inventory(), {**sound, "m2": pairs_of("m2", bare=True)})


def test_a_member_that_was_removed_by_hand_is_told_with_its_way_out() -> None:
    """Its etcd has ended, so that no other can be spared; replace_member leads out."""
    rows = tuple(
        Member(number, name, (f"p{name}",), (f"c{name}",))
        for number, name in ((1, "m1"), (2, "m2"))
    )
    seen = tuple(replace(e, members=rows) for e in health("m3").endpoints)
    left = ClusterHealth((*seen[:2], replace(seen[2], status=None)), reads_linearizable=True)
    with pytest.raises(Refused, match="replace_member --member m3"):
        plan_rotation(inventory(), MEMBERS, left, DUE, {})
    assert any("replace_member --member m3" in text for text in left.find_faults(MEMBERS))


def test_only_what_is_due_is_named() -> None:
    """A host without a due pair has no step."""
    plan = rotation({**NOTHING, "m3": {"server": ("x",), "peer": ("y",)}})
    assert {step.host for step in plan.steps} == {"m3", None}


def test_the_ill_member_comes_first_and_then_the_others_can_be_spared() -> None:
    """Its certificate may be why it is ill."""
    plan = rotation(DUE, "m3")
    assert [s.name for s in plan.steps if isinstance(s, SwapLeaves)] == ["m3", "m1", "m2"]


@pytest.mark.parametrize("ill", [("m2", "m3"), ("m1", "m2", "m3")])
def test_a_cluster_that_cannot_spare_the_member_is_refused(ill: tuple[str, ...]) -> None:
    """With the count, and the way out."""
    with pytest.raises(Refused, match=r"(?s)of 3 members would be healthy.*recover_certificates"):
        rotation(DUE, *ill)


def test_an_absent_host_is_left_out_if_the_others_are_enough() -> None:
    """Its etcd answers, only SSH does not: the others are done."""
    plan = rotation({n: w for n, w in DUE.items() if n != "m3"}, absent={"m3": "no route"})
    assert {step.host for step in plan.steps} == {"m1", "m2", None}


def test_a_clients_pair_is_swapped_after_the_members() -> None:
    """On its host's connection."""
    client = {
        "name": "api",
        "host": "m1",
        "certificate": "/a/c",
        "key": "/a/k",
        "trusted": "/a/t",
    }
    work: Work = {**DUE, "api": {"client": ("it expires soon",)}}
    plan = plan_rotation(inventory(clients=[client]), MEMBERS, health(), work, {})
    last = [s for s in plan.steps if isinstance(s, SwapLeaves)][-1]
    assert (last.name, last.host) == ("api", "m1")


def damage(**changes: object) -> Damage:
    """Make a damage of which nothing is broken but what is named."""
    facts = {"has_expired_authority": False, "distrusting": (), "work": NOTHING, "down": ()}
    return Damage(**{**facts, **changes})  # type: ignore[arg-type]


def recovery(
    what: Damage, seen: ClusterHealth | None, absent: dict[str, str] | None = None, **options: bool
) -> Plan:
    """Plan a recovery."""
    consent = options.get("consent", False)
    return plan_recovery(inventory(), what, seen, absent or {}, consent=consent)


def test_a_sound_cluster_has_nothing_to_recover() -> None:
    """No step."""
    assert recovery(damage(), health()).steps == ()


def test_expired_pairs_are_replaced_side_by_side_and_what_is_down_is_started() -> None:
    """No gate: there is no quorum to lose."""
    plan = recovery(damage(work=DUE, down=NAMES), health(*NAMES, reads=False))
    assert not any(stage.is_serial for stage in plan.stages())
    assert sum(isinstance(step, ReviveMember) for step in plan.steps) == 3
    assert not any(isinstance(step, WriteTrust) for step in plan.steps)


def test_an_expired_authority_is_renewed_and_trusted_everywhere() -> None:
    """Before anything is signed with it."""
    plan = recovery(damage(has_expired_authority=True, work=DUE), None)
    assert isinstance(plan.steps[0], RenewAuthority)
    assert [s.host for s in plan.steps if isinstance(s, WriteTrust)] == list(NAMES)


def test_a_cluster_that_serves_is_interrupted_with_consent_only() -> None:
    """One that distrusts would be restarted beside the others."""
    broken = damage(distrusting=("m2",))
    with pytest.raises(Refused, match=r"m2 would be restarted.*--consent"):
        recovery(broken, health("m2"))
    assert recovery(broken, health("m2"), consent=True).steps
    assert recovery(broken, health(*NAMES, reads=False)).steps


def test_a_member_that_would_not_start_is_left_out_and_told() -> None:
    """It gets its files, and is not restarted."""
    plan = leave_out(recovery(damage(work=DUE, down=NAMES), None), {"m2": "m2 is masked"})
    assert [s.host for s in plan.steps if isinstance(s, ReviveMember)] == ["m1", "m3"]
    assert any(isinstance(s, SwapLeaves) and s.host == "m2" for s in plan.steps)
    assert plan.warnings == ("m2 is masked; it is left as it is",)


def test_a_minority_of_hosts_is_touched_with_consent_only() -> None:
    """The count is told."""
    absent = {"m2": "no route", "m3": "no route"}
    with pytest.raises(Refused, match="only 1 of 3 hosts can be reached, and 2 are"):
        recovery(damage(work=DUE), None, absent)
    plan = recovery(damage(work=DUE), None, absent, consent=True)
    assert {step.host for step in plan.steps} == {"m1", None}
