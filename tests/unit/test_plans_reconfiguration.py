"""The arithmetic of membership, against a model of its own: all clusters of up to seven members."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.model.errors import Refused
from tasks.model.members import DesiredMember, Member, SeenMember
from tasks.model.plan import Step
from tasks.plans import reconfiguration
from tasks.plans.obstacles import find_obstacles, is_stale
from tasks.plans.reconfiguration import (
    SLIGHT_LAG,
    Joiner,
    MoveLeader,
    order_changes,
    order_handover,
)

OLD, NEW = "3.5.16", "3.5.30"


def seen(
    number: int,
    *,
    up: bool = True,
    learner: bool = False,
    started: bool = True,
    leads: bool = False,
    version: str = OLD,
) -> SeenMember:
    """Make a member, m1 or m2 and so on."""
    name = f"m{number}" if started else ""
    client = (f"https://10.0.0.{number}:2379",) if started else ()
    member = Member(100 + number, name, (f"https://10.0.0.{number}:2380",), client, learner)
    return SeenMember(member, up and started, is_leader=leads, version=version if up else None)


def wanted(number: int) -> DesiredMember:
    """Make the member of this number as a plan wants it."""
    return DesiredMember(
        f"m{number}", f"https://10.0.0.{number}:2380", f"https://10.0.0.{number}:2379"
    )


def url(number: int) -> str:
    """Its peer URL."""
    return wanted(number).peer_url


@dataclass
class World:
    """What etcd's own rules make of the steps: voters by URL, whether each is up; learners."""

    voters: dict[str, bool]
    learners: dict[str, bool]
    ids: dict[int, str]
    every_voter: bool
    leader: str | None = None
    removed: list[str] = field(default_factory=list)

    def check_quorum(self) -> None:
        """More than half of the voters are up."""
        assert 2 * sum(self.voters.values()) > len(self.voters), self

    def do(self, step: Step) -> None:
        """Do a step as etcd would, or fail as it would."""
        self.check_quorum()
        match step:
            case reconfiguration.RemoveMember():
                gone = self.ids.pop(step.member_id)
                assert gone != self.leader, "the leader leads away first"
                self.removed.append(gone)
                self.voters.pop(gone, None)
                self.learners.pop(gone, None)
            case reconfiguration.AddLearner():
                assert not self.learners, "too many learner members in cluster"
                assert step.member.peer_url not in self.voters
                assert all(self.voters.values()) or not self.every_voter, "unhealthy cluster"
                self.learners[step.member.peer_url] = False
            case reconfiguration.JoinMember():
                name = step.host
                for members in (self.learners, self.voters):
                    for at in members:
                        if at == f"https://10.0.0.{str(name)[1:]}:2380":
                            members[at] = True
            case reconfiguration.PromoteMember():
                assert self.learners.pop(step.member.peer_url), "not in sync with leader"
                self.voters[step.member.peer_url] = True
            case reconfiguration.AwaitMember():
                assert self.voters[step.member.peer_url]
            case reconfiguration.MoveLeader():
                self.leader = self.ids.get(step.target_id, "a new one")
                assert self.leader == "a new one" or self.voters[self.leader]
            case _:
                raise AssertionError(step)
        self.check_quorum()


def world(live: tuple[SeenMember, ...], *, old: bool) -> World:
    """Make the world as it is before the first step."""
    return World(
        {m.peer_url: m.is_healthy for m in live if not m.member.is_learner},
        {m.peer_url: m.is_healthy for m in live if m.member.is_learner},
        {m.member.id: m.peer_url for m in live},
        old,
        next((m.peer_url for m in live if m.is_leader), None),
    )


@st.composite
def clusters(draw: st.DrawFn) -> tuple[SeenMember, ...]:
    """Any cluster of one to seven members: voters up, down or unstarted, at most one learner."""
    count = draw(st.integers(1, 7))
    version = draw(st.sampled_from([OLD, NEW]))
    kinds = draw(st.lists(st.sampled_from("uuuudn"), min_size=count, max_size=count))
    learner = draw(st.sampled_from([None, None, "u", "d", "n"]))
    members = [
        seen(i, up=kind == "u", started=kind != "n", version=version)
        for i, kind in enumerate(kinds, 1)
    ]
    up = [i for i, kind in enumerate(kinds) if kind == "u"]
    if up:
        leader = draw(st.sampled_from(up))
        members[leader] = seen(leader + 1, leads=True, version=version)
    if learner and count < 7:
        members.append(
            seen(
                count + 1, up=learner == "u", started=learner != "n", learner=True, version=version
            )
        )
    return tuple(members)


