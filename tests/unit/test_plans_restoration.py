"""The plan of a restore: from every state that a run may have left, and what forbids it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.errors import Refused
from tasks.model.members import Member, format_id
from tasks.model.plan import Plan
from tasks.model.restores import LogEnd, Mark, RestoreHost, RestoreSource, RestoreTools
from tasks.plans import fences, restore_consent, restore_marks, survivors
from tasks.plans import restoration as plans
from tests.unit.plan_cases import NAMES, inventory

VERSION = "3.5.16"
TOOLS = RestoreTools(PurePosixPath("/usr/local/bin"), VERSION, "etcdutl", bumps=True)
OLD = RestoreTools(PurePosixPath("/usr/bin"), "3.4.23", "etcdctl", bumps=False)
MARK = Mark(
    runbook="restore_cluster",
    token="c1-1",
    sha256="s",
    hosts=NAMES,
    revision=2_000_000_000,
    raised=1_999_999_000,
)
OPENED = MARK.model_copy(update={"opened": True})
WANTED = restore_marks.Wanted(
    runbook="restore_cluster",
    told="a snapshot",
    token="c1-2",
    sha256="s",
    size=1 << 20,
    revision=1000,
    highest=5000,
    left=frozenset(),
)
C1 = inventory()
WITH_APISERVERS = inventory(
    kube_apiservers=[{"name": "api1", "address": "10.0.0.91"}, {"name": "api2", "host": "m1"}]
)


def host(name: str = "m1", **changes: object) -> RestoreHost:
    """Make a host with room and programs, whose member has data and is down."""
    seen = RestoreHost(
        host=name,
        stage=PurePosixPath("/var/lib/etcd/default.etcd.etcd-runbooks-restored"),
        owner="100:100",
        has_data=True,
        marked=None,
        staged=None,
        is_installed=True,
        runs=False,
        is_isolated=False,
        port_user="",
        free=1 << 40,
        data_bytes=1 << 20,
        tools=(TOOLS, OLD),
    )
    return replace(seen, **changes)  # type: ignore[arg-type]


def hosts(**changes: object) -> tuple[RestoreHost, ...]:
    """Make the three of them, all alike."""
    return tuple(host(name, **changes) for name in NAMES)


def plan(
    seen: tuple[RestoreHost, ...], wanted: restore_marks.Wanted = WANTED
) -> dict[str, set[str]]:
    """Plan, and list the hosts by the kind of step."""
    mark, _ = restore_marks.choose_mark(C1, wanted, seen)
    found: dict[str, set[str]] = {}
    for step in plans.plan_restoration(C1, wanted, seen, mark, None).steps:
        found.setdefault(type(step).__name__, set()).add(step.host or "runner")
    return found


def test_what_was_approved_is_the_same_after_another_check() -> None:
    """A scheduled look notes a higher revision while the plan waits, and the mark goes above it."""

    def made(wanted: restore_marks.Wanted) -> Plan:
        mark, _ = restore_marks.choose_mark(C1, wanted, hosts())
        return plans.plan_restoration(C1, wanted, hosts(), mark, None)

    one, other = made(WANTED), made(replace(WANTED, highest=WANTED.highest + 5))
    assert one.steps != other.steps
    assert one.digest == other.digest
    assert made(replace(WANTED, told="another snapshot")).digest != one.digest


ALL = set(NAMES)
LAST = {"OpenMember": ALL, "VerifyOpened": {"runner"}, "MarkOpened": ALL}
OUTSIDE = replace(WANTED, apiservers=("api1", "api2"))
APISERVERS = {"SilenceApiserver": {"api1", "api2"}, "ResumeApiserver": {"api1", "api2"}}
ISOLATED = {"StopMember": ALL, "IsolateMember": ALL, "ProveData": {"runner"}, **LAST}


@pytest.mark.parametrize(
    ("seen", "also"),
    [
        (hosts(), {"RehearseSource": {"runner"}, "ReadyData": ALL, "PlaceData": ALL}),
        (hosts(staged=MARK), {"PlaceData": ALL}),
        (
            (host("m1", staged=MARK), host("m2"), host("m3")),
            {"RehearseSource": {"runner"}, "ReadyData": {"m2", "m3"}, "PlaceData": ALL},
        ),
        (
            (host("m1", marked=MARK), host("m2", staged=MARK), host("m3", staged=MARK)),
            {"PlaceData": {"m2", "m3"}},
        ),
        (hosts(marked=MARK), {}),
        (hosts(marked=MARK, is_isolated=True), {}),
    ],
    ids=["nothing", "all ready", "one ready", "one in place", "all in place", "isolated"],
)
def test_a_run_that_died_is_continued(
    seen: tuple[RestoreHost, ...], also: dict[str, set[str]]
) -> None:
    """By what is on the hosts; what is ready or in place is not made again."""
    assert plan(seen) == ISOLATED | also


def test_api_servers_outside_are_stopped_first_and_started_last() -> None:
    """Before any member; and before it is noted that the restore is over, lest one be forgotten."""
    for survivor in (None, "m1"):
        mark, _ = restore_marks.choose_mark(C1, OUTSIDE, hosts())
        made = plans.plan_restoration(WITH_APISERVERS, OUTSIDE, hosts(), mark, survivor)
        stages = {type(step).__name__: step.stage.number for step in made.steps}
        assert made.hosts_of(plans.SilenceApiserver) == {"api1", "api2"}
        halts = [s.stage.number for s in made.steps if isinstance(s, plans.StopMember)]
        assert stages["SilenceApiserver"] < min(halts)
        assert stages["VerifyOpened"] < stages["ResumeApiserver"] < stages["MarkOpened"]
        assert "api1, api2 by this run" in made.warnings[-1]
    opened = hosts(marked=MARK, runs=True)
    left = plans.plan_restoration(WITH_APISERVERS, OUTSIDE, opened, MARK, None)
    assert not left.hosts_of(plans.SilenceApiserver)
    assert left.hosts_of(plans.ResumeApiserver) == {"api1", "api2"}


@pytest.mark.parametrize(
    ("survivor", "megabytes", "seconds"), [(None, 100, 6), (None, 2000, 14), ("m1", 2000, 67)]
)
def test_how_long_nobody_is_served_is_said(
    survivor: str | None, megabytes: int, seconds: int
) -> None:
    """By the data there are; not where all members were opened by an earlier run."""
    wanted = replace(WANTED, size=megabytes * 10**6)
    made = plans.plan_restoration(C1, wanted, hosts(), MARK, survivor)
    assert f"served about {seconds} s after the first member is stopped" in "".join(made.warnings)
    opened = plans.plan_restoration(C1, wanted, hosts(marked=MARK, runs=True), MARK, survivor)
    assert "served about" not in "".join(opened.warnings)


def test_an_api_server_that_cannot_be_stopped_needs_a_word() -> None:
    """With what to do by hand, and where."""
    wanted = replace(WANTED, apiservers=("api2",), unheard=(("api1", "it is silent"),))
    with pytest.raises(Refused, match=r"(?s)api1: it is silent; there: mv .*stopped-apiservers"):
        restore_consent.check_apiservers(WITH_APISERVERS, wanted)
    taken = replace(wanted, accepts_apiservers=True)
    restore_consent.check_apiservers(WITH_APISERVERS, taken)
    made = plans.plan_restoration(WITH_APISERVERS, taken, hosts(), MARK, None)
    assert made.hosts_of(plans.SilenceApiserver) == {"api2"}
    assert "api2 by this run: stopped first, started last; api1 by you" in made.warnings[-1]


def test_a_host_that_was_opened_is_not_restored_again() -> None:
    """Its clients may have written already: the others are opened, and nothing else."""
    seen = (host("m1", marked=MARK, runs=True), host("m2", marked=MARK), host("m3", marked=MARK))
    assert plan(seen) == LAST
    marked = (host("m1", marked=OPENED, runs=True), *seen[1:])
    assert plan(marked) == LAST


def test_one_that_lost_what_was_opened_is_refused() -> None:
    """It is to join again, since the others serve."""
    seen = (host("m1", marked=MARK, runs=True), host("m2", marked=MARK), host("m3"))
    with pytest.raises(Refused, match=r"m3 has lost .* replace_member"):
        plan(seen)


@pytest.mark.parametrize(
    "changed",
    [
        {"sha256": "other"},
        {"hosts": ("m1", "m2")},
        {"opened": True},
        {"revision": WANTED.highest},
        {"runbook": "recover_quorum"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_another_restore_left_ready_is_not_taken(changed: dict[str, object]) -> None:
    """Of another snapshot, other hosts, one that is over, or revisions that were reached since."""
    left = MARK.model_copy(update=changed)
    mark, is_begun = restore_marks.choose_mark(C1, WANTED, hosts(staged=left))
    assert (mark.token, is_begun) == (WANTED.token, False)
    assert mark.revision == WANTED.highest + restore_marks.LEAP
    assert mark.raised == mark.revision - WANTED.revision


def test_a_restore_that_is_over_is_not_done_again() -> None:
    """The same snapshot on all hosts; one that was replaced since has no mark, and no say."""
    seen = (host("m1", marked=OPENED), host("m2", marked=OPENED), host("m3"))
    assert restore_marks.find_done("s", seen) == OPENED
    assert restore_marks.find_done("other", seen) is None
    assert restore_marks.find_done("s", hosts(marked=MARK)) is None
    assert restore_marks.find_done("s", hosts()) is None
    again = tuple(replace(one, staged=MARK) for one in seen)
    assert restore_marks.find_done("s", again) is None
    assert restore_marks.find_done("s", tuple(replace(one, runs=True) for one in again)) == OPENED


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"free": 1000}, "0 MiB free"),
        ({"tools": (OLD,)}, "/usr/bin has 3.4.23"),
        ({"tools": ()}, "none was found"),
        ({"port_user": "LISTEN nc"}, "is taken"),
        ({"is_installed": False}, "--without m2"),
    ],
)
def test_a_host_that_cannot_be_restored_is_named(changed: dict[str, object], said: str) -> None:
    """Before anything is changed."""
    seen = (host("m1"), host("m2", **changed), host("m3"))
    with pytest.raises(Refused, match=f"m2: .*{said}"):
        restore_consent.refuse_unable(C1, WANTED, seen, is_new=True)


def test_programs_are_lent_and_taken_out_of_a_container() -> None:
    """Where the host has none that stay."""
    inside = replace(TOOLS, directory=PurePosixPath("/proc/7/root/usr/local/bin"))
    seen = (host("m1"), host("m2", tools=(inside,)), host("m3", tools=()))
    wanted = replace(WANTED, has_programs=True)
    restore_consent.refuse_unable(C1, wanted, seen, is_new=True)
    assert plan(seen, wanted)["ProvideTools"] == {"m2", "m3"}


def test_without_a_tool_that_raises_revisions_a_word_is_needed() -> None:
    """And then nothing is raised."""
    old = inventory(etcd={"version": "3.4.23", "binaries": {"source": "installed"}})
    with pytest.raises(Refused, match="old-revisions"):
        restore_consent.refuse_unable(old, WANTED, hosts(), is_new=True)
    wanted = replace(WANTED, accepts_old_revisions=True)
    restore_consent.refuse_unable(old, wanted, hosts(), is_new=True)
    mark, _ = restore_marks.choose_mark(old, wanted, hosts())
    assert (mark.raised, mark.revision) == (0, WANTED.revision)


@pytest.mark.parametrize(
    ("revision", "raised"), [(1000, 1_999_999_000), (1_500_000_000, restore_marks.LEAP)]
)
def test_a_survivors_revision_is_raised_when_it_is_known(revision: int, raised: int) -> None:
    """Above what was recorded, and in any case by a billion."""
    mark = restore_marks.raise_above(MARK.model_copy(update={"sha256": ""}), "x", revision)
    assert (mark.sha256, mark.raised, mark.revision) == ("x", raised, revision + raised)
    unraised = MARK.model_copy(update={"raised": 0})
    assert restore_marks.raise_above(unraised, "x", 7).revision == 7


def test_an_empty_cluster_is_raised_far_enough() -> None:
    """Etcd says that its revision is 1, and its tool raises from 0."""
    wanted = replace(WANTED, revision=1, highest=1)
    mark, _ = restore_marks.choose_mark(C1, wanted, hosts())
    assert 0 + mark.raised >= mark.revision == restore_marks.LEAP + 1
    found = restore_marks.raise_above(mark.model_copy(update={"sha256": ""}), "x", 1)
    assert 0 + found.raised >= found.revision > restore_marks.LEAP


def test_hosts_that_are_gone_are_named_by_the_operator() -> None:
    """One that cannot be reached may come back."""
    with pytest.raises(Refused, match="--without m2"):
        restore_consent.check_hosts(C1, {"m2": "is silent"}, frozenset())
    restore_consent.check_hosts(C1, {"m2": "is silent"}, frozenset({"m2"}))
    for left in ({"m9"}, ALL):
        with pytest.raises(Refused, match="without: "):
            restore_consent.check_hosts(C1, {}, frozenset(left))


def test_one_that_is_left_out_and_can_be_reached_is_stopped() -> None:
    """Its old data must not be served."""
    seen = hosts()[:2]
    wanted = replace(WANTED, left=frozenset({"m3"}), reached=("m3",))
    found = plan(seen, wanted)
    assert found["StopMember"] == ALL
    assert found["PlaceData"] == found["OpenMember"] == {"m1", "m2"}


def test_old_members_that_come_back_are_stopped() -> None:
    """When the recovery is over and all of its members run; nothing else is touched."""
    mark = OPENED.model_copy(update={"hosts": ("m1", "m2")})
    wanted = replace(WANTED, left=frozenset({"m3"}), reached=("m3",))
    over = tuple(host(name, marked=mark, runs=True) for name in ("m1", "m2"))
    fence = plans.plan_fence(C1, wanted, over)
    assert fence is not None
    assert [(type(s).__name__, s.host) for s in fence.steps] == [("StopMember", "m3")]
    for seen in (
        (over[0], replace(over[1], runs=False)),
        (over[0], replace(over[1], marked=None)),
        (over[0], replace(over[1], marked=MARK)),
        over[:1],
    ):
        assert plans.plan_fence(C1, wanted, seen) is None
    assert plans.plan_fence(C1, replace(wanted, reached=()), over) is None
    known = plans.plan_fence(C1, replace(wanted, fenced=("m3",)), (over[0], host("m2", runs=True)))
    assert known is not None
    assert known.hosts_of(plans.StopMember) == {"m3"}


def answers(**ids: int) -> ClusterHealth:
    """Let members answer for clusters."""
    endpoints = (
        EndpointHealth(
            name,
            name,
            is_healthy=bool(cluster),
            status=EndpointStatus(cluster, 1, VERSION, 1, 2, 9, 9, 1, 1) if cluster else None,
        )
        for name, cluster in ids.items()
    )
    return ClusterHealth(tuple(endpoints), reads_linearizable=True)


@pytest.mark.parametrize(
    ("ids", "back"),
    [
        ({"m1": 11, "m2": 10, "m3": 10}, ["m2", "m3"]),
        ({"m1": 0, "m2": 10, "m3": 10}, ["m2", "m3"]),
        ({"m1": 11, "m2": 0, "m3": 10}, ["m3"]),
        ({"m1": 11, "m2": 11, "m3": 11}, []),
        ({"m1": 12, "m2": 12, "m3": 12}, []),
        ({"m1": 10, "m2": 10, "m3": 10}, []),
    ],
    ids=["both", "alone", "one", "none", "unknown", "taken back"],
)
def test_old_members_are_known_by_the_id_that_was_ended(
    ids: dict[str, int], back: list[str]
) -> None:
    """Also where they alone answer; where all members have it, the old data were taken back."""
    fenced = {format_id(10): "recover_quorum of today"}
    found = fences.find_fenced(C1, answers(**ids), fenced)
    assert sorted(found) == back
    fences.refuse_fenced(C1, answers(**ids), {})
    if back:
        with pytest.raises(Refused, match=r"ended by recover_quorum of today.*--without"):
            fences.refuse_fenced(C1, answers(**ids), fenced)
    else:
        fences.refuse_fenced(C1, answers(**ids), fenced)


def test_a_recovery_whose_snapshot_is_gone_is_refused() -> None:
    """One host has lost what was ready, and the survivor's data are set aside."""
    seen = (host("m1", marked=MARK), host("m2", staged=MARK), host("m3"))
    for hosts_seen, is_lost in ((seen, True), ((*seen[:2], host("m3", staged=MARK)), False)):
        plan = plans.plan_restoration(C1, WANTED, hosts_seen, MARK, None)
        if is_lost:
            with pytest.raises(Refused, match="m3 has lost"):
                restore_consent.refuse_sourceless(C1, plan)
        else:
            restore_consent.refuse_sourceless(C1, plan)


