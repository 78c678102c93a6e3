"""The checks' numbers: files that Prometheus reads, and rules and panels that use only these."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from tasks.engine import metrics
from tasks.report.metrics import HELP, of_certificates, of_health, of_snapshots
from tests.unit.test_plans_retention import NOW, taken
from tests.unit.test_report_fleet import row

ROOT = Path(__file__).parents[2]
USED = re.compile(r"etcd_runbooks_(\w+)")


def read(path: Path) -> dict[tuple[str, str], float]:
    """Read a file as Prometheus does: metric and its labels but the cluster's, and the value."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            assert sample.labels.pop("cluster") == "main"
            found[sample.name, ",".join(sample.labels.values())] = sample.value
    return found


def test_a_check_replaces_what_the_last_one_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole files; a member that has left is in none of them any more."""
    monkeypatch.setenv(metrics.VARIABLE, str(tmp_path / "textfile"))
    one = row("main", 100)
    assert one.health is not None
    assert one.certificates is not None
    metrics.write("main", "health", 2, of_health(one.health))
    metrics.write("main", "certificates", 0, of_certificates(one.certificates))
    metrics.write("main", "snapshots", 1, of_snapshots(taken(NOW), None))
    files = sorted((tmp_path / "textfile").iterdir())
    assert [path.name for path in files] == [
        "main-certificates.prom",
        "main-health.prom",
        "main-snapshots.prom",
    ]
    certificates, health, snapshots = map(read, files)
    assert health["etcd_runbooks_check_problems", "health"] == 2
    assert health["etcd_runbooks_members_healthy", ""] == 2
    assert health["etcd_runbooks_database_size_bytes", "m1"] == 50 << 20
    assert certificates["etcd_runbooks_certificate_not_after_seconds", "server,m1,0"] > 0
    assert snapshots["etcd_runbooks_snapshot_taken_seconds", ""] == NOW.timestamp()
    assert snapshots["etcd_runbooks_snapshot_proven_taken_seconds", ""] == 0
    metrics.write("main", "health", 0, ())
    assert len(read(files[1])) == 2


def test_a_directory_that_takes_nothing_ends_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hosts' work never depends on the record."""
    monkeypatch.setenv(metrics.VARIABLE, "/proc/nowhere")
    metrics.write("main", "health", 0, ())


def test_rules_and_panels_use_metrics_that_there_are() -> None:
    """And every metric is in the document."""
    rules = (ROOT / "deployments/prometheus/alerts.yaml").read_text()
    panels = (ROOT / "deployments/prometheus/dashboard.json").read_text()
    groups = YAML(typ="safe").load(rules)["groups"]
    assert all({"alert", "expr", "labels", "annotations"} <= set(r) for r in groups[0]["rules"])
    asked = [target["expr"] for one in json.loads(panels)["panels"] for target in one["targets"]]
    asked += [rule["expr"] for rule in groups[0]["rules"]]
    assert {name for text in asked for name in USED.findall(text)} <= set(HELP)
    told = set(USED.findall((ROOT / "docs/monitoring.md").read_text()))
    assert told == set(HELP)
