"""Clusters that no installer makes: adopted, checked and rotated as they are."""

from __future__ import annotations

from collections.abc import Callable
from shlex import quote
from typing import TYPE_CHECKING

import pytest

from tests.field.hosts import lay
from tests.field.layouts import Cluster
from tests.field.odd import etcd3, instance
from tests.integration.field_life import FieldLife, give_client_files, witness
from tests.integration.runbooks import Prefect
from tests.integration.writers import Writers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(1800)]


@pytest.mark.one_etcd
@pytest.mark.parametrize("builder", [instance, etcd3])
def test_whatever_they_are_called_and_made_of(
    builder: Callable[..., Cluster], start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """A template's instance, a settings file, Ed25519; two files of variables, flags, P-384.

    Two of the operators' login shells are no bash.
    """
    lab = start_lab(hosts=3, etcd="3.5.16", etcd_source="installed")
    cluster = builder(tmp_path, {h.name: h.address for h in lab.hosts.values()})
    lay(lab, cluster)
    give_client_files(lab, cluster)
    for host, shell in zip(lab.hosts.values(), ("dash", "sh", "bash"), strict=True):
        host.run(f"usermod --shell /bin/{shell} operator").check()
    life = FieldLife(lab, cluster, prefect, tmp_path)
    with Writers(lab, tmp_path, witness=witness) as writers:
        told = life.adopt()
        life.exchange_certificates()
        ended = life.run("rotate_certificates")
        assert "no pair is due" in ended.stdout
        lab["master03"].power_cut()
        lab["master03"].reinstall()
        files = cluster.hosts["master03"].files.items()
        packaged = {path: file for path, file in files if path.startswith("/usr/lib/systemd/")}
        for path, file in packaged.items():
            refused = life.run("replace_member", "--member", "master03", status=2)
            assert "belongs to a package, and master03 has none" in refused.stderr
            lab["master03"].run(f"printf %s {quote(file.text)} > {path}").check()
        life.run("replace_member", "--member", "master03")
        life.check()
    report = writers.check(on="master01")
    print(f"\n{told}\n{life.told}\n{report}")  # noqa: T201 - figures, for pytest -s
    assert report.lost == ()
