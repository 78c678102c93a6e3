"""kubespray's second etcd for events, on the hosts, the pairs and the authority of the first one.

Each of the two is adopted and worked on by its own unit, name and ports, and the other one is left
as it is.
"""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

import pytest

from tasks.model.inventory_file import load_inventory
from tests.field.hosts import lay
from tests.field.layouts import UNIT, Cluster, Laid, kubespray
from tests.integration.adoptions import adopt, give_key, serials
from tests.integration.rotations import authority_digits
from tests.integration.runbooks import Ended, Prefect, run_runbook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [
    *(pytest.mark.lab, pytest.mark.chaos, pytest.mark.one_etcd),
    pytest.mark.timeout(900),
]

EVENTS = "etcd-events.service"


def events_script(laid: Laid) -> str:
    """Write the second etcd as kubespray's etcd-events-host role does, and start it."""
    settings = dict(laid.settings)
    del settings["ETCD_LISTEN_METRICS_URLS"]
    name = settings["ETCD_NAME"]
    cluster = settings["ETCD_INITIAL_CLUSTER"].replace("=https", "-events=https")
    settings |= {
        "ETCD_NAME": f"{name}-events",
        "ETCD_DATA_DIR": "/var/lib/etcd-events",
        "ETCD_INITIAL_CLUSTER": cluster,
        "ETCD_INITIAL_CLUSTER_TOKEN": "k8s_events_etcd",
    }
    text = "".join(f"{key}={value}\n" for key, value in settings.items())
    text = text.replace(":2379", ":2382").replace(":2380", ":2383")
    unit = laid.files[UNIT].text.replace("/etc/etcd.env", "/etc/etcd-events.env")
    return (
        f"printf %s {quote(text)} > /etc/etcd-events.env; printf %s {quote(unit)} > "
        f"/etc/systemd/system/{EVENTS}; install -d -m 0700 /var/lib/etcd-events; "
        f"systemctl daemon-reload; systemctl enable {EVENTS}; systemctl start --no-block {EVENTS}"
    )


def raise_two(start_lab: StartLab, files: Path) -> tuple[Lab, Cluster]:
    """Start both on three hosts."""
    lab = start_lab(hosts=3, etcd="3.5.16", etcd_source="installed")
    cluster = kubespray(files, {name: str(host.address) for name, host in lab.hosts.items()})
    lay(lab, cluster)
    for name, laid in cluster.hosts.items():
        lab[name].run(events_script(laid)).check()
    for host in lab.hosts.values():
        host.run(f"systemctl start {EVENTS}", timeout=60).check()
    return lab, cluster


def test_the_second_etcd_is_worked_on_by_its_own_ports(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """Its ports are read, asked and kept; what it shares with the other one is named."""
    lab, cluster = raise_two(start_lab, tmp_path)
    path = tmp_path / "events.yaml"
    ended = adopt(prefect, lab, path, "--unit", EVENTS)
    assert ended.status == 0, ended.output
    assert "another etcd runs here (etcd.service)" in ended.output
    inventory = load_inventory(str(path))
    assert (inventory.etcd.client_port, inventory.etcd.peer_port) == (2382, 2383)
    assert [host.member_name for host in inventory.hosts] == [
        f"etcd{number}-events" for number in (1, 2, 3)
    ]
    give_key(path, cluster)

    def run(runbook: str, *options: str, status: int = 0) -> Ended:
        ended = run_runbook(prefect, runbook, path, *options)
        assert ended.status == status, ended.output
        return ended

    assert "etcd1-events" in run("check_health").output
    run("move_leader")
    before = serials(lab, path)
    run("rotate_certificates", "--which", "all")
    assert not before & serials(lab, path)
    shared = run("rotate_authority", "--replace", authority_digits(path), status=2)
    assert "etcd.service" in shared.stderr
    lab["master03"].run(f"systemctl disable --now {EVENTS}; rm -rf /var/lib/etcd-events").check()
    run("replace_member", "--member", "master03")
    run("check_health")
    ports = lab["master03"].run("ss -Hltn").check().stdout
    assert all(f":{port} " in ports for port in (2379, 2380, 2382, 2383)), ports
    assert lab["master03"].run("systemctl is-active etcd").stdout.strip() == "active"
