"""The succession of authorities: from any point where a run ended, the plan ends it safely.

The plan is performed on a model of the cluster. After every step each certificate in use must be
accepted by every running member and trusted by every client: that is what "no outage" means.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.model.certificates import Generation
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.plan import Plan, Step
from tasks.model.trust import UNMADE, TrustView
from tasks.plans import barriers
from tasks.plans import succession as plans
from tasks.plans.leaves import StageLeaves, SwapLeaves
from tests.unit.plan_cases import inventory

OLD, NEW = "a" * 64, "b" * 64
LABELS = ("server", "peer", "client")
CLIENTS = [
    {
        "name": "api",
        "host": "m1",
        "certificate": "/etc/api/c.pem",
        "key": "/etc/api/k.pem",
        "trusted": "/etc/api/ca.pem",
    }
]
WANTED = inventory(clients=CLIENTS)
STACKED = Inventory.model_validate(
    {
        "name": "k1",
        "topology": "stacked",
        "hosts": [{"name": name} for name in ("m1", "m2", "m3")],
        "etcd": {"version": "3.7.3"},
        "clients": CLIENTS,
    }
)


class World:
    """A cluster of three with a client, its authorities, and of a stacked one its API servers."""

    def __init__(self, wanted: Inventory = WANTED) -> None:
        self.wanted = wanted
        alone = frozenset({OLD})
        self.members = {
            name: TrustView(name, alone, alone, dict.fromkeys(LABELS, OLD), frozenset({OLD}))
            for name in ("m1", "m2", "m3")
        }
        self.client = TrustView("api", alone, alone, {"client": OLD})
        stacked = [name for name in self.members if wanted.layout(name).has_apiserver]
        self.apiservers = dict.fromkeys(stacked, alone)
        self.authorities = {Generation.CURRENT: OLD}
        self.staged: set[tuple[str, str]] = set()
        self.retired: list[str] = []

    def plan(self, *, reverse: bool = False, **options: object) -> Plan | None:
        """Plan from what is."""
        direction = plans.choose_direction(self.authorities, reverse=reverse)
        if direction is None:
            return None
        until = plans.Until(str(options.pop("until", "end")))
        return plans.plan_succession(
            self.wanted,
            tuple(self.members.values()),
            (self.client,),
            direction,
            "m2",
            until,
            **options,  # type: ignore[arg-type]
        )

    def perform(self, step: Step) -> None:  # noqa: C901, PLR0912 - a case a step
        """Do one step as the runbook would, and see that nobody is locked out by it."""
        if isinstance(step, plans.MakeSuccessor):
            self.authorities[Generation.NEXT] = NEW
        elif isinstance(step, plans.WriteTrust):
            current = self.authorities[Generation.CURRENT]
            trusted = frozenset(self.authorities.values() if step.both else [current])
            if step.name == "api":
                self.client = replace(self.client, trusted=trusted, accepted=trusted)
            else:
                pending = step.name in self.apiservers
                one = replace(self.members[step.name], trusted=trusted, has_pending_change=pending)
                self.members[step.name] = one
        elif isinstance(step, plans.RestartApiserver):
            one = self.members[str(step.host)]
            self.apiservers[one.name] = one.trusted
            self.members[one.name] = replace(one, has_pending_change=False)
        elif isinstance(step, plans.RestartMember):
            one = self.members[str(step.host)]
            self.members[one.name] = replace(one, accepted=one.trusted)
        elif isinstance(step, plans.VerifyTrust):
            wanted = frozenset(
                self.authorities.values() if step.both else [self.authorities[Generation.CURRENT]]
            )
            views = (*self.members.values(), self.client)
            assert barriers.find_trust_obstacles(views, wanted) == ()
        elif isinstance(step, plans.ExchangeAuthorities):
            current = self.authorities[Generation.CURRENT]
            self.authorities[Generation.CURRENT] = self.authorities.pop(step.incoming)
            self.authorities[step.outgoing] = current
        elif isinstance(step, StageLeaves):
            self.staged |= {(step.name, self.authorities[Generation.CURRENT])}
        elif isinstance(step, SwapLeaves):
            signer = self.authorities[Generation.CURRENT]
            assert (step.name, signer) in self.staged
            self._swap(step, signer)
        elif isinstance(step, plans.VerifyIssuers):
            views = (*self.members.values(), self.client)
            current = self.authorities[Generation.CURRENT]
            assert barriers.find_issuer_obstacles(views, current) == ()
        elif isinstance(step, plans.RetireAuthority):
            self.retired.append(self.authorities.pop(step.generation))
        else:
            pytest.fail(f"no such step: {step}")
        self.check()

    def _swap(self, step: SwapLeaves, signer: str) -> None:
        view = self.client if step.name == "api" else self.members[step.name]
        issuers = {**view.issuers, **dict.fromkeys(step.labels, signer)}
        served = frozenset(issuers[label] for label in LABELS[:2] if label in issuers)
        changed = replace(view, issuers=issuers, served=served)
        if step.name == "api":
            self.client = replace(changed, served=frozenset())
        else:
            self.members[step.name] = changed

    def check(self) -> None:
        """See every certificate in use accepted by every running member and every client."""
        members = self.members.values()
        in_use = {issuer for view in members for issuer in view.issuers.values()}
        in_use |= set(self.client.issuers.values()) | {self.authorities[Generation.CURRENT]}
        for view in members:
            assert in_use <= view.accepted, f"{view.name} locks somebody out"
        served = {issuer for view in members for issuer in view.served}
        assert served <= self.client.trusted, "the client does not trust what is served"
        for name, trusted in self.apiservers.items():
            assert self.members[name].served <= trusted, f"{name}: its API server distrusts it"


def run(world: World, plan: Plan | None, steps: int | None = None) -> None:
    """Perform the first steps of a plan."""
    assert plan is not None
    for step in plan.steps[:steps]:
        world.perform(step)


def is_settled(world: World, on: str) -> bool:
    """Whether everyone trusts and uses one authority alone, and it alone is on the runner."""
    views = (*world.members.values(), world.client)
    return (
        world.authorities == {Generation.CURRENT: on}
        and all(view.trusted == view.accepted == {on} for view in views)
        and all(set(view.issuers.values()) == {on} for view in views)
        and all(trusted == {on} for trusted in world.apiservers.values())
    )


def test_a_whole_run_ends_with_the_new_authority_alone() -> None:
    """Restarts come leader last, in the second round the one that took over; clients before."""
    world = World()
    plan = world.plan()
    assert plan is not None
    restarts = [s.host for s in plan.steps if isinstance(s, plans.RestartMember)]
    assert restarts == ["m1", "m3", "m2", "m3", "m2", "m1"]
    successors = [s.successor for s in plan.steps if isinstance(s, plans.RestartMember)]
    assert successors == ["m2", "m1", "m1", "m1", "m3", "m3"]
    run(world, plan)
    assert is_settled(world, NEW)
    assert world.retired == [OLD]


@settings(max_examples=300)
@given(st.lists(st.integers(0, 36), max_size=6), st.sampled_from([WANTED, STACKED]))
def test_from_wherever_runs_died_the_next_one_ends_it(deaths: list[int], wanted: Inventory) -> None:
    """However often it is interrupted; nobody is ever locked out."""
    world = World(wanted)
    for steps in deaths:
        if world.retired:
            return
        run(world, world.plan(), steps)
    if not world.retired:
        run(world, world.plan())
    assert is_settled(world, NEW)


@settings(max_examples=300)
@given(
    st.integers(1, 46),
    st.lists(st.integers(0, 36), max_size=3),
    st.sampled_from([WANTED, STACKED]),
)
def test_it_can_be_reversed_from_wherever_it_stopped(
    stop: int, deaths: list[int], wanted: Inventory
) -> None:
    """Going back is as safe, and as interruptible, until the old authority is retired."""
    world = World(wanted)
    run(world, world.plan(), stop)
    for steps in (*deaths, None):
        if world.retired:
            break
        plan = world.plan(reverse=True)
        if plan is None:
            assert is_settled(world, OLD)
            return
        run(world, plan, steps)
    assert is_settled(world, NEW if world.retired == [OLD] else OLD)


def test_an_api_server_is_restarted_after_its_member_and_before_the_next_one() -> None:
    """Never two nodes at a time; where it alone is left, it alone is restarted."""
    world = World(STACKED)
    plan = world.plan(until="trust")
    assert plan is not None
    kinds = (plans.RestartMember, plans.RestartApiserver)
    restarts = [step for step in plan.steps if isinstance(step, kinds)]
    assert [step.host for step in restarts] == ["m1", "m1", "m3", "m3", "m2", "m2"]
    assert [type(step) for step in restarts] == [*kinds] * 3
    for step in plan.steps[: plan.steps.index(restarts[1])]:
        world.perform(step)
    left = world.plan(until="trust")
    assert left is not None
    first = next(step for step in left.steps if isinstance(step, kinds))
    assert (type(first), first.host) == (plans.RestartApiserver, "m1")


def test_a_barrier_ends_the_plan_and_the_next_goes_on() -> None:
    """Days later, from what the hosts hold."""
    world = World()
    run(world, world.plan(until="trust"))
    assert world.authorities == {Generation.CURRENT: OLD, Generation.NEXT: NEW}
    run(world, world.plan(until="certificates"))
    assert world.authorities == {Generation.CURRENT: NEW, Generation.PREVIOUS: OLD}
    run(world, world.plan())
    assert is_settled(world, NEW)


def test_an_unmanaged_client_holds_the_plan_at_its_barriers() -> None:
    """Until the operator gives their word, machine by machine."""
    wanted = inventory(clients=[*CLIENTS, {"name": "calico", "managed": False}])
    world = World()
    direction = plans.choose_direction(world.authorities, reverse=False)
    assert direction is not None
    members, until = tuple(world.members.values()), plans.Until.END

    def kinds(**word: frozenset[str]) -> set[type[Step]]:
        plan = plans.plan_succession(
            wanted, members, (world.client,), direction, "m2", until, **word
        )
        assert bool(plan.warnings) == (plans.RetireAuthority not in set(map(type, plan.steps)))
        return set(map(type, plan.steps))

    assert plans.ExchangeAuthorities not in kinds()
    trusting = kinds(trusting=frozenset({"calico"}))
    assert plans.VerifyIssuers in trusting
    assert plans.RetireAuthority not in trusting
    assert plans.RetireAuthority in kinds(renewed=frozenset({"calico"}))


def test_a_pair_of_a_stranger_is_refused() -> None:
    """Nobody knows who else is locked out by it."""
    world = World()
    world.members["m3"] = replace(
        world.members["m3"], issuers={"server": None, "peer": OLD, "client": OLD}
    )
    with pytest.raises(Refused, match=r"m3: its server pair is signed by neither"):
        world.plan()


def test_a_client_that_was_not_told_is_told_by_the_next_run() -> None:
    """Its file is right, but whether it has read it nobody knows."""
    world = World()
    world.client = replace(world.client, has_pending_change=True)
    plan = world.plan()
    assert plan is not None
    written = [s.name for s in plan.steps if isinstance(s, plans.WriteTrust)]
    assert written.count("api") == 2
    assert "made to read" in barriers.find_trust_obstacles((world.client,), frozenset({OLD}))[0]


def test_the_direction_follows_from_the_authorities_on_the_runner() -> None:
    """A successor is made only where nothing is under way."""
    choose = plans.choose_direction
    current, after, before = Generation.CURRENT, Generation.NEXT, Generation.PREVIOUS
    fresh = choose({current: OLD}, reverse=False)
    assert fresh is not None
    assert fresh.target == UNMADE
    assert choose({current: OLD}, reverse=True) is None
    begun, done = {current: OLD, after: NEW}, {current: NEW, before: OLD}
    for names, reverse, target, incoming in (
        (begun, False, NEW, after),
        (begun, True, OLD, None),
        (done, False, NEW, None),
        (done, True, OLD, before),
    ):
        chosen = choose(names, reverse=reverse)
        assert chosen is not None
        assert (chosen.target, chosen.incoming) == (target, incoming)
