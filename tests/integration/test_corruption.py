"""Data changed behind a member's back: found by the others' majority, and healed by one command."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tasks.model.corruption import INCONSISTENT
from tests.integration.members import (
    Scene,
    check_cluster,
    find_leader,
    list_members,
    raise_cluster,
)
from tests.integration.runbooks import Ended, Prefect, etcdctl, run_runbook
from tests.integration.test_alarms import configure
from tests.lab.versions import SINCE_3_6

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.host import Host

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(900)]

MEMBERS = ("master01", "master02", "master03")
SEEN_SECONDS = 60.0
SECRET, OTHER = "the same everywhere", "not the same at all"


def repair(prefect: Prefect, scene: Scene, *options: str) -> Ended:
    """Run the runbook, and show it to whoever runs the test with -s."""
    ended = run_runbook(prefect, "repair_corruption", scene.inventory, *options)
    print(f"\n$ repair_corruption {' '.join(options)}: {ended.status}\n{ended.output}")  # noqa: T201
    assert SECRET not in ended.output
    return ended


def check_healed(prefect: Prefect, scene: Scene) -> None:
    """See every member with the right value, and no alarm."""
    assert etcdctl(scene.lab, "alarm", "list").strip() == ""
    for name in MEMBERS:
        words = ("get", "told", "--print-value-only", "--consistency=s")
        assert etcdctl(scene.lab, *words, on=name).strip() == SECRET
    check_cluster(prefect, scene, list(MEMBERS))


def test_data_that_differ_are_found_and_healed(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path, etcd_version: str
) -> None:
    """Of a follower and of the leader, with etcd's alarm and without one; then nothing is left."""
    scene = raise_cluster(start_lab, prefect, tmp_path, spare=0)
    lab = scene.lab
    etcdctl(lab, "put", "told", SECRET)
    nothing = repair(prefect, scene)
    assert nothing.status == 0, nothing.output
    for leads in (False, True):
        leader = find_leader(lab, list(MEMBERS))
        victim = next(name for name in MEMBERS if name != leader)
        change(scene, victim)
        if leads:
            identity = f"{list_members(lab, victim)[victim]['ID']:x}"
            etcdctl(lab, "move-leader", identity, on=find_leader(lab, list(MEMBERS)))
            assert find_leader(lab, list(MEMBERS)) == victim
        dry = repair(prefect, scene, "--dry-run")
        assert dry.status == 0, dry.output
        old = list_members(lab, MEMBERS[0])
        ended = repair(prefect, scene)
        assert ended.status == 0, ended.output
        new = list_members(lab, MEMBERS[0])
        changed = {name for name in MEMBERS if old[name]["ID"] != new[name]["ID"]}
        assert changed == {victim}
        check_healed(prefect, scene)
    prefix = "ETCD_" if etcd_version in SINCE_3_6 else "ETCD_EXPERIMENTAL_"
    configure(lab, f"{prefix}CORRUPT_CHECK_TIME=3s")
    leader = find_leader(lab, list(MEMBERS))
    change(scene, next(name for name in MEMBERS if name != leader))
    deadline = time.monotonic() + SEEN_SECONDS
    while "CORRUPT" not in etcdctl(lab, "alarm", "list"):
        assert time.monotonic() < deadline, "etcd did not see it"
        time.sleep(1)
    assert repair(prefect, scene).status == 0
    check_healed(prefect, scene)


def test_without_a_majority_it_is_refused_with_the_hashes(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """Two of three are changed, each in its way; no file and no member is touched."""
    scene = raise_cluster(start_lab, prefect, tmp_path, spare=0)
    etcdctl(scene.lab, "put", "told", SECRET)
    change(scene, MEMBERS[0])
    change(scene, MEMBERS[1], "other than the next")
    old = list_members(scene.lab, MEMBERS[0])
    ended = repair(prefect, scene)
    assert ended.status == 2, ended.output
    assert "nobody can say whose data are right" in ended.output
    assert ended.output.count("at revision") == len(MEMBERS)
    assert list_members(scene.lab, MEMBERS[0]) == old


def test_a_member_that_etcd_ends_at_its_start_is_healed(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path, etcd_version: str
) -> None:
    """It has compared itself with the others; one that is down for another reason is refused."""
    scene = raise_cluster(start_lab, prefect, tmp_path, spare=0)
    lab = scene.lab
    etcdctl(lab, "put", "told", SECRET)
    look = "EXPERIMENTAL_INITIAL_CORRUPT_CHECK=true"
    if etcd_version in SINCE_3_6:
        look = "FEATURE_GATES=InitialCorruptCheck=true"
    # Before 3.6 one that has not made a snapshot of its log knows no peer when it looks.
    configure(lab, f"ETCD_{look}", "ETCD_SNAPSHOT_COUNT=5")
    for number in range(10):
        etcdctl(lab, "put", f"key{number}", "value")
    leader = find_leader(lab, list(MEMBERS))
    victim, other = (name for name in MEMBERS if name != leader)
    lab[other].run("systemctl stop etcd").check()
    stopped = repair(prefect, scene)
    assert stopped.status == 2, stopped.output
    assert "not all voters could be compared" in stopped.output
    lab[other].run("systemctl start etcd").check()
    change(scene, victim, waits=False)
    deadline = time.monotonic() + SEEN_SECONDS
    while INCONSISTENT not in lab[victim].run("journalctl --unit=etcd --output=cat").stdout:
        assert time.monotonic() < deadline, "etcd did not see it"
        time.sleep(1)
    checked = run_runbook(prefect, "check_health", scene.inventory)
    print(checked.output)  # noqa: T201 - what an operator reads
    assert "repair_corruption" in checked.output
    assert repair(prefect, scene, "--dry-run").status == 0
    old = list_members(lab, leader)
    ended = repair(prefect, scene)
    assert ended.status == 0, ended.output
    new = list_members(lab, leader)
    assert {name for name in MEMBERS if old[name]["ID"] != new[name]["ID"]} == {victim}
    check_healed(prefect, scene)


def change(scene: Scene, victim: str, to: str = OTHER, *, waits: bool = True) -> None:
    """Change a value in a member's database behind etcd's back, which does not look."""
    rot(scene.lab[victim], "etcd", "/var/lib/etcd/default.etcd", to, waits=waits)


def rot(host: Host, unit: str, data: str, to: str = OTHER, *, waits: bool = True) -> None:
    """Change the value in the database of a unit's member, in its data directory."""
    assert len(to) == len(SECRET)
    start = f"systemctl start {'' if waits else '--no-block '}{unit}"
    host.run(
        f"systemctl stop {unit} && db={data}/member/snap/db && "
        f"grep -q '{SECRET}' $db && LC_ALL=C sed 's/{SECRET}/{to}/g' $db >/run/rotten && "
        f"cat /run/rotten >$db && {start}"
    ).check()
