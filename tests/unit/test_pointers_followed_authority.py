"""Messages of a succession of authorities that say what to run with which word, followed.

The plan is made again from the same observation with the parameter that the message names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from tasks.model.certificates import Generation
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import Refused
from tasks.model.members import DesiredMember
from tasks.model.plan import Plan
from tasks.model.pointers import parameter
from tasks.model.sharing import FileUser, Sharing, StrayCertificate
from tasks.model.trust import TrustView
from tasks.plans import sharing
from tasks.plans import succession as plans
from tasks.plans.recovery import Damage, plan_recovery
from tasks.plans.rotation import plan_rotation
from tests.unit.plan_cases import NAMES, inventory
from tests.unit.test_pointers_followed import MEMBERS, NOTHING, ROWS, health

OLD, NEW = "a" * 64, "b" * 64
BOTH, ALONE = frozenset({OLD, NEW}), frozenset({OLD})
BEGUN = {Generation.CURRENT: OLD, Generation.NEXT: NEW}
UNMANAGED = inventory(clients=[{"name": "calico", "managed": False}])


def views(**changes: object) -> tuple[TrustView, ...]:
    """See three members that trust and use the old authority alone, but for `changes` of all."""
    pairs: dict[str, str | None] = {"server": OLD, "peer": OLD}
    return tuple(
        replace(TrustView(name, ALONE, ALONE, pairs, ALONE), **changes)  # type: ignore[arg-type]
        for name in NAMES
    )


def succeed(
    members: tuple[TrustView, ...], until: plans.Until = plans.Until.END, **words: frozenset[str]
) -> Plan:
    """Plan a rotation that has begun on the runner."""
    direction = plans.choose_direction(BEGUN, reverse=False)
    assert direction is not None
    return plans.plan_succession(UNMANAGED, members, (), direction, "m2", until, **words)


def said(check: Callable[..., object], *facts: object, **more: object) -> str:
    """Get the message of a check that refuses."""
    with pytest.raises(Refused) as refused:
        check(*facts, **more)
    return refused.value.message


def pointed(message: str, option: str) -> list[str]:
    """Read what a message says to add to the command line."""
    found = re.search(r"\(command line: ([^)]*)\)", message)
    assert found is not None, message
    return re.findall(rf"--{option}(?: (?!--)(\S+))?", found[1])


def has(plan: Plan, kind: type) -> bool:
    """Whether a plan has a step of a kind."""
    return any(isinstance(step, kind) for step in plan.steps)


def test_the_word_about_a_client_opens_the_barrier_at_which_it_is_asked() -> None:
    """First that it trusts both, then that it is renewed; each leads to the next stage."""
    waits = succeed(views())
    assert not has(waits, plans.ExchangeAuthorities)
    (trusting,) = pointed(waits.warnings[0], "clients-trusting")
    goes_on = succeed(views(), trusting=frozenset({trusting}))
    assert has(goes_on, plans.ExchangeAuthorities)
    assert not has(goes_on, plans.RetireAuthority)
    (renewed,) = pointed(goes_on.warnings[0], "clients-renewed")
    ends = succeed(views(), renewed=frozenset({renewed}))
    assert has(ends, plans.RetireAuthority)
    assert ends.warnings == ()


def test_an_outage_of_a_small_cluster_is_taken_with_the_word_that_is_asked_for() -> None:
    """Two members: each restart is one. It is asked for once, and not where it would not help."""
    members = MEMBERS[:2]
    seen = health(rows=ROWS[:2])
    plan = succeed(views()[:2])

    def check(members: tuple[DesiredMember, ...], seen: ClusterHealth, *, accept: bool) -> None:
        plans.refuse_unless_safe(plan, members, seen, accept_outage=accept)

    message = said(check, members, seen, accept=False)
    assert pointed(message, "accept-outage") == [""]
    check(members, seen, accept=True)
    ill = said(check, MEMBERS, health("m3"), accept=False)
    assert "accept_outage" not in ill


def test_files_of_others_are_changed_with_the_word_that_is_asked_for() -> None:
    """And are listed in the plan's warnings then."""
    seen = (Sharing("m1", (FileUser("/etc/etcd/ssl/ca.pem", "haproxy", 1, "x"),), (), ()),)
    accept = parameter(accept_shared=True)
    message = said(sharing.refuse_users, UNMANAGED, seen, accepted=False, accept=accept)
    assert pointed(message, "accept-shared") == [""]
    (shown,) = sharing.refuse_users(UNMANAGED, seen, accepted=True, accept=accept)
    assert shown in message


def test_who_must_not_be_locked_out_yet_is_left_by_stopping_before_the_end() -> None:
    """The refusal is about the retirement, which is not in the plan that the message names."""
    node = "/etc/ssl/node.pem"
    stray = StrayCertificate(node, OLD, FileUser(node, "kube-apiserver", 1, "x"))
    seen = (Sharing("m1", (), (), (stray,)),)
    message = said(sharing.refuse_strays, UNMANAGED, seen, OLD)
    (until,) = pointed(message, "until")
    stops = succeed(views(), plans.Until(until), renewed=frozenset({"calico"}))
    assert has(stops, plans.VerifyIssuers)
    assert not has(stops, plans.RetireAuthority)


def test_a_pair_of_a_stranger_is_brought_to_one_authority_first() -> None:
    """By a rotation of that pair, or where it keeps the member down by recovery; then it goes."""
    strange = replace(views()[2], issuers={"server": None, "peer": OLD})
    message = said(succeed, (*views()[:2], strange))
    assert "rotate_certificates or recover_certificates brings them to one" in message
    work = {**NOTHING, "m3": {"server": ("it is signed by another authority",), "peer": ()}}
    assert plan_rotation(UNMANAGED, MEMBERS, health(), work, {}).steps
    damage = Damage(has_expired_authority=False, distrusting=(), work=work, down=("m3",))
    assert plan_recovery(UNMANAGED, damage, health("m3"), {}, consent=False).steps
    assert succeed(views()).steps


def test_members_that_serve_are_not_recovered_but_rotated_one_by_one() -> None:
    """Where a rotation of the cluster's own authorities was left half-done."""
    damage = Damage(has_expired_authority=False, distrusting=("m3",), work=NOTHING, down=())
    message = said(plan_recovery, UNMANAGED, damage, health(), {}, consent=False)
    assert "rotate_authority does it one by one" in message
    half_done = (*views(trusted=BOTH, accepted=BOTH)[:2], views()[2])
    restarts = [s.host for s in succeed(half_done).steps if isinstance(s, plans.RestartMember)]
    assert restarts == ["m3"]
