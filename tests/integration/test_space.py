"""Space is given back without a gap in service, and a full cluster is led out by one command."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tasks.plans.fullness import FEW_DAYS
from tests.integration.members import Scene, fill, find_leader, raise_cluster
from tests.integration.runbooks import Ended, Prefect, etcdctl, run_runbook
from tests.integration.writers import Writers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

MEMBERS = ("master01", "master02", "master03")
QUOTA = 48 << 20
DISK_MB = 400
LEFT_MB = 4
SMALL = ("--at-least-mb", "1")


@pytest.fixture(scope="module")
def scene(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    """Bootstrap three members for all tests."""
    return raise_small(start_module_lab, prefect, tmp_path_factory.mktemp("scene"))


def raise_small(
    start_module_lab: StartLab, prefect: Prefect, files: Path, disk_mb: int = DISK_MB
) -> Scene:
    """Bootstrap three members with a small quota and a disk that can be filled."""
    lab = start_module_lab(hosts=3, data_disk_mb=disk_mb)
    text = lab.inventory.read_text()
    assert "settings: {}" in text
    lab.inventory.write_text(
        text.replace("settings: {}", f"settings: {{quota_backend_bytes: {QUOTA}}}")
    )
    return raise_cluster(lambda **_: lab, prefect, files, spare=0)


def reclaim(prefect: Prefect, scene: Scene, *options: str) -> Ended:
    """Run the runbook, and show it to whoever runs the test with -s."""
    ended = run_runbook(prefect, "reclaim_space", scene.inventory, *options)
    print(f"\n$ reclaim_space {' '.join(options)}: {ended.status}\n{ended.output}")  # noqa: T201
    return ended


def rewrite(lab: Lab, megabytes: int, key: str = "filler") -> str:
    """Write one key again and again, so that its history takes so much; tells what etcd said."""
    tls = "--cacert=/etc/etcd/ssl/ca.pem --cert=/etc/etcd/ssl/client.pem"
    tls += " --key=/etc/etcd/ssl/client-key.pem"
    url = f"https://{lab['master01'].address}:2379"
    script = (
        "head -c 786432 /dev/urandom | base64 -w0 >/run/value; "
        f"for n in $(seq {megabytes}); do ETCDCTL_API=3 /usr/local/bin/etcdctl --endpoints={url} "
        f"{tls} put {key} </run/value 2>&1 || break; done"
    )
    return lab["master01"].run(script, timeout=200).stdout


def sizes(lab: Lab) -> dict[str, int]:
    """Ask each member how large its database is."""
    found = {}
    for name in MEMBERS:
        (row,) = json.loads(etcdctl(lab, "endpoint", "status", "-w", "json", on=name))
        found[name] = row["Status"]["dbSize"]
    return found


def compact(lab: Lab) -> None:
    """Let all history go, as somebody does by hand."""
    (row,) = json.loads(etcdctl(lab, "endpoint", "status", "-w", "json", on="master01"))
    etcdctl(lab, "compaction", "--physical", str(row["Status"]["header"]["revision"]))


def test_a_full_cluster_is_writable_again_after_one_command(
    scene: Scene, prefect: Prefect, tmp_path: Path
) -> None:
    """With writers that go on all the time; nothing that was acknowledged is lost."""
    lab = scene.lab
    with Writers(lab, tmp_path, files=scene.clients) as writers:
        assert "database space exceeded" in rewrite(lab, 80)
        assert "NOSPACE" in etcdctl(lab, "alarm", "list")
        began = time.time()
        ended = reclaim(prefect, scene)
        assert ended.status == 0, ended.output
        seconds = time.time() - began
        time.sleep(0.5)
    assert etcdctl(lab, "alarm", "list").strip() == ""
    assert max(sizes(lab).values()) < QUOTA // 4
    logs = writers.read()
    firsts = [min(at for _, at in rows if at > began) - began for rows in logs]
    report = writers.check(on="master02")
    print(f"\nwritable after {max(firsts):.1f} s of a run of {seconds:.1f} s; {report}")  # noqa: T201
    assert report.lost == ()
    assert "filler: 1 keys" in ended.output


@pytest.mark.chaos
def test_a_full_cluster_that_somebody_has_compacted_is_led_out(
    scene: Scene, prefect: Prefect
) -> None:
    """Who has begun by hand; etcd takes no write then, by which it would count what is free."""
    lab = scene.lab
    assert "database space exceeded" in rewrite(lab, 80)
    compact(lab)
    ended = reclaim(prefect, scene)
    assert ended.status == 0, ended.output
    assert etcdctl(lab, "alarm", "list").strip() == ""
    assert max(sizes(lab).values()) < QUOTA // 4


def test_a_check_tells_the_days_that_are_left(scene: Scene, prefect: Prefect) -> None:
    """By what earlier checks have noted; it fails when they are few."""
    (record,) = (prefect.home / "etcd-runbooks" / "space").glob("*.jsonl")
    last = json.loads(record.read_text().splitlines()[-1])
    for grown, days, status in ((QUOTA // 100, 50, 0), (QUOTA // 4, 4, 1)):
        before = {**last, "at": time.time() - 2 * 86400, "in_use": last["in_use"] - 2 * grown}
        record.write_text(json.dumps(before) + "\n")
        ended = run_runbook(prefect, "check_health", scene.inventory)
        assert ended.status == status, ended.output
        told = re.search(r"a day, (\d+) days are left", ended.output)
        assert told, ended.output
        assert days < int(told[1]) + days // 2 < 3 * days, ended.output
        assert (days < FEW_DAYS) is ("reclaim_space" in ended.output), ended.output
    record.unlink()


@pytest.mark.chaos
def test_a_night_with_nothing_to_give_back_touches_nothing(scene: Scene, prefect: Prefect) -> None:
    """By the rules' own sizes; twice, and the second one knows what is old enough."""
    for _ in range(2):
        ended = reclaim(prefect, scene, "--keep-minutes", "0")
        assert ended.status == 0, ended.output
        assert "defragment" not in ended.stdout.partition("most space")[0], ended.output


