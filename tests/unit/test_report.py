"""What people read: plans, findings, member tables, reports."""

from __future__ import annotations

import pytest

from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.members import Alarm, AlarmType, Member, SeenMember, label_members
from tasks.model.outcome import Outcome, Work
from tasks.model.plan import Finding, Plan, Severity, Stage, Step
from tasks.model.record import Event, Record
from tasks.plans.bootstrap import AUTHORITY, START
from tasks.report.ends import end_markdown
from tasks.report.health import health_markdown, health_table, unseen_sentences
from tasks.report.plans import findings_markdown, plan_markdown
from tasks.report.runs import report_markdown, run_name, stage_facts
from tasks.report.tables import Table, format_bytes

STATUS = EndpointStatus(1, 0xA, "3.5.16", 0xA, 2, 100, 100, 5 << 20, 1 << 20)
BEHIND = EndpointStatus(1, 0xB, "3.5.16", 0xA, 2, 90, 88, 2048, 1024)
NOSPACE = (Alarm(0xB, AlarmType.NOSPACE),)
HEALTH = ClusterHealth(
    (
        EndpointHealth("m1", "https://1", is_healthy=True, status=STATUS),
        EndpointHealth("m2", "https://2", is_healthy=True, status=BEHIND, alarms=NOSPACE),
        EndpointHealth("m3", "https://3", is_healthy=False, error="no answer"),
    ),
    reads_linearizable=True,
)
PLAN = Plan(
    "bootstrap_cluster",
    "c1",
    "three members",
    (
        Step(stage=AUTHORITY, host=None, sentence="make the authority"),
        Step(stage=START, host="m1", sentence="start etcd"),
    ),
)


def test_a_cell_cannot_break_its_table() -> None:
    """Pipes and line breaks are escaped."""
    assert Table(("a",), (("x|y\nz",),)).to_markdown() == "| a |\n| --- |\n| x\\|y<br>z |"


def test_sizes_are_in_the_unit_that_fits() -> None:
    """KiB below a MiB."""
    assert format_bytes(2048) == "2 KiB"
    assert format_bytes(5 << 20) == "5.0 MiB"


def test_a_member_table_shows_roles_lag_and_alarms() -> None:
    """The leader, who is behind, and who cannot be reached."""
    rows = {row[0]: row for row in health_table(HEALTH).rows}
    assert rows["m1"][1:6] == ("a", "3.5.16", "leader", "5.0 MiB", "0")
    assert rows["m2"][3:7] == ("follower", "2 KiB", "12", "NOSPACE")
    assert rows["m3"][7:] == ("no", "no: no answer")


def test_a_health_artifact_says_what_is_wrong_first() -> None:
    """Or that nothing is."""
    table = health_table(HEALTH)
    assert health_markdown("c1", table, ("m3: no answer",)).index("m3: no answer") < 40
    assert "Every member is healthy." in health_markdown("c1", table, ())


def test_a_host_that_ssh_does_not_reach_is_told_once() -> None:
    """Both facts in one sentence where the reason is one."""
    gone, slow = "no SSH connection", "no answer in 30 s"
    assert unseen_sentences({"m1": gone}, {"m1": gone, "m2": slow}) == (
        "m1: its clock and what its next restart would change are not known: no SSH connection",
        "m2: what its next restart would change is not known: no answer in 30 s",
    )
    assert unseen_sentences({"m1": gone}, {}) == ("m1: its clock is not known: no SSH connection",)


def test_a_plan_lists_its_steps_by_stage_and_host() -> None:
    """The runner's before the hosts'."""
    text = plan_markdown(PLAN, (Finding(Severity.WARNING, "m1", "is slow"),))
    assert text.index("make the authority") < text.index("**m1**") < text.index("start etcd")
    assert "- m1: is slow" in text


def test_a_serial_stage_is_listed_in_the_order_in_which_it_is_done() -> None:
    """Not by host: a promotion stood above the start of what it promotes."""
    stage = Stage(1, "members", is_serial=True)
    turns = (("m1", "add m4"), ("m4", "write etcd.conf, start etcd"), ("m1", "promote m4"))
    steps = tuple(Step(stage=stage, host=host, sentence=text) for host, text in turns)
    text = plan_markdown(Plan("add_member", "c1", "goal", steps))
    places = [text.index(f"{n}. {said}") for n, (_, said) in enumerate(turns, 1)]
    assert places == sorted(places)
    assert text.count("**m1**") == 2


def test_a_plan_without_steps_says_so() -> None:
    """The no-op case."""
    assert "Nothing is to be done" in plan_markdown(Plan("r", "c1", "goal", ()))


def test_refusals_come_before_warnings() -> None:
    """Each under its title."""
    found = (Finding(Severity.WARNING, None, "w"), Finding(Severity.REFUSAL, "m1", "r"))
    text = findings_markdown("bootstrap_cluster", "c1", found)
    assert text.index("- m1: r") < text.index("- w")


