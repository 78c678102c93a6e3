"""Messages that point to a runbook, followed from the very situation in which they are told.

The plan of the runbook pointed to is made from the same observation: it leads on, with steps or
with a question to the operator, and never back to where the message came from.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.errors import Refused
from tasks.model.members import Alarm, AlarmType, DesiredMember, Member, SeenMember, format_id
from tasks.model.observation import DataDirectory, HostObservation
from tasks.model.plan import Plan
from tasks.model.urls import split_url
from tasks.plans.agreement import refuse_disagreement, refuse_gone
from tasks.plans.health import alarm_sentences, down_way_out
from tasks.plans.leaves import Work, refuse_reinstalled
from tasks.plans.member_changes import plan_members
from tasks.plans.member_hosts import find_leavers, settle_in_place
from tasks.plans.reconfiguration import order_changes, order_move
from tasks.plans.recovery import Damage, ReviveMember, plan_recovery
from tasks.plans.rotation import plan_rotation
from tasks.plans.voters import refuse_without_members, refuse_without_quorum
from tests.unit.plan_cases import NAMES, bare, finished, inventory, target
from tests.unit.test_plans_rotation import pairs_of

INVENTORY = inventory()
MEMBERS = tuple(
    DesiredMember(name, f"https://10.0.0.{n}:2380", f"https://10.0.0.{n}:2379")
    for n, name in enumerate(NAMES, 1)
)
NEW = DesiredMember("m4", "https://10.0.0.4:2380", "https://10.0.0.4:2379")
ROWS = tuple(Member(n, m.name, (m.peer_url,), (m.client_url,)) for n, m in enumerate(MEMBERS, 1))
STRANGER = Member(9, "odd", ("https://10.0.0.9:2380",), ("https://10.0.0.9:2379",))
NOTHING: Work = {name: {"server": (), "peer": ()} for name in NAMES}
DUE: Work = {**NOTHING, "m1": {"server": ("it expires soon",), "peer": ()}}


def health(
    *down: str, rows: tuple[Member, ...] = ROWS, alarms: tuple[Alarm, ...] = ()
) -> ClusterHealth:
    """See the cluster while some members are down; the leader is the first that is up."""
    up = [row for row in rows if row.name not in down]
    has_quorum = len(up) > len(rows) // 2
    leader = up[0].id if has_quorum else 0
    status = EndpointStatus(7, 0, "3.5.30", leader, 2, 9, 9, 100, 50)
    return ClusterHealth(
        tuple(
            EndpointHealth(row.name, row.client_urls[0], is_healthy=False, error="refuses")
            if row.name in down
            else EndpointHealth(
                row.name,
                row.client_urls[0],
                is_healthy=has_quorum,
                status=replace(status, member_id=row.id),
                members=rows,
                alarms=alarms,
                reads=has_quorum,
            )
            for row in rows
        ),
        reads_linearizable=has_quorum,
    )


def said(check: object, *facts: object) -> str:
    """Get the message of a check that refuses."""
    assert callable(check)
    with pytest.raises(Refused) as refused:
        check(*facts)
    return refused.value.message


def pointed(message: str, runbook: str) -> dict[str, list[str]]:
    """Read what a message says to run, from its command line."""
    found = re.search(rf"\(command line: {runbook} ([^)]*)\)", message)
    assert found, message
    options: dict[str, list[str]] = {}
    for name, value in re.findall(r"--([a-z-]+)(?: (?!--)(\S+))?", found[1]):
        options.setdefault(name, []).append(value)
    return options


def plan_replacement(
    live: tuple[SeenMember, ...], words: list[str], joining: DesiredMember, host: HostObservation
) -> Plan:
    """Plan replace_member as the flow does."""
    leavers = find_leavers(words, INVENTORY, live, (joining,))
    return plan_members(
        "replace_member",
        INVENTORY,
        live,
        settle_in_place(leavers, live, (joining,), planned=False),
        (joining,),
        {host.host: host},
        {host.host: target(host.host)},
        planned=False,
        configured=frozenset(),
        outdated={},
    )


def joins(plan: Plan) -> bool:
    """Whether a plan ends with a new voter."""
    return [type(step).__name__ for step in plan.steps][-1] == "PromoteMember"


def plan_recovery_of(*down: str) -> Plan:
    """Plan recover_certificates for sound pairs and members that are down."""
    return plan_recovery(
        INVENTORY, Damage(False, (), NOTHING, down), health(*down), {}, consent=False
    )


def test_a_member_that_the_list_lacks_can_be_let_in_again() -> None:
    """By both ways that the message names, with the member's host bare or with its old data."""
    live = health("m3", rows=ROWS[:2]).seen_members()
    message = said(refuse_gone, MEMBERS, live)
    words = pointed(message, "replace_member")["member"]
    old = bare("m3", data=DataDirectory.INITIALISED)
    for host in (bare("m3"), old):
        assert joins(plan_replacement(live, words, MEMBERS[2], host))
    leaving = pointed(message, "remove_member")
    assert leaving["write-inventory"] == [""]
    (leaver,) = find_leavers(leaving["member"], INVENTORY, live, ())
    assert leaver.member_id is None  # out of the inventory alone
    assert order_changes(live, frozenset(), (), planned=True) == ()


