"""Members whose URLs have names, which the hosts know, and the runner does not."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

import pytest

from tests.field.hosts import lay
from tests.field.odd import named
from tests.integration.adoptions import adopt, give_key
from tests.integration.field_life import FieldLife, give_client_files, witness
from tests.integration.runbooks import Prefect
from tests.integration.writers import Writers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.host import Host
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(1800), pytest.mark.one_etcd]


def teach(lab: Lab, host: Host) -> None:
    """Let a host know the others' names, and its own as Debian has it: as a local one."""
    lines = [
        f"{'127.0.1.1' if other is host else other.address} {other.name}.etcd.internal"
        for other in lab.hosts.values()
    ]
    host.run(f"printf '%s\\n' {' '.join(map(quote, lines))} >> /etc/hosts").check()


def test_names_are_kept_and_nobody_but_the_hosts_resolves_them(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """Adopted, asked without a key, rotated; a member replaced, another in place, one moved."""
    lab = start_lab(hosts=4, etcd="3.5.16", etcd_source="installed")
    for host in lab.hosts.values():
        teach(lab, host)
    cluster = named(tmp_path, {h.name: h.address for h in list(lab.hosts.values())[:3]})
    lay(lab, cluster)
    give_client_files(lab, cluster)
    life = FieldLife(lab, cluster, prefect, tmp_path)
    with Writers(lab, tmp_path, witness=witness) as writers:
        ended = adopt(prefect, lab, life.inventory)
        assert ended.status == 0, ended.output
        assert "could not be read" not in ended.stdout
        life.run("check_health")
        give_key(life.inventory, cluster)
        life.exchange_certificates()
        life.replace("master02", "master04")
        lab["master03"].power_cut()
        lab["master03"].reinstall()
        teach(lab, lab["master03"])
        life.run("replace_member", "--member", "master03")
        life.see_alike("master03")
        life.check()
        old, new = lab["master03"].address, life.give_address("master03")
        refused = life.run("update_member", "--member", "master03", "--address", new, status=2)
        assert f"has master03.etcd.internal at {old}; let it resolve to {new}" in refused.output
        for host in lab.hosts.values():
            if host.is_running:
                host.run(f"sed -i 's/^{old} /{new} /' /etc/hosts").check()
        life.move("master03", new)
        life.check()
    report = writers.check(on="master01")
    print(f"\n{life.told}\n{report}")  # noqa: T201 - figures, for pytest -s
    assert report.lost == ()
