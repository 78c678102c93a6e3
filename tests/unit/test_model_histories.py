"""A wiped first node of kubeadm's, whose peers have no leader: healthy, alone, with its old ids."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.model.cluster import (
    ClusterHealth,
    DesiredMember,
    EndpointHealth,
    EndpointStatus,
    Member,
)
from tasks.model.errors import Refused
from tasks.model.histories import find_newcomers
from tasks.plans.gate import find_obstacles
from tasks.plans.voters import refuse_without_quorum

ROWS = tuple(Member(i, f"m{i}", (f"https://10.0.0.{i}:2380",), (f"c{i}",)) for i in (1, 2, 3))
EXPECTED = tuple(DesiredMember(m.name, m.peer_urls[0], m.client_urls[0]) for m in ROWS)
STATUS = EndpointStatus(7, 1, "3.7.3", 1, 2, 15, 15, 100, 50)
"""The wiped one's: the cluster id and the member id are what they were."""


def alone(**other: int) -> EndpointHealth:
    """Make what the wiped member tells."""
    status = replace(STATUS, **other)  # type: ignore[arg-type]
    return EndpointHealth("m1", "c1", is_healthy=True, status=status, members=ROWS[:1], reads=True)


def deaf(number: int, *, term: int = 4, index: int = 949) -> EndpointHealth:
    """Make one that hears no leader, and has the old list."""
    status = replace(STATUS, member_id=number, leader=0, raft_term=term, raft_index=index)
    return EndpointHealth(f"m{number}", f"c{number}", False, status, ROWS)


def test_another_history_is_named_with_what_was_compared() -> None:
    """Its health, its list and its leadership count for nothing; no quorum is left."""
    health = ClusterHealth((alone(), deaf(2)), reads_linearizable=True)
    (said,) = (s for s in health.find_faults(EXPECTED) if "another history" in s)
    assert said.startswith("m1 has begun another history, alone, at term 2 and index 15")
    assert "m2 (term 4, index 949)" in said
    live = health.seen_members()
    assert [m.host for m in live] == ["m1", "m2", "m3"]
    assert not any(m.is_healthy for m in live)
    with pytest.raises(Refused, match="quorum"):
        refuse_without_quorum(live)
    assert find_obstacles(EXPECTED, health, "m2", restarts=False) == (said,)


@pytest.mark.parametrize(
    "endpoints",
    [
        (alone(),),
        (alone(raft_term=4, raft_index=960), deaf(2)),
        (alone(cluster_id=8), deaf(2)),
        (alone(leader=0), deaf(2)),
    ],
    ids=["the others are silent", "it has removed them", "another cluster", "no leader either"],
)
def test_one_that_is_alone_for_another_reason(endpoints: tuple[EndpointHealth, ...]) -> None:
    """Nothing is said of its history."""
    assert find_newcomers(endpoints) == {}