@settings(max_examples=1500)
@given(
    clusters(),
    st.sets(st.integers(1, 7)),
    st.lists(st.integers(1, 9), max_size=2, unique=True),
    st.booleans(),
    st.booleans(),
)
def test_every_plan_keeps_quorum_and_ends_in_its_goal_or_is_refused(
    live: tuple[SeenMember, ...],
    leaving: set[int],
    joining: list[int],
    planned: bool,
    stale: bool,
) -> None:
    """Whatever the cluster and the wish: no step without quorum, nothing else removed, the goal."""
    removals = frozenset(m.member.id for m in live if m.member.id - 100 in leaving)
    joiners = tuple(Joiner(wanted(number), is_stale=stale) for number in joining)
    model = world(live, old=any(m.version == OLD for m in live if m.version))
    try:
        steps = order_changes(live, removals, joiners, planned=planned)
    except Refused:
        return
    for step in steps:
        model.do(step)
    named = {m.peer_url for m in live if m.member.id in removals}
    begun = {
        m.peer_url
        for m in live
        if m.member.is_learner and m.peer_url in {url(number) for number in joining}
    }
    assert set(model.removed) <= named | begun
    goal = {m.peer_url for m in live if not m.member.is_learner} - named
    goal |= {url(number) for number in joining}
    assert set(model.voters) == goal
    assert not any(at in model.voters for at in model.learners)
    if not planned:
        assert not any(
            m.is_healthy and not m.member.is_learner for m in live if m.peer_url in named
        )
    assert all(model.voters[url(number)] for number in joining)


@settings(max_examples=500)
@given(clusters(), st.sets(st.integers(1, 7), max_size=2), st.booleans())
def test_a_plan_is_refused_only_where_it_must_be(
    live: tuple[SeenMember, ...], leaving: set[int], planned: bool
) -> None:
    """A removal alone is refused exactly when a count, or a healthy voter, forbids it."""
    removals = frozenset(m.member.id for m in live if m.member.id - 100 in leaving)
    voters = [m for m in live if not m.member.is_learner]
    gone = [m for m in voters if m.member.id in removals]
    alive = [m for m in gone if m.is_healthy]
    up = sum(m.is_healthy for m in voters)
    may = 2 * up > len(voters) and (planned or not alive)
    left, up_left = len(voters), up
    for member in sorted(gone, key=lambda m: m.is_healthy):
        left, up_left = left - 1, up_left - member.is_healthy
        may = may and 2 * up_left > left
    try:
        steps = order_changes(live, removals, (), planned=planned)
    except Refused:
        assert not may
    else:
        assert may
        assert sum(isinstance(s, reconfiguration.RemoveMember) for s in steps) == len(removals)


THREE = (seen(1, leads=True), seen(2), seen(3, up=False))


def test_a_dead_member_is_removed_before_its_successor_is_added() -> None:
    """Etcd before 3.5.30 adds nothing while a voter is away."""
    steps = order_changes(THREE, frozenset({103}), (Joiner(wanted(4)),), planned=False)
    assert [type(s).__name__ for s in steps] == [
        *("RemoveMember", "AddLearner", "JoinMember", "PromoteMember")
    ]
    assert "2 of 2 voters are healthy then, 2 are needed" in steps[0].sentence


def test_a_planned_replacement_adds_first_and_moves_the_leader() -> None:
    """No moment with fewer healthy voters than before."""
    live = (seen(1, leads=True), seen(2), seen(3))
    steps = order_changes(live, frozenset({101}), (Joiner(wanted(4)),), planned=True)
    assert [type(s).__name__ for s in steps] == [
        *("AddLearner", "JoinMember", "PromoteMember", "MoveLeader", "RemoveMember")
    ]


@pytest.mark.parametrize(
    ("live", "removals", "joiners", "said"),
    [
        ((seen(1), seen(2, up=False), seen(3, up=False)), {103}, (4,), "quorum is lost: 1 of 3"),
        ((seen(1), seen(2), seen(3)), {103}, (4,), "is a healthy voter"),
        ((seen(1), seen(2), seen(3)), {103}, (3,), "is a healthy voter"),
        ((*THREE[:2], seen(3, up=False), seen(4, up=False), seen(5)), {103}, (6,), "m4: is down"),
        ((*THREE, seen(7, learner=True)), {103}, (4,), "takes one at a time"),
        (THREE, set(), (3,), "is a member already, and is down"),
        ((), {103}, (), "no member answers"),
    ],
)
def test_refusals_say_why(
    live: tuple[SeenMember, ...], removals: set[int], joiners: tuple[int, ...], said: str
) -> None:
    """The sentence has the count or the member's name."""
    with pytest.raises(Refused, match=said):
        order_changes(
            live, frozenset(removals), tuple(Joiner(wanted(n)) for n in joiners), planned=False
        )


