"""Who is defragmented, in which order, how much history goes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.inventory import Inventory, Topology
from tasks.model.members import Alarm, AlarmType, DesiredMember, Member
from tasks.model.plan import Severity
from tasks.model.space import DiskRoom, Growth, Prefix, SpaceRow, Survey
from tasks.plans.fullness import judge_space
from tasks.plans.space import (
    MOST_LAG,
    CompactHistory,
    Compaction,
    DefragmentMember,
    DisarmAlarms,
    Rules,
    SpaceSight,
    choose_revision,
    find_full,
    find_space_findings,
    find_space_obstacles,
    plan_space,
    refuse_stops,
    tell_fillers,
    tell_full,
)
from tasks.report.space import fillers_table
from tests.unit.plan_cases import inventory

MIB = 1 << 20
NOW = datetime(2026, 11, 27, 22, tzinfo=UTC)
MEMBERS = tuple(
    DesiredMember(f"m{i}", f"https://10.0.0.{i}:2380", f"https://10.0.0.{i}:2379")
    for i in (1, 2, 3)
)
ROWS = tuple(Member(i, m.name, (m.peer_url,), (m.client_url,)) for i, m in enumerate(MEMBERS, 1))
NOSPACE = Alarm(2, AlarmType.NOSPACE)
NO_HISTORY = Compaction(None, "it is not known")


def health(*alarms: Alarm, sizes: tuple[tuple[int, int], ...] = ((200, 50),) * 3) -> ClusterHealth:
    """Make three members, m1 leading, with these databases in MiB: all of it, and in use."""
    return ClusterHealth(
        tuple(
            EndpointHealth(
                m.name,
                m.client_url,
                is_healthy=True,
                status=EndpointStatus(
                    7, i, "3.5.30", 1, 2, 9, 9, size * MIB, used * MIB, revision=500
                ),
                members=ROWS,
                alarms=alarms,
            )
            for i, (m, (size, used)) in enumerate(zip(MEMBERS, sizes, strict=True), 1)
        ),
        reads_linearizable=True,
    )


def sight(found: ClusterHealth | None = None, **changes: Any) -> SpaceSight:  # noqa: ANN401
    """Make what is seen of a healthy cluster with a quota of 250 MiB."""
    survey = Survey(5, (Prefix("/registry/events/", 5, 40 * MIB, 5, 40 * MIB),), is_whole=True)
    quotas = dict.fromkeys(("m1", "m2", "m3"), 250 * MIB)
    seen = SpaceSight(MEMBERS, found or health(), quotas, {}, (), survey, False, NOW)
    return replace(seen, **changes)


def look(minutes: float, revision: int) -> SpaceRow:
    """Make an earlier look."""
    return SpaceRow(NOW - timedelta(minutes=minutes), revision, MIB, MIB)


@pytest.mark.parametrize(
    ("size", "used", "alarmed", "due"),
    [
        (200, 50, False, True),
        (190, 105, False, False),
        (99, 10, False, False),
        (99, 10, True, False),
        (225, 224, True, True),
        (200, 180, False, True),
        (199, 180, False, False),
        (200, 195, False, False),
        (200, 195, True, False),
    ],
)
def test_a_member_is_due_by_free_share_size_and_quota(
    size: int, used: int, alarmed: bool, due: bool
) -> None:
    """45 % and 100 MiB; 80 % of the quota (250) with something to give back; the alarm."""
    status = EndpointStatus(7, 1, "3.5.30", 1, 2, 9, 9, size * MIB, used * MIB)
    assert Rules().is_due(status, 250 * MIB, alarmed=alarmed) is due


@pytest.mark.parametrize(
    ("size", "used", "due"), [(64, 20, True), (52, 40, True), (50, 10, False), (63, 61, False)]
)
def test_near_a_small_quota_a_member_is_due_whatever_its_size(
    size: int, used: int, due: bool
) -> None:
    """A database can reach 64 MiB and never 100."""
    status = EndpointStatus(7, 1, "3.5.30", 1, 2, 9, 9, size * MIB, used * MIB)
    assert Rules().is_due(status, 64 * MIB, alarmed=False) is due
    assert Rules().is_due(status, None, alarmed=False) is False


def test_a_compaction_may_make_a_small_full_database_due() -> None:
    """Its turn comes, where a quota is near; a small one far from it is left."""
    seen = sight(health(sizes=((60, 59), (60, 59), (20, 19))))
    small = replace(seen, quotas=dict.fromkeys(seen.quotas, 64 * MIB))
    plan = plan_space(inventory(), small, Rules(), Compaction(7, "old"))
    hosts = [step.host for step in plan.steps if isinstance(step, DefragmentMember)]
    assert hosts == ["m2", "m1"]
    assert plan_space(inventory(), small, Rules(), NO_HISTORY).steps == ()


def test_followers_come_first_and_the_leader_last() -> None:
    """Each one on its host, so that the gate stands before it."""
    plan = plan_space(inventory(), sight(), Rules(), NO_HISTORY)
    assert [type(step) for step in plan.steps] == [DefragmentMember] * 3
    assert [step.host for step in plan.steps] == ["m2", "m3", "m1"]
    assert plan.goal == "databases are small again: m1, m2, m3"
    assert "150.0 MiB of 200.0 MiB are free" in plan.steps[2].sentence
    assert any("/registry/events/: 5 keys" in text for text in plan.warnings)


def test_what_was_approved_is_the_same_while_clients_write() -> None:
    """Sizes and revisions move from look to look; which member is due does not."""
    shown = plan_space(inventory(), sight(), Rules(), Compaction(7, "old"))
    later = sight(health(sizes=((201, 51), (202, 52), (203, 53))))
    made = plan_space(inventory(), later, Rules(), Compaction(900, "old"))
    assert [s.sentence for s in made.steps] != [s.sentence for s in shown.steps]
    assert made.digest == shown.digest
    fewer = sight(health(sizes=((200, 50), (200, 50), (60, 50))))
    assert plan_space(inventory(), fewer, Rules(), NO_HISTORY).digest != shown.digest


def test_members_that_are_stopped_meanwhile_need_two_others_and_a_unit() -> None:
    """Else it is refused; the plan says how long nothing else may be lost."""
    seen = sight()
    assert refuse_stops(inventory(), seen) == ()
    (few,) = refuse_stops(inventory(), replace(seen, members=MEMBERS[:2]))
    (pods,) = refuse_stops(stacked(), seen)
    assert few.severity is pods.severity is Severity.REFUSAL
    plan = plan_space(inventory(), seen, Rules(stops=True), NO_HISTORY)
    assert all("no other member may be lost" in step.sentence for step in plan.steps)
    assert not any("stop_members" in text for text in plan.warnings)
    serving = plan_space(inventory(), seen, Rules(), NO_HISTORY)
    assert any("stop_members=true" in text for text in serving.warnings)
    assert not any(
        "stop_members" in text for text in plan_space(stacked(), seen, Rules(), NO_HISTORY).warnings
    )


def stacked() -> Inventory:
    """Make a cluster of static pods."""
    return inventory().model_copy(update={"topology": Topology.STACKED})


def test_where_nothing_is_due_nothing_is_done() -> None:
    """And without an alarm that is no refusal."""
    small = sight(health(sizes=((50, 10),) * 3))
    assert plan_space(inventory(), small, Rules(), NO_HISTORY).steps == ()


def test_a_compaction_may_make_more_members_due() -> None:
    """They have a step that asks the rules at its turn; small ones have none."""
    seen = sight(health(sizes=((200, 190), (200, 50), (50, 49))))
    plan = plan_space(inventory(), seen, Rules(), Compaction(7, "old"))
    assert [type(step) for step in plan.steps] == [CompactHistory, *[DefragmentMember] * 2]
    assert [step.host for step in plan.steps] == [None, "m2", "m1"]
    assert "only if the compaction leaves" in plan.steps[2].sentence


def test_out_of_nospace_go_all_that_are_in_its_way_and_the_alarm_is_taken_last() -> None:
    """Whatever etcd counts as in use: nothing is written that would let it count anew."""
    seen = sight(health(NOSPACE, sizes=((250, 249), (250, 249), (50, 20))))
    plan = plan_space(inventory(), seen, Rules(), Compaction(500, "nobody writes"))
    kinds = [CompactHistory, *[DefragmentMember] * 2, DisarmAlarms]
    assert [type(step) for step in plan.steps] == kinds
    assert [step.host for step in plan.steps] == [None, "m2", "m1", None]


def test_a_cluster_full_of_what_is_in_use_is_told_what_fills_it() -> None:
    """And what to do."""
    seen = sight(health(NOSPACE, sizes=((250, 249),) * 3))
    told = tell_full(inventory(), seen.statuses, seen)
    assert "/registry/events/: 5 keys" in told
    assert "keep_revisions=0" in told
    assert "full of what is in use" in told
    small = replace(seen, rooms={"m2": DiskRoom(10 * MIB, "/var")})
    told = tell_full(inventory(), seen.statuses, small)
    assert "a disk lacks room to defragment" in told
    assert "/var has 10.0 MiB" in told


def test_what_is_written_again_and_again_is_told_though_it_is_small() -> None:
    """One key that fills the database with history is none of the largest prefixes."""
    large = [Prefix(f"large/{n}/", 9, 9 * MIB, 9, 9 * MIB) for n in range(30)]
    lease = Prefix("leases/", 1, 200, 900_000, 180 * MIB)
    survey = Survey(271, (*large, lease), is_whole=True)
    _, history, _ = tell_fillers(sight(survey=survey))
    assert history.endswith("leases/: 1 keys, about 900000 times, 180.0 MiB")
    rows = fillers_table(survey).rows
    assert [row[0] for row in rows[-2:]] == ["leases/", "others"]
    assert rows[-1][1] == "90"
    assert len(tell_fillers(sight())) == 2


def test_an_alarm_that_outlived_its_reason_is_taken_back() -> None:
    """Somebody has defragmented by hand and forgotten it."""
    seen = sight(health(NOSPACE, sizes=((50, 49),) * 3))
    plan = plan_space(inventory(), seen, Rules(), NO_HISTORY)
    assert [type(step) for step in plan.steps] == [DisarmAlarms]


@pytest.mark.parametrize(
    ("changes", "keep", "revisions", "expected"),
    [
        ({"rows": (look(60, 300), look(4, 400))}, None, None, 300),
        ({"rows": (look(60, 300), look(4, 400))}, 3, None, 400),
        ({"rows": (look(4, 400),)}, None, None, None),
        ({"rows": (look(60, 1), look(4, 400))}, None, None, None),
        ({}, None, 100, 400),
        ({}, None, 500, None),
        ({"has_apiservers": True, "rows": (look(60, 300),)}, None, None, None),
        ({"has_apiservers": True}, None, 100, None),
    ],
)
def test_history_goes_up_to_what_is_known_to_be_old(
    changes: dict[str, Any], keep: int | None, revisions: int | None, expected: int | None
) -> None:
    """By earlier looks, or by count; API servers are left to do it themselves."""
    minutes = None if keep is None else timedelta(minutes=keep)
    assert choose_revision(sight(**changes), minutes, revisions).revision == expected


@pytest.mark.parametrize(
    ("changes", "keep", "expected", "wait"),
    [
        ({}, None, 500, 0),
        ({"rows": (look(9, 400),)}, None, 500, 0),
        ({"rows": (look(9, 400),)}, 8, 400, 0),
        ({"rows": (look(60, 400),)}, 8, 500, 8),
        ({"rows": (look(9, 1),)}, 8, 500, 8),
        ({"has_apiservers": True}, None, 500, 5),
        ({"has_apiservers": True, "rows": (look(9, 400),)}, None, 400, 0),
        ({"has_apiservers": True}, 0, 500, 0),
    ],
)
def test_in_nospace_all_history_goes_that_nobody_asked_for(
    changes: dict[str, Any], keep: int | None, expected: int, wait: int
) -> None:
    """API servers need five minutes of it: an earlier look tells which, or the run waits."""
    minutes = None if keep is None else timedelta(minutes=keep)
    found = choose_revision(sight(health(NOSPACE), **changes), minutes, None)
    assert (found.revision, found.after) == (expected, timedelta(minutes=wait))


def test_a_member_that_is_down_behind_or_ill_shuts_the_gate() -> None:
    """And so does data that differs."""
    whole = health()
    assert find_space_obstacles(MEMBERS, whole) == ()
    one = whole.endpoints[1]
    assert one.status is not None
    behind = replace(one, status=replace(one.status, raft_applied_index=9 + MOST_LAG + 1))
    lagging = replace(whole, endpoints=(whole.endpoints[0], behind, whole.endpoints[2]))
    told = find_space_obstacles(MEMBERS, lagging)
    assert [text.partition(":")[0] for text in told] == ["m1", "m3"]
    down = replace(one, status=None, is_healthy=False, error="refuses", members=())
    dead = replace(whole, endpoints=(whole.endpoints[0], down, whole.endpoints[2]))
    assert find_space_obstacles(MEMBERS, dead) == ("m2: refuses",)
    (corrupt,) = find_space_obstacles(MEMBERS, health(Alarm(3, AlarmType.CORRUPT)))
    assert corrupt.startswith("m3: etcd raised the alarm CORRUPT")


def test_a_version_that_a_defragmentation_may_end_is_refused() -> None:
    """3.5.6 is never touched while it serves."""
    whole = health()
    one = whole.endpoints[0]
    assert one.status is not None
    old = replace(one, status=replace(one.status, version="3.5.6"))
    (found,) = find_space_findings(sight(replace(whole, endpoints=(old, *whole.endpoints[1:]))))
    assert (found.severity, found.host) == (Severity.REFUSAL, "m1")


def test_a_disk_without_room_for_a_copy_is_told_with_what_lies_there() -> None:
    """It is no refusal: the others are done, and a compaction may leave less."""
    rooms = {"m2": DiskRoom(10 * MIB, "/var", ("9 /var/lib/etcd/member/snap/db.tmp.1",))}
    seen = sight(rooms=rooms)
    (found,) = find_space_findings(seen)
    assert (found.severity, found.host) == (Severity.WARNING, "m2")
    assert "/var has 10.0 MiB" in found.sentence
    assert "db.tmp.1" in found.sentence
    plan = plan_space(inventory(), seen, Rules(), NO_HISTORY)
    assert [step.host for step in plan.steps] == ["m3", "m1"]
    plan = plan_space(inventory(), seen, Rules(), Compaction(7, "old"))
    assert [step.host for step in plan.steps] == [None, "m2", "m3", "m1"]


def test_full_is_nine_tenths_of_a_quota_that_is_known() -> None:
    """A member whose quota nobody could read does not count."""
    statuses = {e.name: e.status for e in health(sizes=((225, 1), (224, 1), (250, 1))).endpoints}
    known = {name: status for name, status in statuses.items() if status}
    (told,) = find_full(known, {"m1": 250 * MIB, "m2": 250 * MIB})
    assert told.startswith("m1: its database has 225.0 MiB of 250.0 MiB")


@pytest.mark.parametrize(
    ("sizes", "growth", "wrong", "said"),
    [
        ((50, 40), None, False, "known after some hours"),
        ((50, 40), Growth(0.0, None), False, "it does not grow"),
        ((50, 40), Growth(float(MIB), 210.0), False, "1.0 MiB a day, 210 days are left"),
        ((50, 40), Growth(float(40 * MIB), 5.0), True, "5 days are left"),
        ((225, 40), None, True, "90% of the quota of 250.0 MiB"),
        ((200, 40), None, False, "gives back 160.0 MiB"),
    ],
)
def test_a_check_tells_how_full_a_database_is_and_fails_before_etcd_does(
    sizes: tuple[int, int], growth: Growth | None, wrong: bool, said: str
) -> None:
    """At nine tenths of the quota, or a week before it by the growth of what is in use."""
    found = health(sizes=(sizes, (10, 9), (10, 9)))
    quota = 250 * MIB
    endpoints = tuple(
        replace(e, status=replace(e.status, db_quota=quota)) for e in found.endpoints if e.status
    )
    problems, remarks = judge_space(inventory(), replace(found, endpoints=endpoints), growth)
    (told,) = problems if wrong else remarks
    assert said in told
    assert not (remarks if wrong else problems)


def test_while_nospace_is_raised_the_alarm_tells_it() -> None:
    """Once; and a cluster that nobody can ask has no size."""
    full = health(NOSPACE, sizes=((250, 249),) * 3)
    assert judge_space(inventory(), full, None)[0] == ()
    assert judge_space(inventory(), ClusterHealth((), reads_linearizable=False), None) == ((), ())
