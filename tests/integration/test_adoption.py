"""adopt_cluster on what others have built: by the procedures, kubespray, kubeasz."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tasks.model.inventory_file import load_inventory
from tests.field.hosts import lay, start
from tests.field.layouts import Cluster, kubeasz, kubespray
from tests.integration.adoptions import adopt, describe, give_key, serials
from tests.integration.runbooks import Prefect, finish, run_runbook, start_runbook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


def fingerprint(lab: Lab) -> dict[str, str]:
    """List every file that a runbook could change, with size, mode, owner and time."""
    find = "find /etc /usr/local /var/backups /var/lib -xdev -type f -not -path '/var/lib/etcd/*' "
    shown = find + "-printf '%p %s %m %u %C@\\n' | sort"
    return {name: host.run(shown).check().stdout for name, host in lab.hosts.items()}


def test_a_cluster_as_the_procedures_make_it(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """The layout is the default, so little is written; hosts are as they were."""
    lab = start_lab(hosts=3)
    assert run_runbook(prefect, "bootstrap_cluster", lab).status == 0
    for host in lab.hosts.values():
        shell = 's|^ExecStart=.*|ExecStart=/bin/bash -c "GOMAXPROCS=$(nproc) /usr/local/bin/etcd"|'
        host.run(["sed", "-i", shell, "/etc/systemd/system/etcd.service"]).check()
        host.run("systemctl daemon-reload; systemctl restart --no-block etcd").check()
    start(list(lab.hosts.values()))
    before = fingerprint(lab)
    output = tmp_path / "adopted.yaml"
    strange = adopt(prefect, lab, output, "--unit", "other.service")
    assert strange.status == 2, strange.output
    assert "etcd runs under etcd.service, not under other.service" in strange.stderr
    assert "(command line: --unit etcd.service)" in strange.stderr
    shown = adopt(prefect, lab, output, "--unit", "etcd.service", "--dry-run")
    assert shown.status == 0, shown.output
    assert not output.exists()
    ended = adopt(prefect, lab, output)
    assert ended.status == 0, ended.output
    assert fingerprint(lab) == before
    found, wanted = load_inventory(str(output)), load_inventory(str(lab.inventory))
    assert found.paths == wanted.paths
    assert [h.name for h in found.hosts] == [h.name for h in wanted.hosts]
    assert "put the key of 'etcd'" in ended.stdout
    assert f"wrote {output} and " in ended.stdout
    assert f"dry run: {output} is not written" in shown.stdout
    again = adopt(prefect, lab, output)
    assert again.status == 2
    assert "exists and is left alone" in again.stderr


@pytest.mark.one_etcd
@pytest.mark.parametrize("builder", [pytest.param(kubespray, marks=pytest.mark.chaos), kubeasz])
def test_a_cluster_of_the_field(
    builder: Callable[..., Cluster], start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """Adopted whole; nothing is due at first, and a rotation of all keeps what they are.

    kubespray: members named otherwise than hosts, every host in every certificate, RSA for a
    century, keys for a group. kubeasz: members that no certificate can name, one pair for all.
    """
    lab = start_lab(hosts=3, etcd="3.5.16", etcd_source="installed")
    cluster = builder(tmp_path, {h.name: h.address for h in lab.hosts.values()})
    lay(lab, cluster)
    before, output = fingerprint(lab), tmp_path / "adopted.yaml"
    short = adopt(prefect, lab, output, hosts=2)
    assert short.status == 2, short.output
    assert cluster.hosts["master03"].settings["ETCD_NAME"] in short.stderr
    assert not output.exists()
    ended = adopt(prefect, lab, output)
    assert ended.status == 0, ended.output
    assert fingerprint(lab) == before
    assert len(ended.stdout.splitlines()) < 60, ended.stdout
    give_key(output, cluster)
    ended = run_runbook(prefect, "check_health", output)
    assert ended.status == 0, ended.output
    ended = finish(start_runbook(prefect, "check_certificates", output, named="--clusters"))
    assert ended.status == 0, ended.output
    ended = run_runbook(prefect, "rotate_certificates", output)
    assert "no pair is due" in ended.stdout, ended.output
    pairs, numbers = describe(lab, output), serials(lab, output)
    ended = run_runbook(prefect, "rotate_certificates", output, "--which", "all")
    assert ended.status == 0, ended.output
    assert describe(lab, output) == pairs
    assert not serials(lab, output) & numbers
    ended = run_runbook(prefect, "rotate_certificates", output)
    assert "no pair is due" in ended.stdout, ended.output
    for word in ("master02", cluster.hosts["master03"].settings["ETCD_NAME"]):
        ended = run_runbook(prefect, "move_leader", output, "--to", word)
        assert ended.status == 0, ended.output


def test_a_host_without_etcd_is_refused(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """Nothing is written, and the error names the host and the way out."""
    lab = start_lab(hosts=1)
    ended = adopt(prefect, lab, tmp_path / "adopted.yaml", "--unit", "other.service", hosts=1)
    assert ended.status == 2
    assert "--unit" in ended.stderr
    assert not (tmp_path / "adopted.yaml").exists()
