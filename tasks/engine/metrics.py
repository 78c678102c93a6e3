"""The last checks' numbers in files for node_exporter's textfile collector, by cluster and check.

A file is replaced whole, by a rename. Nothing of a run depends on it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from prefect.settings import get_current_settings
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from tasks.report.metrics import HELP, Sample, of_check

PREFIX = "etcd_runbooks_"
VARIABLE = "ETCD_RUNBOOKS_METRICS"


def directory() -> Path:
    """Where the files lie: where the environment says, or in PREFECT_HOME."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else get_current_settings().home / "etcd-runbooks" / "metrics"


def write(cluster: str, check: str, problems: int, samples: Iterable[Sample]) -> None:
    """Replace what a check of a cluster found before; a directory that takes none is no error."""
    samples = (*of_check(check, datetime.now(UTC), problems), *samples)
    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    for sample in samples:
        labels = {"cluster": cluster, **sample.labels}
        if sample.name not in gauges:
            gauges[sample.name] = Gauge(
                PREFIX + sample.name, HELP[sample.name], list(labels), registry=registry
            )
        gauges[sample.name].labels(**labels).set(sample.value)
    folder = directory()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        write_to_textfile(str(folder / f"{cluster}-{check}.prom"), registry)
