"""Versions of etcd come and go on real hosts, under clients that never stop writing."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.members import Scene, fill, find_leader, raise_cluster
from tests.integration.rotations import wait_for_restarts
from tests.integration.runbooks import Prefect, etcdctl, finish, run_runbook, start_runbook
from tests.integration.test_members import tell
from tests.integration.upgrades import (
    LATER,
    MIDDLE,
    NEWEST,
    OLD,
    aim_at,
    leftovers,
    put_replaced_back,
    upgrade,
    versions,
)
from tests.integration.writers import Writers
from tests.lab.etcd_programs import get_programs

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.one_etcd]

chaos = pytest.mark.chaos


@pytest.mark.parametrize(
    ("members", "megabytes", "path"),
    [
        pytest.param(3, 1, (MIDDLE, LATER), id="3 members, one hop"),
        pytest.param(3, 100, (OLD, MIDDLE, LATER, NEWEST), id="3 members, all", marks=chaos),
        pytest.param(5, 100, (OLD, MIDDLE, LATER, NEWEST), id="5 members, all", marks=chaos),
        pytest.param(3, 100, (NEWEST, LATER, MIDDLE), id="3 members, two down", marks=chaos),
        pytest.param(5, 100, (NEWEST, LATER, MIDDLE), id="5 members, two down", marks=chaos),
    ],
)
def test_a_cluster_goes_all_the_way_in_one_command_and_no_write_is_lost(
    start_lab: StartLab,
    prefect: Prefect,
    tmp_path: Path,
    members: int,
    megabytes: int,
    path: tuple[str, ...],
) -> None:
    """Hop by hop to the last version; then nothing is to do."""
    first, *further, goal = path
    scene = raise_cluster(start_lab, prefect, tmp_path, members=members, spare=0, etcd=first)
    hosts = scene.members
    fill(scene.lab, hosts[0], megabytes)
    aimed = aim_at(scene, goal, *further)
    with Writers(scene.lab, tmp_path, files=scene.clients) as writers:
        began = time.monotonic()
        ended = upgrade(prefect, aimed)
        assert ended.status == 0, ended.output
        took = time.monotonic()
    report = writers.check(on=hosts[-1])
    tell(f"{members} x {first} -> {goal}", prefect, began + time.monotonic() - took, report)
    told = read_report(prefect)
    print(ended.stdout, told, sep="\n")  # noqa: T201 - for whoever runs it with -s
    for version in path[1:]:
        assert f"**longest gap, hop to {version}:** reads " in told
    assert re.search(r"\*\*data:\*\* (revision \d+: \d+ keys, hash [0-9a-f]{8}(; )?)+ on all", told)
    assert report.lost == ()
    assert set(versions(scene.lab, hosts).values()) == {goal}
    assert leftovers(scene.lab) == ""
    again = upgrade(prefect, aimed)
    assert again.status == 0, again.output
    assert "nothing to do" in again.output
    healthy = run_runbook(prefect, "check_health", aimed.inventory)
    assert healthy.status == 0, healthy.output


def read_report(prefect: Prefect) -> str:
    """Read the last run's report."""
    kept = prefect.ask("/artifacts/filter", {"sort": "CREATED_DESC", "limit": 20})
    return next(str(one["data"]) for one in kept if str(one["key"]).endswith("report"))


FIRST_DONE = "step-finished|verify the cluster#1"
REFUSED_FLAG = "/etc/systemd/system/etcd.service.d/10-upgrade.conf"


def stop_on_the_way(prefect: Prefect, scene: Scene, goal: str, *further: str) -> None:
    """Let a run to a version die when one member runs it."""
    killer = ("-m", "tests.integration.killed_run", FIRST_DONE)
    inventory = aim_at(scene, goal, *further).inventory
    killed = finish(start_runbook(prefect, "upgrade_cluster", inventory, launcher=killer))
    assert killed.status == -9, killed.output
    wait_for_restarts(scene.lab)