@pytest.mark.chaos
def test_a_night_gives_back_what_is_free_and_the_leader_comes_last(
    scene: Scene, prefect: Prefect, tmp_path: Path
) -> None:
    """A dry run tells what; the run does it, on each member while it does not lead."""
    lab = scene.lab
    rewrite(lab, 30)
    before = sizes(lab)
    leader = find_leader(lab, list(MEMBERS))
    dry = reclaim(prefect, scene, *SMALL, "--keep-revisions", "1", "--dry-run")
    assert dry.status == 0, dry.output
    assert sizes(lab) == before
    with Writers(lab, tmp_path, files=scene.clients) as writers:
        ended = reclaim(prefect, scene, *SMALL, "--keep-revisions", "1")
    assert ended.status == 0, ended.output
    assert all(size < before[name] // 2 for name, size in sizes(lab).items())
    order = re.findall(r"^  master\d+: defragment (master\d+)", ended.output, re.MULTILINE)
    assert order[len(MEMBERS) - 1] == leader, ended.output
    assert find_leader(lab, list(MEMBERS)) != leader
    report = writers.check(on="master03")
    print(report)  # noqa: T201
    assert report.lost == ()


@pytest.mark.chaos
def test_a_database_near_a_small_quota_is_due_whatever_its_size(
    scene: Scene, prefect: Prefect
) -> None:
    """A night's own rules give it back before etcd takes no more writes."""
    lab = scene.lab
    rewrite(lab, 34)
    before = sizes(lab)
    assert QUOTA * 4 // 5 < min(before.values()) <= max(before.values()) < QUOTA
    ended = reclaim(prefect, scene, "--keep-revisions", "1")
    assert ended.status == 0, ended.output
    assert all(size < before[name] // 2 for name, size in sizes(lab).items())


@pytest.mark.chaos
def test_no_member_is_defragmented_while_another_is_down(scene: Scene, prefect: Prefect) -> None:
    """It is refused, and names the one that is down."""
    lab = scene.lab
    lab["master03"].run("systemctl stop etcd").check()
    ended = reclaim(prefect, scene, *SMALL, "--keep-revisions", "1")
    lab["master03"].run("systemctl start etcd").check()
    assert ended.status == 2, ended.output
    assert "master03" in ended.output


@pytest.mark.chaos
def test_a_disk_without_room_for_a_copy_is_told_and_left(scene: Scene, prefect: Prefect) -> None:
    """The other members are done, and the run fails with what is to be freed where."""
    lab = scene.lab
    rewrite(lab, 20)
    for number in range(8):
        rewrite(lab, 1, f"lasting/{number}")
    took = f"fallocate -l $(($(df --output=avail -B1 /var/lib | tail -n 1) - {LEFT_MB << 20}))"
    lab["master02"].run(f"{took} /var/lib/filler").check()
    try:
        ended = reclaim(prefect, scene, *SMALL, "--keep-revisions", "1", "--free-percent", "1")
    finally:
        lab["master02"].run("rm /var/lib/filler").check()
    assert ended.status == 1, ended.output
    assert "master02: a defragmentation needs" in ended.output
    small = sizes(lab)
    assert small["master02"] > max(small["master01"], small["master03"])
    again = reclaim(prefect, scene, *SMALL, "--free-percent", "1")
    assert again.status == 0, again.output
    assert sizes(lab)["master02"] < small["master02"]


@pytest.mark.chaos
def test_a_diagnosis_tells_all_of_a_healthy_and_of_a_half_dead_cluster(
    scene: Scene, prefect: Prefect
) -> None:
    """Every member's numbers; then what is dead is not seen, and is no fault of the diagnosis."""
    whole = diagnose(prefect, scene)
    logged = "log, last hour"
    for what in ("log written (p99)", "round trip (p99)", "leader changes", "clock", logged):
        assert sum(row[1] == what for row in whole) >= len(MEMBERS), what
    assert not [row for row in whole if row[0] in ("bad", "?")]
    for name in MEMBERS[1:]:
        scene.lab[name].run("systemctl stop etcd").check()
    half = diagnose(prefect, scene)
    for name in MEMBERS[1:]:
        scene.lab[name].run("systemctl start --no-block etcd").check()
    assert any(row[1] == "members healthy" and row[5].endswith("it is lost") for row in half)
    assert {row[2] for row in half if row[1] == "metrics"} == set(MEMBERS[1:])
    assert any(row[1:3] == ["log written (p99)", MEMBERS[0]] for row in half)
    lost = [row for row in half if row[1:3] == [logged, MEMBERS[0]] and "lost leader" in row[3]]
    assert lost, half


def diagnose(prefect: Prefect, scene: Scene) -> list[list[str]]:
    """Run the runbook and read its lines from the journal."""
    ended = run_runbook(prefect, "diagnose", scene.inventory)
    print(ended.output)  # noqa: T201
    assert ended.status == 0, ended.output
    records = read_journal(prefect.journals[-1])
    return [list(row) for r in records if r.event is Event.OBSERVED for row in r.details["rows"]]


@pytest.mark.chaos
def test_members_that_are_stopped_meanwhile_send_their_clients_away(
    scene: Scene, prefect: Prefect, tmp_path: Path
) -> None:
    """Each is smaller then and serves again; a careful client waits for none of them."""
    lab = scene.lab
    rewrite(lab, 30)
    before = sizes(lab)
    with Writers(lab, tmp_path, files=scene.clients) as writers:
        ended = reclaim(prefect, scene, *SMALL, "--keep-revisions", "1", "--stop-members")
    assert ended.status == 0, ended.output
    assert all(size < before[name] // 2 for name, size in sizes(lab).items())
    assert ended.output.count("while it is stopped: done") == len(MEMBERS)
    report = writers.check(on="master01")
    print(report)  # noqa: T201
    assert report.lost == ()


@pytest.mark.chaos
def test_nospace_is_left_where_the_disk_has_no_room_for_the_database(
    scene: Scene, prefect: Prefect
) -> None:
    """Only for what is really in use, which etcd does not count by itself while nobody writes."""
    lab = scene.lab
    assert "database space exceeded" in rewrite(lab, 80)
    took = f"fallocate -l $(($(df --output=avail -B1 /var/lib | tail -n 1) - {QUOTA // 4}))"
    for name in MEMBERS:
        lab[name].run(f"{took} /var/lib/filler").check()
    try:
        ended = reclaim(prefect, scene)
    finally:
        for name in MEMBERS:
            lab[name].run("rm -f /var/lib/filler").check()
    assert ended.status == 0, ended.output
    assert etcdctl(lab, "alarm", "list").strip() == ""
    assert max(sizes(lab).values()) < QUOTA // 4


@pytest.mark.chaos
def test_a_quota_is_raised_where_all_is_in_use(
    scene: Scene, prefect: Prefect, tmp_path: Path
) -> None:
    """From NOSPACE that no defragmentation ends: the message's command leads out, writers on."""
    lab = scene.lab
    with Writers(lab, tmp_path, files=scene.clients) as writers:
        with pytest.raises(Exception, match="space exceeded"):
            fill(lab, "master01", QUOTA >> 19)
        stuck = reclaim(prefect, scene)
        assert stuck.status == 1, stuck.output
        assert f"twice as much is {2 * QUOTA}" in stuck.output
        say_quota(scene, QUOTA // 2)
        refused = reclaim(prefect, scene, "--raise-quota")
        assert refused.status == 2, refused.output
        say_quota(scene, 2 * QUOTA)
        began = time.time()
        ended = reclaim(prefect, scene, "--raise-quota")
        seconds = time.time() - began
        assert ended.status == 0, ended.output
        time.sleep(1)
    assert etcdctl(lab, "alarm", "list").strip() == ""
    firsts = [min(at for _, at in rows if at > began) - began for rows in writers.read()]
    report = writers.check(on="master02")
    print(f"\nwritable after {max(firsts):.1f} s of a run of {seconds:.1f} s; {report}")  # noqa: T201
    assert report.lost == ()
    assert "raise the quota of" not in reclaim(prefect, scene, "--raise-quota").output


def say_quota(scene: Scene, size: int) -> None:
    """Write a quota into the inventory."""
    text = scene.inventory.read_text()
    scene.inventory.write_text(
        re.sub(r"quota_backend_bytes: \d+", f"quota_backend_bytes: {size}", text)
    )