def test_a_report_tells_what_each_step_did() -> None:
    """Changed, so already, failed."""
    steps = [
        {"step": "a", "changed": True, "seconds": 1.0, "ended": 0.0},
        {"step": "b", "changed": False, "seconds": 0.5, "ended": 61.0},
        {"step": "c", "error": "CommandFailed: no", "seconds": 0.1, "ended": 62.0},
    ]
    text = report_markdown(PLAN, {"started by": "me@here"}, steps, (), HEALTH)
    assert "| 00:00:00 | a | 1.00 | changed |" in text
    assert "| 00:01:01 | b | 0.50 | was so already |" in text
    assert "| c | 0.10 | failed: CommandFailed: no |" in text
    assert "- **started by:** me@here" in text
    assert "| m1 | a |" in text


def test_the_report_of_an_end_says_it_in_bold_and_its_findings_as_a_list() -> None:
    """Bold over several lines shows its asterisks; nothing is said twice; Ctrl-C fails no step."""
    stopped = {"step": "a", "error": "CancelledError: ", "seconds": 1.0, "ended": 0.0}
    work = Work("the goal", (stopped,), (), ("m1: this", "m2: that"))
    outcome = Outcome("Failed", "failed", "2 finding(s):\n  - m1: one\n  - m2: two", 1)
    text = end_markdown("check_health", outcome, work, {"run": "1"})
    assert (
        "\n\n**failed: 2 finding(s):**\n\n- m1: one\n- m2: two\n\nNothing was changed.\n\n" in text
    )
    assert text.count("m1: this") == 1
    assert "| a | 1.00 | interrupted |" in text
    assert "**interrupted: by hand**" in end_markdown(
        "check_health", Outcome("Interrupted", "interrupted", "by hand", 1), work, {}
    )


@pytest.mark.parametrize(
    ("template", "given", "name"),
    [
        ("replace {member} of {cluster}", {"member": ["m1", "m2"]}, "replace m1, m2 of main"),
        ("add {member}", {"member": ["m4=10.0.0.4"], "dry_run": True}, "dry run: add m4"),
        ("rotate {cluster}", {"cluster": "/a/b.yaml"}, "rotate b"),
        ("check {clusters}", {"clusters": None}, "check every cluster"),
        ("check {clusters}", {"clusters": ["a", "b", "c", "d", "e"]}, "check a, b, c and 2 more"),
    ],
)
def test_a_run_is_called_by_what_it_does_to_whom(
    template: str, given: dict[str, object], name: str
) -> None:
    """And a dry run by that it is one."""
    assert run_name(template, {"cluster": "main", **given}) == name


def test_a_diff_in_a_plan_keeps_its_lines() -> None:
    """It is a block of its own inside its item."""
    plan = Plan("replace_member", "c1", "goal", (), ("write f:\n--- a\n+++ b",))
    text = plan_markdown(plan)
    assert "- write f:\n\n  ```diff\n  --- a\n  +++ b\n  ```\n" in text


def test_the_terminal_hears_a_plan_in_the_order_in_which_it_is_done() -> None:
    """Stages by number; hosts that work side by side one after the other, a serial stage as is."""
    early, late = Stage(1, "prepare"), Stage(2, "members", is_serial=True)
    plan = Plan(
        "replace_member",
        "c1",
        "goal",
        (
            Step(stage=late, host="m2", sentence="start"),
            Step(stage=late, host=None, sentence="promote"),
            Step(stage=late, host="m2", sentence="retire"),
            Step(stage=early, host="m1", sentence="a"),
            Step(stage=early, host="m2", sentence="b"),
            Step(stage=early, host="m1", sentence="c"),
        ),
    )
    assert [one.sentence for one in plan.in_order()] == [*"acb", "start", "promote", "retire"]


def test_members_of_one_name_are_told_apart_by_their_ids() -> None:
    """A member that was replaced in place has its successor's name."""
    old = SeenMember(Member(0xA, "m1", ("https://1:2380",), ()), is_healthy=False)
    new = SeenMember(Member(0xB, "m1", ("https://1:2380",), ()), is_healthy=True)
    joining = SeenMember(Member(0xC, "", ("https://2:2380",), ()), is_healthy=False)
    assert label_members([old]) == "m1 (a)"
    assert label_members([joining, new]) == "m1 (b), the unstarted member c"


def test_each_stage_has_its_seconds() -> None:
    """From the end of the one before; a stage ends with its slowest host."""
    plan = Plan(
        "restore_cluster",
        "c1",
        "it serves",
        (
            Step(stage=AUTHORITY, host=None, sentence="check"),
            Step(stage=START, host="m1", sentence="start"),
            Step(stage=START, host="m2", sentence="start"),
            Step(stage=Stage(START.number + 1, "again"), host="m1", sentence="start"),
        ),
    )
    done = (
        *((None, "check", 12.0), ("m2", "start", 16.5), ("m1", "start", 15.0)),
        ("m1", "start", 17.0),
    )
    records = [
        Record(10.0, Event.RUN_STARTED),
        Record(11.0, Event.PLANNED),
        *(Record(at, Event.PERFORMED, {"host": h, "sentence": s}) for h, s, at in done),
    ]
    assert list(stage_facts(plan, records).values()) == [
        *("1.0 s", "1.0 s", "4.5 s", "0.5 s", "7.0 s")
    ]