@chaos
@pytest.mark.parametrize(("start", "goal"), [(OLD, MIDDLE), (MIDDLE, LATER), (LATER, NEWEST)])
def test_each_hop_is_gone_back_while_mixed_and_after(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path, start: str, goal: str
) -> None:
    """Where etcd has no way back, the snapshot is named, and what it lacks; it is one."""
    scene = raise_cluster(start_lab, prefect, tmp_path, spare=0, etcd=start)
    with Writers(scene.lab, tmp_path, files=scene.clients) as writers:
        etcdctl(scene.lab, "put", "from-before", start)
        stop_on_the_way(prefect, scene, goal, start)
        assert len(set(versions(scene.lab, scene.members).values())) == 2
        back = upgrade(prefect, aim_at(scene, start, goal))
        assert back.status == 0, back.output
        assert set(versions(scene.lab, scene.members).values()) == {start}
        up = upgrade(prefect, aim_at(scene, goal, start))
        assert up.status == 0, up.output
        again = upgrade(prefect, aim_at(scene, start, goal))
    assert writers.check().lost == ()
    if start == OLD:
        assert again.status == 2
        go_back_by_the_snapshot(prefect, scene, start, " ".join(again.output.split()))
        return
    assert again.status == 0, again.output
    assert set(versions(scene.lab, scene.members).values()) == {start}
    assert leftovers(scene.lab) == ""


def go_back_by_the_snapshot(prefect: Prefect, scene: Scene, start: str, said: str) -> None:
    """Do what the refusal says: the old programs under what runs, then the snapshot."""
    etcdctl(scene.lab, "put", "from-after", "x")
    assert "loses every write since it was taken: the newest is" in said
    told = re.search(r"command line: restore_cluster --cluster \S+ (--snapshot [^)]+)\)", said)
    assert told is not None
    for host in scene.lab.hosts.values():
        put_replaced_back(host, start)
    back = aim_at(scene, start)
    ended = run_runbook(prefect, "restore_cluster", back.inventory, *told[1].split())
    assert ended.status == 0, ended.output
    assert set(versions(scene.lab, scene.members).values()) == {start}
    keys = etcdctl(scene.lab, "get", "from-", "--prefix", "--keys-only").split()
    assert keys == ["from-before"]


