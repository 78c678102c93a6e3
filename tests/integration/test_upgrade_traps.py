"""What stands in an upgrade's way on real hosts: found before anything is touched, and led out of.

What becomes of a member with the bare procedure is in tests/contract/test_upgrade_traps.py.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.field.layouts import kubespray
from tests.integration.members import SSL, Scene, find_leader, raise_cluster
from tests.integration.runbooks import Prefect, etcdctl, run_runbook
from tests.integration.test_corruption import SECRET, change
from tests.integration.test_field_life import begin
from tests.integration.test_space import rewrite
from tests.integration.upgrades import (
    LATER,
    MIDDLE,
    aim_at,
    leftovers,
    put_replaced_back,
    upgrade,
    versions,
)
from tests.integration.writers import Writers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.field_life import FieldLife
    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [
    pytest.mark.lab, pytest.mark.timeout(600), pytest.mark.one_etcd, pytest.mark.chaos,
]  # fmt: skip

CONF = "/etc/etcd/etcd.conf"
QUOTA_MB = 48
LEFT_MB = 40
TAKEN = "3.5.16"


@pytest.fixture(scope="module")
def scene(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    """Bootstrap three members that run 3.5, with a small quota, and data on a disk of their own."""
    files = tmp_path_factory.mktemp("scene")
    made = raise_cluster(
        lambda **asked: start_module_lab(data_disk_mb=600, **asked),
        prefect, files, spare=0, etcd=MIDDLE,
    )  # fmt: skip
    set_everywhere(made, f"ETCD_QUOTA_BACKEND_BYTES={QUOTA_MB << 20}")
    return made


def set_everywhere(scene: Scene, variable: str) -> None:
    """Add a variable to all members' settings, and restart one after another."""
    for name in scene.members:
        added = f"echo {variable} >> {CONF}; systemctl restart etcd"
        scene.lab[name].run(["bash", "-ec", added]).check()
    etcdctl(scene.lab, "endpoint", "health")


def refuse(prefect: Prefect, scene: Scene, *options: str) -> str:
    """See an upgrade refused with nothing touched; tells its words."""
    ended = upgrade(prefect, aim_at(scene, LATER), *options)
    assert ended.status == 2, ended.output
    assert set(versions(scene.lab, scene.members).values()) == {MIDDLE}
    assert leftovers(scene.lab) == ""
    return " ".join(ended.output.split())


def test_a_full_disk(scene: Scene, prefect: Prefect) -> None:
    """Of the data, on one host: etcd makes its log's next segment in advance."""
    left = f"$(($(df --output=avail -B1 /var/lib | tail -n 1) - {LEFT_MB << 20}))"
    scene.lab["master02"].run(f"fallocate -l {left} /var/lib/filler").check()
    try:
        said = refuse(prefect, scene)
    finally:
        scene.lab["master02"].run("rm /var/lib/filler").check()
    assert "MB are free beside its data, and 150 are needed" in said


def test_no_space_and_a_database_at_its_quota(scene: Scene, prefect: Prefect) -> None:
    """The alarm is refused, and so is the database that would raise it again; one command helps."""
    assert "database space exceeded" in rewrite(scene.lab, 2 * QUOTA_MB)
    said = refuse(prefect, scene)
    assert "alarm NOSPACE" in said
    assert "reclaim_space leads out of it" in said
    etcdctl(scene.lab, "alarm", "disarm")
    said = refuse(prefect, scene)
    assert "alarm NOSPACE" not in said
    assert f"MB of a quota of {QUOTA_MB}; reclaim_space gives room" in said
    young = ("--keep-minutes", "0", "--keep-revisions", "1", "--at-least-mb", "1")
    ended = run_runbook(prefect, "reclaim_space", scene.inventory, *young)
    assert ended.status == 0, ended.output
    dry = upgrade(prefect, aim_at(scene, LATER), "--dry-run")
    assert dry.status == 0, dry.output


def test_data_that_differ(scene: Scene, prefect: Prefect) -> None:
    """In one value of one member, behind etcd's back; when they agree again the way is free."""
    etcdctl(scene.lab, "put", "told", SECRET)
    leader = find_leader(scene.lab, scene.members)
    change(scene, next(name for name in scene.members if name != leader))
    ended = upgrade(prefect, aim_at(scene, LATER))
    assert ended.status == 1, ended.output
    assert "the members' data differ at revision" in ended.output
    assert set(versions(scene.lab, scene.members).values()) == {MIDDLE}
    assert leftovers(scene.lab) == ""
    healed = run_runbook(prefect, "repair_corruption", scene.inventory)
    assert healed.status == 0, healed.output
    dry = upgrade(prefect, aim_at(scene, LATER), "--dry-run")
    assert dry.status == 0, dry.output


def test_clients_of_the_v2_api(scene: Scene, prefect: Prefect, tmp_path: Path) -> None:
    """Seen in the metrics; with consent all members end that API before one leaves 3.5."""
    set_everywhere(scene, "ETCD_ENABLE_V2=true")
    tls = f"--cacert {SSL}/ca.pem --cert {SSL}/client.pem --key {SSL}/client-key.pem"
    url = f"https://{scene.lab['master02'].address}:2379"
    scene.lab["master02"].run(f"curl -fsS {tls} {url}/v2/keys/").check()
    said = refuse(prefect, scene)
    assert "master02: clients have spoken the v2 API there (1 requests" in said
    assert "enable-v2=true is taken out" in said
    with Writers(scene.lab, tmp_path, files=scene.clients) as writers:
        asked = ("--accept", "settings", "--accept", "v2-clients")
        ended = upgrade(prefect, aim_at(scene, LATER), *asked)
    assert ended.status == 0, ended.output
    assert ended.output.index("end the v2 API of") < ended.output.index("bring master")
    assert set(versions(scene.lab, scene.members).values()) == {LATER}
    assert writers.check().lost == ()


def test_another_tool_that_writes_the_old_version_back(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """kubespray's, told before; when it has run again, so that a member ends, the next run heals.

    It writes its programs and its environment, in which 3.6 knows ETCD_PROXY no more.
    """
    life = begin(start_lab, prefect, tmp_path, kubespray, hosts=3, etcd=TAKEN)
    life.adopt()
    life.aim_at(LATER, MIDDLE)
    hosts = life.members
    first = life.run("upgrade_cluster", "--accept", "settings")
    said = " ".join(first.output.split())
    assert "another tool than these runbooks has written how etcd starts" in said
    assert ran(life, hosts) == {LATER}
    again = life.lab[hosts[0]]
    put_replaced_back(again, TAKEN)
    again.run("echo ETCD_PROXY=off >> /etc/etcd.env; systemctl restart --no-block etcd").check()
    time.sleep(3)
    checked = life.run("check_health", status=1)
    assert hosts[0] in checked.output
    healed = life.run("upgrade_cluster", "--accept", "settings")
    assert f"bring {hosts[0]} from {TAKEN} to {LATER}" in " ".join(healed.output.split())
    assert ran(life, hosts) == {LATER}


def ran(life: FieldLife, hosts: list[str]) -> set[str]:
    """Tell which versions start on the hosts, all of which run."""
    told = [life.lab[h].run("systemctl is-active etcd; etcd --version").check() for h in hosts]
    return {each.stdout.split()[3] for each in told}
