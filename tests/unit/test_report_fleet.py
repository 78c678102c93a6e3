"""The fleet on one page: the worst first, and nothing called known that is not."""

from __future__ import annotations

from datetime import timedelta

from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.expiry import CertificateFinding, CertificateRow, ClusterCheck, Grade, Kind
from tasks.model.fleet import FleetRow, PastRun
from tasks.model.space import Growth
from tasks.report.fleet import fleet_markdown, fleet_problems, fleet_table, fleet_verdict
from tests.unit.test_plans_retention import NOW, taken


def status(member: int, *, quota: int | None = None) -> EndpointStatus:
    """Make what a member of a cluster says whose leader is 1."""
    return EndpointStatus(
        cluster_id=9,
        member_id=member,
        version="3.6.16",
        leader=1,
        raft_term=2,
        raft_index=10,
        raft_applied_index=10,
        db_size=50 << 20,
        db_size_in_use=1 << 20,
        db_quota=quota,
    )


def row(cluster: str, days: float, *problems: str, **changes: object) -> FleetRow:
    """Make a cluster of two members whose certificate ends after so many days."""
    endpoints = tuple(
        EndpointHealth(
            f"m{n}", f"https://m{n}:2379", is_healthy=True, status=status(n, quota=2 << 30)
        )
        for n in (1, 2)
    )
    pair = CertificateRow(
        cluster=cluster,
        host="m1",
        label="server",
        path="/etc/etcd/ssl/server.pem",
        not_after=NOW + timedelta(days=days),
    )
    parts = {
        "health": ClusterHealth(endpoints, reads_linearizable=True),
        "certificates": ClusterCheck(cluster, (pair,)),
    }
    return FleetRow(cluster, problems, **(parts | changes))  # type: ignore[arg-type]


def test_the_worst_comes_first() -> None:
    """What is wrong, then what waits or is stale, then what ends first."""
    waits = PastRun("1", "replace_member", ("waits",), "ada@desk", NOW, "Suspended")
    rows = (
        row("later", 300),
        row("soon", 100),
        row("waits", 900, waiting=(waits,)),
        row("ill", 900, "m2: no answer"),
        row("stale", 901, is_stale=True),
    )
    table = fleet_table(rows, NOW)
    assert [cells[0] for cells in table.rows] == ["ill", "waits", "stale", "soon", "later"]
    assert fleet_verdict(rows) == "5 clusters: 1 with problems, 1 run(s) wait for approval"
    text = fleet_markdown(rows, NOW, ("Prefect is away",))
    assert "- ill: m2: no answer" in text
    assert text.endswith("- Prefect is away")


def test_a_line_tells_what_there_is() -> None:
    """Sizes against the quota, who leads, what ends first, the last proven snapshot and change."""
    changed = PastRun("1", "rotate_certificates", ("main",), "ada@desk", NOW, "Completed")
    proven = taken(NOW - timedelta(hours=5), proven=True)
    one = row("main", 100, newest=proven, proven=proven, changed=changed, growth=Growth(1.0, 9.4))
    (cells,) = fleet_table([one], NOW).rows
    assert cells == (
        "main",
        "healthy",
        "3.6.16",
        "2 of 2",
        "m1",
        "50.0 MiB, 1.0 MiB in use, 2 % of 2048.0 MiB, 9 days left",
        "100d: server of m1",
        "5 h ago",
        "2026-03-01 12:00 rotate_certificates by ada@desk",
    )
    both = fleet_table([one, row("other", 100)], NOW)
    assert both.columns[-1] == "last change"
    assert both.rows[1][-1] == "-"


def test_a_cluster_that_was_not_seen_claims_nothing() -> None:
    """An inventory that is broken is a line, too."""
    (cells,) = fleet_table([FleetRow("gone", ("gone.yaml: line 3: no such field",))], NOW).rows
    assert cells[1:] == ("1 problem(s)", "?", "?", "?", "?", "?", "none")


def test_critical_certificates_are_problems_and_many_are_not_all_told() -> None:
    """A warning is none."""
    found = [
        CertificateFinding(Kind.EXPIRED, grade, "main", "m1", f"/{n}", f"number {n} ends")
        for n, grade in enumerate((Grade.WARNING, *(Grade.CRITICAL,) * 4))
    ]
    one = row("main", 1, certificates=ClusterCheck("main", (), tuple(found)))
    assert len(one.all_problems) == 4
    assert fleet_problems([one])[0] == "main: m1: /1: number 1 ends"
    assert fleet_problems([one])[-1] == "main: and 1 more"
    assert not any("number 0" in told for told in fleet_problems([one]))
