"""A quota is raised to what the inventory says, by consent; else a message says how."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.model.inventory import Inventory
from tasks.model.plan import Severity
from tasks.model.space import DiskRoom
from tasks.plans.quotas import (
    MOST,
    RAISE,
    RaiseQuota,
    find_quota_findings,
    plan_raises,
    tell_raise,
    wanted_quota,
)
from tasks.plans.space import (
    Compaction,
    DefragmentMember,
    DisarmAlarms,
    Rules,
    find_full,
    plan_space,
    tell_full,
)
from tests.unit.plan_cases import inventory
from tests.unit.test_plans_space import MIB, NOSPACE, health, sight, stacked

QUOTAS = {"m1": 250 * MIB, "m2": 250 * MIB, "m3": 100 * MIB}


def saying(quota: int | None) -> Inventory:
    """Make an inventory with this quota."""
    settings = {"quota_backend_bytes": quota}
    etcd = {"version": "3.5.16", "binaries": {"source": "installed"}, "settings": settings}
    return inventory(etcd=etcd)


@pytest.mark.parametrize(
    ("size", "quotas", "hosts"),
    [
        (300, QUOTAS, ["m2", "m3", "m1"]),
        (250, QUOTAS, ["m3"]),
        (100, QUOTAS, []),
        (300, {}, ["m2", "m3", "m1"]),
    ],
)
def test_members_with_less_have_a_restart_and_the_leader_comes_last(
    size: int, quotas: dict[str, int], hosts: list[str]
) -> None:
    """Those with as much have none, so that a second run does nothing."""
    steps = plan_raises(saying(size * MIB), ("m2", "m3", "m1"), quotas)
    assert [(step.host, step.stage) for step in steps] == [(name, RAISE) for name in hosts]
    assert all(isinstance(step, RaiseQuota) and step.size == size * MIB for step in steps)


def test_what_is_full_of_data_in_use_is_raised_and_not_defragmented() -> None:
    """The alarm is taken back by the quotas as they are then."""
    wanted = saying(500 * MIB)
    found = health(NOSPACE, sizes=((250, 249),) * 3)
    seen = replace(sight(found), raised=wanted_quota(wanted))
    plan = plan_space(wanted, seen, Rules(), Compaction(None, "as it is"))
    assert [type(step) for step in plan.steps] == [*[RaiseQuota] * 3, DisarmAlarms]
    assert [step.host for step in plan.steps] == ["m2", "m3", "m1", None]
    assert not find_full(seen.statuses, seen.limits)
    without = plan_space(wanted, sight(found), Rules(), Compaction(None, "as it is"))
    assert [type(step) for step in without.steps] == [*[DefragmentMember] * 3, DisarmAlarms]
    assert find_full(seen.statuses, seen.quotas)


@pytest.mark.parametrize(
    ("wanted", "severities", "said"),
    [
        (saying(None), [Severity.REFUSAL], "quota_backend_bytes (twice as much is 524288000)"),
        (saying(200 * MIB), [Severity.REFUSAL], "members have 250.0 MiB already"),
        (saying(250 * MIB), [], ""),
        (saying(500 * MIB), [], ""),
        (saying(900 * MIB), [Severity.WARNING], "700.0 MiB more"),
        (saying(MOST + 1), [Severity.WARNING] * 2, "documents advise"),
        (stacked(), [Severity.REFUSAL], "etcd.local.extraArgs"),
    ],
)
def test_only_what_the_inventory_says_is_raised_to(
    wanted: Inventory, severities: list[Severity], said: str
) -> None:
    """A smaller number is refused, a disk that is too small is told."""
    rooms = {"m1": DiskRoom(500 * MIB, "/var"), "m2": DiskRoom(MOST, "/var")}
    sizes = {"m1": 200 * MIB, "m2": 200 * MIB}
    found = find_quota_findings(wanted, QUOTAS, sizes, rooms)
    assert [one.severity for one in found] == severities
    assert said in "\n".join(map(str, found))


def test_a_full_cluster_is_told_the_command_that_raises() -> None:
    """Of static pods, what is to be written where."""
    seen = sight(health(NOSPACE, sizes=((250, 249),) * 3))
    told = tell_full(saying(None), seen.statuses, seen)
    assert "reclaim_space with cluster=c1, raise_quota=true" in told
    assert "twice as much is 524288000" in told
    assert "--quota-backend-bytes=524288000" in tell_full(stacked(), seen.statuses, seen)
    assert "quota_backend_bytes, and run" in tell_raise(saying(None), ())