def test_a_member_that_the_inventory_lacks_can_be_taken_out() -> None:
    """By its id, healthy or down."""
    for down in ((), ("odd",)):
        live = health(*down, rows=(*ROWS, STRANGER)).seen_members()
        message = said(refuse_disagreement, live, MEMBERS)
        (word,) = pointed(message, "remove_member")["member"]
        assert word == format_id(STRANGER.id)
        (leaver,) = find_leavers([word], INVENTORY, live, ())
        assert leaver.member_id == STRANGER.id
        assert order_changes(live, frozenset({STRANGER.id}), (), planned=True)


def test_a_member_at_another_address_than_the_inventorys_can_be_moved_to_it() -> None:
    """With its restart, as update_member does it; once it is there, nobody disagrees any more."""
    elsewhere = replace(
        ROWS[1], peer_urls=("https://10.0.0.9:2380",), client_urls=("https://10.0.0.9:2379",)
    )
    live = health(rows=(ROWS[0], elsewhere, ROWS[2])).seen_members()
    options = pointed(said(refuse_disagreement, live, MEMBERS), "update_member")
    wish = MEMBERS[1]
    assert options == {"member": [wish.name], "address": [split_url(wish.peer_url)[0]]}
    assert [type(step).__name__ for step in order_move(live, wish, restarts=True)]
    refuse_disagreement(live, MEMBERS, named=frozenset({wish.name}))
    refuse_disagreement(health().seen_members(), MEMBERS)


def test_a_dead_member_can_be_replaced_by_another_host() -> None:
    """While there is a quorum check_health points to it; the plan takes that command."""
    seen = health("m3")
    message = down_way_out(INVENTORY, seen)
    assert message
    options = pointed(message, "replace_member")
    assert options["cluster"] == [INVENTORY.name]
    assert options["replacement"] == ["NAME=ADDRESS"]
    host = replace(bare("m3"), host="m4")
    assert joins(plan_replacement(seen.seen_members(), options["member"], NEW, host))


def test_without_a_quorum_recovery_starts_what_is_down() -> None:
    """Check_health, and every runbook for members, point there; sound pairs are no refusal."""
    seen = health("m2", "m3")
    messages = (
        down_way_out(INVENTORY, seen) or "",
        said(refuse_without_quorum, seen.seen_members()),
        said(refuse_without_members, ()),
    )
    for message in messages:
        assert "recover_certificates" in message
        assert "replace_member" not in message  # it needs a quorum
    plan = plan_recovery_of("m2", "m3")
    assert [s.host for s in plan.steps if isinstance(s, ReviveMember)] == list(NAMES)


def test_a_rotation_that_must_wait_for_members_is_led_out() -> None:
    """It names check_health, which then has a way out, and recovery, which then has work."""
    seen = health("m3")
    message = said(plan_rotation, INVENTORY, MEMBERS, seen, DUE, {})
    assert "check_health says how" in message
    assert down_way_out(INVENTORY, seen)
    assert plan_recovery_of("m3").steps


def test_a_reinstalled_host_can_join_again() -> None:
    """A rotation finds no pair there, and its member is down."""
    sound = {name: pairs_of(name) for name in NAMES}
    message = said(refuse_reinstalled, INVENTORY, {**sound, "m2": pairs_of("m2", bare=True)})
    words = pointed(message, "replace_member")["member"]
    live = health("m2").seen_members()
    assert joins(plan_replacement(live, words, MEMBERS[1], bare("m2")))


def test_after_a_corrupt_member_was_removed_by_hand_it_joins_anew() -> None:
    """The alarm is taken back by the same commands; its host still has the old data."""
    alarm = Alarm(ROWS[2].id, AlarmType.CORRUPT)
    *_, message = alarm_sentences(INVENTORY, health(alarms=(alarm,)), {})
    assert pointed(message, "replace_member")["cluster"] == [INVENTORY.name]
    live = health("m3", rows=ROWS[:2]).seen_members()
    assert joins(plan_replacement(live, ["m3"], MEMBERS[2], finished("m3")))


def test_consent_is_asked_once() -> None:
    """With the parameter that the refusal names, the plan is made."""
    absent = {"m2": "no answer", "m3": "no answer"}
    damage = Damage(False, ("m1",), NOTHING, ())
    for unreachable, seen in ((absent, None), ({}, health())):
        with pytest.raises(Refused, match=r"consent=true \(command line: --consent\)"):
            plan_recovery(INVENTORY, damage, seen, unreachable, consent=False)
        assert plan_recovery(INVENTORY, damage, seen, unreachable, consent=True).steps
