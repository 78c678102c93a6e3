"""A full database, a member with other data: each is told for what it is, and blocks no more.

The alarms are etcd's own: a quota is reached, and etcd's periodic check finds a database that was
changed on disk. The commands that check_health shows are typed as they are shown.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.integration.members import Scene, check_cluster, find_leader, list_members, raise_cluster
from tests.integration.rotations import authority_digits, served_serials
from tests.integration.runbooks import HANG_SECONDS, Ended, Prefect, etcdctl, run_runbook
from tests.lab.versions import SINCE_3_6

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(900)]

MEMBERS = ("master01", "master02", "master03")
FALSE = ("quorum is lost", "no member answers", "memberID", "Traceback", "fault of the runbook")
"""What was said of a full cluster, and is true of none of these."""


def run(prefect: Prefect, scene: Scene, runbook: str, *options: str) -> Ended:
    """Run a runbook; whatever it says, it is not one of the falsehoods."""
    ended = run_runbook(prefect, runbook, scene.inventory, *options)
    print(f"\n$ {runbook} {' '.join(options)}: {ended.status}\n{ended.stderr}")  # noqa: T201
    assert not [lie for lie in FALSE if lie in ended.output], ended.output
    return ended


def way_out(ended: Ended, of: str) -> tuple[str, list[str]]:
    """Read the host and the commands that check_health shows."""
    where = re.search(rf"the way out of {of}, on (\S+) as root", ended.stderr)
    assert where, ended.stderr
    return where[1], [line[4:] for line in ended.stderr.splitlines() if line.startswith("    ")]


def type_in(lab: Lab, host: str, commands: list[str]) -> str:
    """Type commands into root's shell on a host."""
    return lab[host].run("set -eux\n" + "\n".join(commands), timeout=100).check().stdout


def configure(lab: Lab, *lines: str) -> None:
    """Add settings to every member, one restart at a time."""
    for name in MEMBERS:
        added = "".join(f"echo {line} >> /etc/etcd/etcd.conf\n" for line in lines)
        lab[name].run(added + "systemctl restart etcd").check()


def fill(lab: Lab) -> None:
    """Write until etcd takes no more; raises what etcdctl said."""
    for _ in range(200):
        etcdctl(lab, "put", "filler", "x" * 100_000, on="master01")


def test_a_full_database_blocks_nothing_that_needs_no_write(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """At the quota a dead member is replaced, pairs are exchanged; the shown way leads out."""
    scene = raise_cluster(start_lab, prefect, tmp_path)
    lab = scene.lab
    for name in MEMBERS:
        unit = "[Service]\nExecStart=\nExecStart=/usr/local/bin/etcd --quota-backend-bytes=6000000"
        lab[name].run(
            "mkdir -p /etc/systemd/system/etcd.service.d && "
            f"echo '{unit}' >/etc/systemd/system/etcd.service.d/quota.conf && "
            "systemctl daemon-reload && systemctl restart etcd"
        ).check()
    with pytest.raises(Exception, match="database space exceeded"):
        fill(lab)
    ended = run(prefect, scene, "check_health")
    assert ended.status == 1
    assert "alarm NOSPACE" in ended.stderr
    assert "quota 5.7 MiB" in ended.stderr
    assert run(prefect, scene, "move_leader").status == 0
    old = {name: served_serials(lab[name]) for name in MEMBERS}
    assert run(prefect, scene, "rotate_certificates", "--which", "all").status == 0
    assert all(old[name] != served_serials(lab[name]) for name in MEMBERS)
    digits = authority_digits(scene.inventory)
    assert run(prefect, scene, "rotate_authority", "--replace", digits, "--dry-run").status == 0
    lab["master03"].power_cut()
    options = ("--member", "master03", "--replacement", scene.address("master04"))
    replaced = run(prefect, scene, "replace_member", *options, "--write-inventory")
    assert set(list_members(lab, "master01")) == {"master01", "master02", "master04"}
    assert replaced.status == 0, replaced.output
    host, commands = way_out(run(prefect, scene, "check_health"), "NOSPACE")
    type_in(lab, host, commands)
    check_cluster(prefect, scene, ["master01", "master02", "master04"])


def test_a_member_with_other_data_is_named_and_leaves(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path, etcd_version: str
) -> None:
    """Etcd finds bytes changed on disk; the shown way and replace_member heal."""
    scene = raise_cluster(start_lab, prefect, tmp_path, spare=0)
    lab = scene.lab
    prefix = "ETCD_" if etcd_version in SINCE_3_6 else "ETCD_EXPERIMENTAL_"
    configure(lab, f"{prefix}CORRUPT_CHECK_TIME=3s")
    etcdctl(lab, "put", "told", "the same everywhere")
    victim = next(name for name in MEMBERS if name != find_leader(lab, list(MEMBERS)))
    rot(lab, victim)
    ended = run(prefect, scene, "check_health")
    assert ended.status == 1
    # Before 3.6 etcd says that data differ, and not whose.
    named = victim if etcd_version in SINCE_3_6 else "a member that etcd does not name"
    assert ended.stderr.count("alarm CORRUPT") == 1, ended.stderr
    assert f"{named}: alarm CORRUPT" in ended.stderr
    other = next(name for name in MEMBERS if name != victim)
    forbidden: list[tuple[str, tuple[str, ...]]] = [
        ("rotate_authority", ("--replace", authority_digits(scene.inventory))),
    ]
    if named == victim:
        forbidden += [
            ("remove_member", ("--member", other)),
            ("replace_member", ("--member", other, "--planned")),
            ("replace_member", ("--member", victim)),
        ]
    for runbook, options in forbidden:
        refused = run(prefect, scene, runbook, *options)
        assert refused.status == 2, (runbook, refused.output)
        assert f"{named}: etcd raised the alarm CORRUPT" in refused.stderr, refused.output
    assert run(prefect, scene, "move_leader").status == 0
    assert run(prefect, scene, "rotate_certificates", "--which", "all").status == 0
    host, commands = way_out(ended, "CORRUPT")
    gone = f"{list_members(lab, host)[victim]['ID']:x}"
    url = f"https://{lab[other].address}:2379"
    words = [line.replace(" ID", f" {gone}").replace("=URL", f"={url}") for line in commands]
    type_in(lab, host, words)
    assert run(prefect, scene, "replace_member", "--member", victim).status == 0
    check_cluster(prefect, scene, list(MEMBERS))


def rot(lab: Lab, victim: str) -> None:
    """Change a value in a member's database behind etcd's back, and wait until etcd sees it."""
    lab[victim].run(
        "systemctl stop etcd && db=$(find /var/lib/etcd -name db) && "
        "grep -q 'the same everywhere' $db && LC_ALL=C sed "
        "'s/the same everywhere/not the same at all/g' $db >/run/rotten && cat /run/rotten >$db"
    ).check()
    lab[victim].run("systemctl start etcd").check()
    deadline = time.monotonic() + HANG_SECONDS
    while "CORRUPT" not in etcdctl(lab, "alarm", "list"):
        assert time.monotonic() < deadline, "etcd did not see it"
        time.sleep(1)
