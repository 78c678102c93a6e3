"""The gate before a member is touched, against an independent model of quorum."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.members import DesiredMember
from tasks.plans.gate import find_obstacles


def cluster(healthy: list[bool]) -> tuple[tuple[DesiredMember, ...], ClusterHealth]:
    """Make a cluster of which some members are healthy."""
    members = tuple(DesiredMember(f"m{i}", f"p{i}", f"c{i}") for i in range(len(healthy)))
    status = EndpointStatus(1, 1, "3.5.16", 1, 1, 1, 1, 1, 1)
    endpoints = tuple(
        EndpointHealth(m.name, m.client_url, ok, status if ok else None, error=None if ok else "x")
        for m, ok in zip(members, healthy, strict=True)
    )
    return members, ClusterHealth(endpoints, reads_linearizable=True)


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data(), st.booleans())
def test_the_gate_opens_exactly_when_the_member_can_be_spared(
    healthy: list[bool], data: st.DataObject, restarts: bool
) -> None:
    """A strict majority of healthy voters is left; or all are healthy and none is restarted."""
    touched = data.draw(st.integers(0, len(healthy) - 1))
    members, health = cluster(healthy)
    left = sum(ok for number, ok in enumerate(healthy) if number != touched)
    may = 2 * left > len(healthy) or (all(healthy) and not restarts)
    found = find_obstacles(members, health, f"m{touched}", restarts=restarts)
    assert (not found) == may


def test_members_of_two_clusters_are_never_touched() -> None:
    """A foreign member answers health with true on our URL."""
    members, health = cluster([True, True, True])
    other = EndpointStatus(2, 1, "3.5.16", 1, 1, 1, 1, 1, 1)
    odd = EndpointHealth("m2", "c2", is_healthy=True, status=other)
    mixed = ClusterHealth((*health.endpoints[:2], odd), reads_linearizable=True)
    assert "different clusters" in find_obstacles(members, mixed, "m0", restarts=False)[0]


def test_those_that_earlier_steps_healed_count_as_healthy() -> None:
    """The one with the bad certificate comes first; then the others can be spared."""
    members, health = cluster([True, False, True])
    assert find_obstacles(members, health, "m0", restarts=False)
    healed = frozenset({"m1"})
    assert not find_obstacles(members, health, "m0", restarts=False, healed=healed)