def test_the_last_member_stays() -> None:
    """Also when it is asked for."""
    with pytest.raises(Refused, match="is the last member"):
        order_changes((seen(1),), frozenset({101}), (), planned=True)


def test_two_dead_of_five_are_replaced_in_one_plan() -> None:
    """Both are removed before the first is added."""
    live = (seen(1, leads=True), seen(2), seen(3), seen(4, up=False), seen(5, up=False))
    joiners = (Joiner(wanted(6)), Joiner(wanted(7)))
    steps = order_changes(live, frozenset({104, 105}), joiners, planned=False)
    kinds = [type(s).__name__ for s in steps]
    assert kinds[:3] == ["RemoveMember", "RemoveMember", "AddLearner"]
    assert kinds.count("PromoteMember") == 2


UNSTARTED = seen(4, started=False, learner=True)
LEARNER = seen(4, learner=True)


@pytest.mark.parametrize(
    ("entry", "joiner", "kinds"),
    [
        (None, Joiner(wanted(4)), ["AddLearner", "JoinMember", "PromoteMember"]),
        (UNSTARTED, Joiner(wanted(4)), ["JoinMember", "PromoteMember"]),
        (LEARNER, Joiner(wanted(4), has_data=True), ["PromoteMember"]),
        (
            seen(4, learner=True, up=False),
            Joiner(wanted(4), is_stale=True),
            ["RemoveMember", "AddLearner", "JoinMember", "PromoteMember"],
        ),
        (seen(4, started=False), Joiner(wanted(4)), ["JoinMember", "AwaitMember"]),
        (seen(4), Joiner(wanted(4)), []),
    ],
    ids=["absent", "unstarted", "learner", "stale-learner", "unstarted-voter", "done"],
)
def test_what_was_begun_is_ended_and_not_done_twice(
    entry: SeenMember | None, joiner: Joiner, kinds: list[str]
) -> None:
    """Each state that an interrupted run leaves in the list has its rest of the plan."""
    live = (*THREE[:2], *((entry,) if entry else ()))
    steps = order_changes(live, frozenset({103}), (joiner,), planned=False)
    assert [type(s).__name__ for s in steps] == kinds


def test_a_member_that_came_back_or_was_added_by_hand_makes_the_plan_stale() -> None:
    """The gate lets nothing through that was planned for another cluster."""
    remove = order_changes(THREE, frozenset({103}), (), planned=False)[0]
    assert find_obstacles(remove, THREE) == ()
    back = find_obstacles(remove, (*THREE[:2], seen(3)))
    assert is_stale(back)
    assert "m3 is back" in back[0]
    assert find_obstacles(remove, THREE, alive=frozenset({103})) == back  # by a patient look
    added = find_obstacles(remove, (*THREE, seen(9, started=False)))
    assert "10.0.0.9:2380 is a member, which the plan does not know" in added[0]
    lost = find_obstacles(remove, (seen(1), seen(2, up=False), seen(3, up=False)))
    assert not is_stale(lost)
    assert "quorum is lost" in lost[0]


@pytest.mark.parametrize(
    ("version", "strict"),
    [
        *(("3.4.23", True), ("3.5.29", True), ("3.5.30", False)),
        *(("3.6.10", True), ("3.6.11", False), ("3.7.0", False), (None, False)),
    ],
)
def test_which_etcd_needs_every_voter(version: str | None, strict: bool) -> None:
    """The check changed in 3.5.30 and 3.6.11."""
    assert reconfiguration.needs_every_voter([version]) is strict


def test_who_takes_over_is_the_same_while_clients_write() -> None:
    """A plan that waited for approval is made again, and must be the approved one."""
    one, two, three = seen(1, leads=True), seen(2), seen(3)

    def chosen(*applied: int) -> int:
        others = [replace(m, applied=at) for m, at in zip((two, three), applied, strict=True)]
        (step,) = order_handover((one, *others), None)
        assert isinstance(step, MoveLeader)
        return step.target_id

    assert chosen(50, 50) == chosen(50, 53) == chosen(53, 50) == 102
    assert chosen(50, 50 + SLIGHT_LAG + 1) == 103
