"""Upgrades, space and data that differ, on clusters that somebody else's templates built."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.field.hosts import lay
from tests.field.layouts import Cluster, kubeasz, kubekey, kubespray
from tests.field.odd import etcd3, instance
from tests.integration.field_life import FieldLife, give_client_files, witness
from tests.integration.runbooks import Prefect
from tests.integration.upgrades import LATER, MIDDLE, NEWEST, OLD
from tests.integration.writers import Writers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.timeout(1800)]

chaos = partial(pytest.param, marks=pytest.mark.chaos)
QUOTA = 9 << 30
"""More than kubeasz gives its members."""
SMALL = ("--free-percent", "0", "--at-least-mb", "0", "--keep-revisions", "10")


@pytest.mark.parametrize(
    ("builder", "program", "versions"),
    [
        (kubespray, "/usr/local/bin", ("3.5.16", LATER)),
        chaos(kubespray, "/usr/local/bin", ("3.5.16", LATER, MIDDLE)),
        chaos(kubekey, "/usr/local/bin", (LATER, NEWEST, LATER)),
        chaos(kubeasz, "/opt/kube/bin", (OLD, LATER, MIDDLE)),
        chaos(instance, "/usr/local/bin", ("3.5.16", NEWEST, LATER)),
        chaos(etcd3, "/opt/etcd/bin", (MIDDLE, LATER, MIDDLE)),
    ],
)
def test_they_are_kept_up_as_they_are(
    builder: Callable[..., Cluster],
    program: str,
    versions: tuple[str, ...],
    start_lab: StartLab,
    prefect: Prefect,
    tmp_path: Path,
) -> None:
    """Up, and back, by releases, defragmented, data that differ repaired, a quota raised."""
    start, *ways = versions
    lab = start_lab(hosts=3, etcd=start, etcd_source="installed")
    if program != "/usr/local/bin":
        for host in lab.hosts.values():
            host.run(f"mkdir -p {program}; cp /usr/local/bin/etcd* {program}").check()
    cluster = builder(tmp_path, {h.name: h.address for h in lab.hosts.values()}, program)
    lay(lab, cluster)
    give_client_files(lab, cluster)
    life = FieldLife(lab, cluster, prefect, tmp_path)
    with Writers(lab, tmp_path, witness=witness) as writers:
        told = life.adopt()
        assert "failed:" not in life.run("diagnose").output, "a look that failed"
        for version in ways:
            life.upgrade(version, MIDDLE, LATER)
            life.run("check_health")
        life.repair("master02")
        life.run("reclaim_space", *SMALL)
        life.run("reclaim_space", *SMALL, "--stop-members")
        life.raise_quota(QUOTA)
        life.check()
    report = writers.check(on="master01")
    print(f"\n{told}\n{life.told}\n{report}")  # noqa: T201 - figures, for pytest -s
    assert report.lost == ()
