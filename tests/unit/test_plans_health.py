"""Which change asks for which of the three answers: up, the quorum's ear, may write."""

from __future__ import annotations

import pytest

from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.errors import Refused
from tasks.model.members import Alarm, AlarmType, DesiredMember, Member
from tasks.model.rbac import AUTHENTICATION_IS_ON
from tasks.plans import gate, reconfiguration
from tasks.plans.reconfiguration import Joiner
from tasks.plans.voters import refuse_without_quorum

MEMBERS = tuple(DesiredMember(f"m{i}", f"p{i}", f"https://c{i}:2379") for i in range(3))
ROWS = tuple(Member(i + 1, m.name, (m.peer_url,), (m.client_url,)) for i, m in enumerate(MEMBERS))
JOINER = Joiner(DesiredMember("m9", "p9", "https://c9:2379"))


def cluster(
    *alarms: Alarm, deaf: tuple[int, ...] = (), stray: Member | None = None, rbac: bool = False
) -> ClusterHealth:
    """Make three members with these alarms; the deaf ones hear no quorum."""
    rows = (*ROWS, stray) if stray else ROWS
    endpoints = tuple(
        EndpointHealth(
            m.name,
            m.client_url,
            is_healthy=i not in deaf,
            status=None
            if rbac
            else EndpointStatus(7, i + 1, "3.7.3", 0 if i in deaf else 1, 2, 9, 9, 100, 50),
            members=() if rbac else rows,
            alarms=alarms,
            rbac=AUTHENTICATION_IS_ON if rbac else None,
        )
        for i, m in enumerate(MEMBERS)
    )
    return ClusterHealth(endpoints, reads_linearizable=len(deaf) < 2)


def test_a_full_database_is_no_lost_quorum() -> None:
    """NOSPACE: leadership moves, members change, pairs rotate; it is told once, by name."""
    health = cluster(Alarm(2, AlarmType.NOSPACE))
    live = health.seen_members()
    assert reconfiguration.order_handover(live, None)
    assert reconfiguration.order_changes(live, frozenset({3}), (JOINER,), planned=True)
    assert not gate.find_obstacles(MEMBERS, health, "m0", restarts=True)
    assert not health.find_faults(MEMBERS)
    (told,) = health.find_problems(MEMBERS)
    assert told.startswith("m1: alarm NOSPACE")
    assert not any(e.may_write for e in health.endpoints)


def test_differing_data_forbids_changes_and_names_the_member() -> None:
    """CORRUPT: no member and no restart; leadership may move."""
    health = cluster(Alarm(2, AlarmType.CORRUPT))
    live = health.seen_members()
    with pytest.raises(Refused, match=r"^m1: etcd raised the alarm CORRUPT"):
        reconfiguration.order_changes(live, frozenset({3}), (JOINER,), planned=True)
    (told,) = gate.find_obstacles(MEMBERS, health, "m0", restarts=True)
    assert told.startswith("m1: ")
    assert reconfiguration.order_handover(live, None)


def test_members_that_are_up_without_a_quorum_are_not_called_down() -> None:
    """What is up and hears no leader is told apart from what does not answer."""
    health = cluster(deaf=(0, 1, 2))
    assert not health.is_settled
    with pytest.raises(Refused, match="up without a quorum: m0, m1, m2"):
        refuse_without_quorum(health.seen_members())


def test_a_stray_entry_is_told_once() -> None:
    """All three lists have it; one sentence says so."""
    told = cluster(stray=Member(9, "odd", ("p7",), ())).find_problems(MEMBERS)
    assert told == ("the member list has odd at p7, which the inventory does not have",)


def test_authentication_is_told_once_and_is_the_reason() -> None:
    """With RBAC on nothing is called dead."""
    health = cluster(rbac=True)
    (told,) = health.find_problems(MEMBERS)
    assert "RBAC" in told
    assert gate.find_obstacles(MEMBERS, health, "m0", restarts=False) == (told,)
