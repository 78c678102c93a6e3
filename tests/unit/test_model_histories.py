"""A wiped first node of kubeadm's, whose peers have no leader: healthy, alone, with its old ids."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.errors import Refused
from tasks.model.histories import KeyState, Past, find_fork, find_newcomers, find_suspects
from tasks.model.members import DesiredMember, Member
from tasks.model.snapshots import DataHash
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


def unlisted(one: EndpointHealth) -> EndpointHealth:
    """Let a member list itself under an id that the others do not know."""
    return replace(one, members=(replace(ROWS[0], id=9),))


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


def test_one_whose_node_was_replaced_since_has_an_id_that_nobody_lists() -> None:
    """Its first id, of the words of its manifest; to the others its node has another one by now."""
    young = unlisted(alone(member_id=9, leader=9))
    health = ClusterHealth((young, deaf(2)), reads_linearizable=True)
    (said,) = (s for s in health.find_faults(EXPECTED) if "another history" in s)
    assert said.startswith("m1 has begun another history, alone, at term 2 and index 15")
    assert not any(m.is_healthy for m in health.seen_members())
    grown = unlisted(alone(member_id=9, leader=9, raft_term=3, raft_index=5000))
    assert find_newcomers((grown, deaf(2))) == {}
    assert [(a.name, b.name) for a, b in find_suspects((grown, deaf(2)))] == [("m1", "m2")]


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


@pytest.mark.parametrize(
    ("endpoints", "suspected"),
    [
        ((alone(raft_term=9, raft_index=5000), deaf(2), deaf(3, index=960)), [("m1", "m3")]),
        ((alone(cluster_id=8), deaf(2)), []),
        ((alone(leader=0), deaf(2)), []),
        ((replace(alone(), members=ROWS), deaf(2)), []),
        ((alone(),), []),
    ],
    ids=["outgrown", "another cluster", "no leader either", "it lists them", "alone"],
)
def test_whose_data_are_compared(
    endpoints: tuple[EndpointHealth, ...], suspected: list[tuple[str, str]]
) -> None:
    """One that goes on without a member that lists it, with the furthest of those."""
    assert [(one.name, other.name) for one, other in find_suspects(endpoints)] == suspected


FIRST, LATER = KeyState(2, 2, 1), KeyState(2, 7, 3)


@pytest.mark.parametrize(
    ("own", "other", "said"),
    [
        (Past(DataHash(hash=1, compact_revision=3), {}), 1, ""),
        (Past(DataHash(hash=2, compact_revision=3), {}), 1, "the hash 00000002, not 00000001"),
        (Past(DataHash(hash=2, compact_revision=5), {b"a": FIRST}), 1, ""),
        (Past(DataHash(hash=2, compact_revision=5), {b"a": LATER}), 1, "1 of 1 keys"),
        (Past(None, {b"a": FIRST, b"b": FIRST}), 1, "1 of 2 keys"),
        (Past(None, {}), 1, ""),
    ],
    ids=["hash", "another hash", "compacted otherwise", "other keys", "no hash", "nothing tells"],
)
def test_what_tells_another_history(own: Past, other: int, said: str) -> None:
    """The hash where both compacted the same; else what one has not changed since."""
    there = Past(DataHash(hash=other, compact_revision=3), {b"a": FIRST})
    found = find_fork(own, there, 9)
    assert (said in found) if said else found == ""


def test_one_whose_data_are_another_history_counts_for_nothing() -> None:
    """Although its term and its index are higher than everybody's."""
    grown = replace(alone(raft_term=9, raft_index=5000), fork="2 of 9 keys differ")
    health = ClusterHealth((grown, deaf(2)), reads_linearizable=True)
    (said,) = (s for s in health.find_faults(EXPECTED) if "another history" in s)
    assert said.startswith("m1 has begun another history: 2 of 9 keys differ; what it acknow")
    assert not any(m.is_healthy for m in health.seen_members())
