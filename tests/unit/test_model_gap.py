"""The arithmetic of the gap in service."""

from __future__ import annotations

from tasks.model.gap import Absences, EndpointGap, Gap, Meter, read_meters
from tasks.report.gaps import absence_facts, gap_section, gap_summary


def meter(*marks: tuple[str, float]) -> Meter:
    """Make a meter that began at 0, with stages."""
    made = Meter(0.0)
    for stage, time in marks:
        made.mark(stage, time)
    return made


def read(careful: Meter, now: float) -> tuple[Gap, ...]:
    """Read a careful client's meter alone."""
    return read_meters(careful, {}, now)


def test_reads_in_time_leave_the_interval_as_the_gap() -> None:
    """The gap is the time between two that were acknowledged."""
    made = meter(("a", 0.0))
    for time in (0.05, 0.1, 0.15):
        made.acknowledge(time)
    (gap,) = read(made, 0.2)
    assert (gap.reads, gap.failures) == (3, 0)
    assert abs(gap.longest - 0.05) < 1e-9


def test_a_gap_over_a_boundary_counts_in_each_stage_with_its_whole_length() -> None:
    """Wherever it began, a client waited that long in the middle of both."""
    made = meter(("a", 0.0))
    made.acknowledge(1.0)
    made.mark("b", 2.0)
    made.mark("c", 2.5)
    made.acknowledge(4.0)
    made.mark("d", 4.1)
    made.acknowledge(4.2)
    gaps = {gap.stage: gap.longest for gap in read(made, 4.3)}
    assert gaps["a"] == 3.0
    assert gaps["c"] == 3.0
    assert abs(gaps["d"] - 0.2) < 1e-9


def test_what_still_lasts_is_a_gap_too() -> None:
    """Failures only: the whole time is one gap."""
    made = meter(("a", 0.0))
    for _ in range(5):
        made.fail("refused")
    (gap,) = read(made, 9.0)
    assert (gap.reads, gap.failures, gap.longest) == (0, 5, 9.0)


def test_a_stage_without_a_read_and_without_length_is_left_out() -> None:
    """Nobody could have met it."""
    made = meter(("empty", 0.0), ("a", 0.001))
    made.acknowledge(0.01)
    assert [gap.stage for gap in read(made, 0.02)] == ["a"]


def test_each_endpoint_has_its_own_client() -> None:
    """One that never fails over meets what the careful one does not."""
    careful, one = meter(("a", 0.0)), meter(("a", 0.0))
    careful.acknowledge(0.1)
    one.fail("connection refused")
    (gap,) = read_meters(careful, {"m1": one}, 0.2)
    assert gap.endpoints == (EndpointGap("m1", 0, 1, 0.2, "connection refused"),)


def test_the_report_names_the_worst_stage() -> None:
    """In milliseconds, or in seconds from one on."""
    gaps = (Gap("quiet", 1.0, 20, 0, 0.05), Gap("restart", 2.0, 30, 2, 1.5))
    assert gap_summary(gaps) == (
        "longest gap in linearizable reads: 1.50 s in 'restart'; 2 of 52 reads failed and were "
        "tried on another member"
    )
    section = "\n".join(gap_section(gaps))
    assert "| quiet | 1.0 | 20 | 0 | 50 ms | none |" in section


def test_an_api_server_is_away_until_it_is_ready_again() -> None:
    """The longest time of each; one that was not there, or left unseen, is not counted."""
    seen = Absences()
    assert absence_facts(seen) == {}
    seen.leave("m1", 1.0)
    seen.leave("m1", 5.0)  # the step is tried again
    seen.come_back("m1", 17.5)
    seen.leave("m1", 20.0)
    seen.come_back("m1", 21.0)
    seen.leave("m2", 30.0)
    seen.forget("m2")
    seen.come_back("m3", 40.0)
    assert absence_facts(seen) == {
        "API servers away, until ready again": "m1 16.50 s; one at a time"
    }
    seen.leave("m1", 50.0)
    seen.leave("m2", 51.0)
    seen.come_back("m2", 51.5)
    seen.come_back("m1", 52.0)
    assert absence_facts(seen).popitem()[1] == "m1 16.50 s, m2 500 ms; 2 at once"
