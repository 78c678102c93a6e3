"""A diagnosis: each value against what is normal, the worst first, and what is not seen said so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.etcd.prometheus import parse_metrics
from tasks.model.diagnosis import COMMIT, FSYNC, Line, MemberMetrics, State, quantile
from tasks.model.expiry import CertificateRow, ClusterCheck
from tasks.model.observation import ClockReading
from tasks.plans.diagnosis import Sights, diagnose
from tasks.report.diagnosis import diagnosis_markdown, diagnosis_table, diagnosis_verdict
from tests.unit.test_plans_health import cluster

NOW = datetime(2026, 11, 27, 22, tzinfo=UTC)
BEGAN = NOW - timedelta(hours=48)
GOOD = ((0.001, 99.0), (0.008, 100.0), (0.064, 100.0), (float("inf"), 100.0))
SLOW = ((0.001, 10.0), (0.008, 50.0), (0.064, 99.0), (float("inf"), 100.0))
TEXT = """# HELP etcd_disk_wal_fsync_duration_seconds latency
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 3
etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 4
etcd_disk_wal_fsync_duration_seconds_sum 0.4
etcd_network_peer_round_trip_time_seconds_bucket{To="a1",le="0.0016"} 7
etcd_server_leader_changes_seen_total 2
process_start_time_seconds 1.7958e+09
grpc_server_handled_total{grpc_code="OK",grpc_method="Put"} 9
nonsense
"""


def metrics(buckets: tuple[tuple[float, float], ...] = GOOD, **values: float) -> MemberMetrics:
    """Make what a member of two days measures."""
    known = {"process_start_time_seconds": BEGAN.timestamp(), **values}
    return MemberMetrics(known, {FSYNC: buckets, COMMIT: buckets}, {"2": buckets})


def sights(**changes: Any) -> Sights:  # noqa: ANN401 - any field
    """Make what is seen of a cluster in full health."""
    row = CertificateRow("c1", "m1", "server", "/x", not_after=NOW + timedelta(days=200))
    names = ("m0", "m1", "m2")
    seen = Sights(
        cluster(),
        (),
        ("space: 50.0 MiB on m0, 40.0 MiB in use",),
        dict.fromkeys(names, metrics()),
        dict.fromkeys(names, 0.004),
        {name: {} for name in names},
        tuple(ClockReading(name, 0.02, 0.01) for name in names),
        ClusterCheck("c1", (row,)),
        (),
        {},
        NOW,
    )
    return replace(seen, **changes)


def found(what: str, **changes: Any) -> Line:  # noqa: ANN401 - any field
    """Get the first line of that kind."""
    return next(line for line in diagnose(sights(**changes)) if line.what == what)


def test_full_health_is_normal_throughout() -> None:
    """Every line has what is normal, and nothing is unknown."""
    lines = diagnose(sights())
    assert {line.state for line in lines} == {State.NORMAL}
    assert {"members healthy", "version", "leader", "space", "clock"} <= {x.what for x in lines}
    assert diagnosis_verdict(lines).startswith("0 bad, 0 to look at, 0 not seen")


@pytest.mark.parametrize(
    ("what", "changes", "state", "value"),
    [
        ("log written (p99)", {"metrics": {"m0": metrics(SLOW)}}, State.NOTABLE, "64.0 ms"),
        ("database written (p99)", {"metrics": {"m0": metrics(SLOW)}}, State.NOTABLE, "64.0 ms"),
        ("round trip (p99)", {"metrics": {"m0": metrics(SLOW)}}, State.NOTABLE, "64.0 ms"),
        ("linearizable read", {"reads": {"m0": 0.3}}, State.NOTABLE, "300.0 ms"),
        (
            "leader changes",
            {"metrics": {"m0": metrics(etcd_server_leader_changes_seen_total=7)}},
            State.NOTABLE,
            "7 in 48 h",
        ),
        (
            "leader changes",
            {"metrics": {"m0": metrics(etcd_server_leader_changes_seen_total=6)}},
            State.NORMAL,
            "6 in 48 h",
        ),
        (
            "open files",
            {"metrics": {"m0": metrics(process_open_fds=900, process_max_fds=1024)}},
            State.NOTABLE,
            "900",
        ),
        ("log, last hour", {"logs": {"m0": {"lost leader": 3}}}, State.NOTABLE, "3 times"),
        ("log, last hour", {"logs": {"m0": {}}}, State.NORMAL, "nothing of note"),
        ("log, last hour", {"logs": {"m0": None}}, State.UNKNOWN, "not seen"),
        ("clock", {"clocks": (ClockReading("m0", -90.0, 0.1),)}, State.NOTABLE, "-90.00 s"),
        ("problem", {"problems": ("m1: no TCP connection\nmore",)}, State.BAD, "no TCP connection"),
        ("members healthy", {"health": cluster(deaf=(1,))}, State.BAD, "2 of 3"),
        ("next restart", {"starts": ((True, "m1: is 3.5.1, and 3.4.2 starts"),)}, State.BAD, "is"),
        ("host", {"silent": {"m2": "no SSH connection"}}, State.UNKNOWN, "not seen"),
        ("metrics", {"metrics": {}}, State.UNKNOWN, "not seen"),
    ],
)
def test_what_is_not_normal_is_told(
    what: str, changes: dict[str, Any], state: State, value: str
) -> None:
    """With its value, and before all that is normal."""
    line = found(what, **changes)
    assert (line.state, line.value.startswith(value)) == (state, True), line


def test_the_worst_comes_first_on_the_page() -> None:
    """And the verdict counts."""
    seen = sights(problems=("all is lost",), silent={"m2": "no SSH connection"})
    lines = diagnose(seen)
    assert [line.state for line in lines] == sorted(line.state for line in lines)
    assert diagnosis_table(lines).rows[0][:3] == ("bad", "problem", "cluster")
    assert "1 bad" in diagnosis_markdown("c1", seen.health, lines)


def test_nothing_that_is_seen_is_no_fault_of_the_diagnosis() -> None:
    """All dead, no host reached."""
    dead = cluster(deaf=(0, 1, 2))
    nobody = dict.fromkeys(("m0", "m1", "m2"), "no SSH connection")
    lines = diagnose(
        sights(
            health=dead,
            metrics={},
            reads={},
            logs=dict.fromkeys(nobody),
            clocks=(),
            certificates=None,
            silent=nobody,
        )
    )
    assert sum(line.state is State.UNKNOWN for line in lines) == 6
    assert any(line.meaning.endswith("it is lost") for line in lines)


def test_metrics_are_read_from_prometheus_text() -> None:
    """What is not asked for, and what is no line, is passed over."""
    read = parse_metrics(TEXT.encode())
    assert read.histograms == {FSYNC: ((0.001, 3.0), (float("inf"), 4.0))}
    assert read.peers == {"a1": ((0.0016, 7.0),)}
    assert read.values["etcd_server_leader_changes_seen_total"] == 2
    assert set(read.values) == {
        "etcd_server_leader_changes_seen_total",
        "process_start_time_seconds",
    }


@pytest.mark.parametrize(
    ("buckets", "value"), [((), None), (GOOD, 0.001), (SLOW, 0.064), (((float("inf"), 0.0),), None)]
)
def test_a_quantile_is_the_bound_of_its_bucket(
    buckets: tuple[tuple[float, float], ...], value: float | None
) -> None:
    """None where nothing was measured."""
    assert quantile(buckets, 0.99) == value