@chaos
def test_settings_that_go_away_are_translated_with_consent(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """A variable on one host, a flag on another; refused before anything is touched without it."""
    scene = raise_cluster(start_lab, prefect, tmp_path, spare=0, etcd=LATER)
    lab = scene.lab
    conf = "/etc/etcd/etcd.conf"
    lab["master01"].run(f"echo ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK=true >> {conf}").check()
    flag = "--experimental-compaction-batch-limit=700"
    lab["master02"].run(
        f"mkdir -p {REFUSED_FLAG.rpartition('/')[0]} && printf '[Service]\\nExecStart=\\n"
        f"ExecStart=/usr/local/bin/etcd {flag}\\n' > {REFUSED_FLAG} && systemctl daemon-reload"
    ).check()
    for host in ("master01", "master02"):
        lab[host].run("systemctl restart etcd").check()
    aimed = aim_at(scene, NEWEST, LATER)
    refused = upgrade(prefect, aimed)
    assert refused.status == 2, refused.output
    said = " ".join(refused.output.split())
    assert "experimental-initial-corrupt-check=true becomes feature-gates=" in said
    assert f"{REFUSED_FLAG}:3: experimental-compaction-batch-limit=700 becomes" in said
    assert set(versions(lab, scene.members).values()) == {LATER}
    ended = upgrade(prefect, aimed, "--accept", "settings")
    assert ended.status == 0, ended.output
    assert "ETCD_FEATURE_GATES=" in lab["master01"].run(f"cat {conf}").stdout
    assert "--compaction-batch-limit=700" in lab["master02"].run(f"cat {REFUSED_FLAG}").stdout
    checked = lab["master01"].run("journalctl -u etcd --output=cat").stdout
    assert "initial corruption checking passed" in checked.partition(f'"{NEWEST}"')[2]


@chaos
def test_a_member_that_does_not_come_back_gets_its_old_program(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """The run ends there; the others were not touched, and no write is lost."""
    scene = raise_cluster(start_lab, prefect, tmp_path, spare=0, etcd=MIDDLE)
    leader = find_leader(scene.lab, scene.members)
    first = next(host for host in scene.members if host != leader)
    scene.lab[first].run(
        f"mkdir -p {REFUSED_FLAG.rpartition('/')[0]} && printf '[Service]\\nExecStartPre=/bin/sh -c"
        f' "! /usr/local/bin/etcd --version | grep -q {LATER}"\\n\' > {REFUSED_FLAG} && '
        "systemctl daemon-reload"
    ).check()
    with Writers(scene.lab, tmp_path, files=scene.clients) as writers:
        ended = upgrade(prefect, aim_at(scene, LATER, MIDDLE))
    assert ended.status == 1, ended.output
    assert "The old one is back in place and etcd runs" in " ".join(ended.output.split())
    assert set(versions(scene.lab, scene.members).values()) == {MIDDLE}
    assert writers.check().lost == ()
    scene.lab[first].run(f"rm {REFUSED_FLAG}; systemctl daemon-reload").check()
    again = upgrade(prefect, aim_at(scene, LATER, MIDDLE))
    assert again.status == 0, again.output


@chaos
def test_what_must_not_be_done_is_refused_before_anything_is_touched(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """No programs of a hop, a wrong sum, another machine's, a member that is down, a package's."""
    scene = raise_cluster(start_lab, prefect, tmp_path, spare=0, etcd=OLD)
    lab = scene.lab

    def refuse(aimed: Scene, *options: str) -> str:
        ended = upgrade(prefect, aimed, *options)
        assert ended.status == 2, ended.output
        return " ".join(ended.output.split())

    said = refuse(aim_at(scene, NEWEST))
    assert "etcd 3.5: name one from 3.5.26 on" in said
    assert "etcd 3.6: name one from 3.6.11 on" in said
    aimed = aim_at(scene, MIDDLE)
    right = aimed.inventory.read_text()
    sum_of_etcd = get_programs(MIDDLE).sha256["etcd"]
    aimed.inventory.write_text(right.replace(sum_of_etcd, "f" * 64))
    assert "has the SHA-256" in refuse(aimed)
    aimed.inventory.write_text(right)
    other = tmp_path / "other"
    shutil.copytree(get_programs(MIDDLE).directory, other)
    program = bytearray((other / "etcd").read_bytes())
    program[18:20] = b"\xb7\x00"
    (other / "etcd").write_bytes(program)
    text = right.replace(str(get_programs(MIDDLE).directory), str(other))
    text = text.replace(sum_of_etcd, hashlib.sha256(program).hexdigest())
    aimed.inventory.write_text(text)
    assert "its program is for aarch64" in refuse(aimed)
    older, newer = get_programs(LATER), get_programs(MIDDLE)
    text = right.replace(str(newer.directory), str(older.directory))
    for name, digits in newer.sha256.items():
        text = text.replace(digits, older.sha256[name])
    aimed.inventory.write_text(text)
    assert f"is not {MIDDLE}, but of another version" in refuse(aimed)
    aimed.inventory.write_text(right)
    lab["master03"].run("systemctl stop etcd").check()
    assert "bring it back first" in refuse(aimed)
    lab["master03"].run("systemctl start etcd").check()
    info = "/var/lib/dpkg/info/etcd-of-a-test.list"
    lab["master02"].run(f"echo /usr/local/bin/etcd > {info}").check()
    state = "Package: etcd-of-a-test\\nStatus: install ok installed\\nVersion: 1\\n"
    about = "Architecture: all\\nMaintainer: x\\nDescription: x\\n\\n"
    lab["master02"].run(f"printf '{state}{about}' >> /var/lib/dpkg/status").check()
    assert "is of the package etcd-of-a-test" in refuse(aimed)
    assert set(versions(lab, scene.members).values()) == {OLD}
    assert leftovers(lab) == ""
    ended = upgrade(prefect, aimed, "--accept", "package")
    assert ended.status == 0, ended.output