def test_consent_is_the_clusters_name() -> None:
    """And what is lost is said before."""
    source = RestoreSource(Path("x"), "f", "a snapshot", 1, "s", 1000, None, None)
    dead = restore_consent.restore_loss(C1, source, 5000, hosts()[:2], serves=False)
    assert "data on m1, m2: recover_quorum would lose nothing" in dead
    empty = restore_consent.restore_loss(C1, source, 5000, hosts(has_data=False), serves=False)
    assert "recover_quorum" not in empty
    loss = restore_consent.restore_loss(C1, source, 5000, hosts(), serves=True)
    assert "4000 change(s)" in loss
    assert "The cluster serves" in loss
    for given in (None, "yes", "C1"):
        with pytest.raises(Refused, match="--consent c1"):
            restore_consent.check_consent(C1, given, loss)
    restore_consent.check_consent(C1, "c1", loss)


def end(term: int, index: int, cluster: int = 7) -> LogEnd:
    """Make the end of a log."""
    return LogEnd(term, index, term, 1, index - 1, 800, 0, cluster)


def test_the_survivor_is_the_one_whose_log_goes_furthest() -> None:
    """A later term counts more than a higher index: the latter may be of a leader that lost."""
    assert survivors.choose_survivor(C1, {"m1": end(2, 90), "m2": end(3, 80)}) == "m2"
    assert survivors.choose_survivor(C1, {"m1": end(3, 90), "m2": end(3, 80)}) == "m1"


@pytest.mark.parametrize(("up", "may"), [(0, False), (1, False), (2, True), (3, True)])
def test_an_election_is_waited_for_where_there_can_be_one(up: int, *, may: bool) -> None:
    """Of three members one elects nobody."""
    members = tuple(Member(i, f"m{i}", (f"p{i}",), (f"c{i}",)) for i in (1, 2, 3))
    endpoints = tuple(
        EndpointHealth(
            m.name,
            m.client_urls[0],
            is_healthy=False,
            status=EndpointStatus(7, m.id, VERSION, 0, 2, 9, 9, 1, 1) if m.id <= up else None,
            members=members if m.id <= up else (),
        )
        for m in members
    )
    assert survivors.may_elect(ClusterHealth(endpoints, reads_linearizable=False)) is may


@pytest.mark.parametrize(
    ("ends", "said"),
    [({}, "nothing is left"), ({"m1": end(2, 9), "m2": end(2, 9, cluster=8)}, "several clusters")],
)
def test_no_survivor_is_guessed(ends: dict[str, LogEnd], said: str) -> None:
    """Where there is none, or more than one cluster's."""
    with pytest.raises(Refused, match=said):
        survivors.choose_survivor(C1, ends)
