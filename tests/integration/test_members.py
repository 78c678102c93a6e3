"""Members come and go on real hosts, under clients that never stop writing."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.config.parsing import parse_configuration
from tasks.engine.journal import read_journal
from tasks.model.inventory_file import load_inventory
from tasks.model.member_settings import flag_name
from tasks.model.record import Event
from tests.integration.members import (
    Scene,
    check_cluster,
    fill,
    find_leader,
    list_members,
    raise_cluster,
    replace,
)
from tests.integration.pairs import install
from tests.integration.runbooks import (
    HANG_SECONDS,
    Prefect,
    etcdctl,
    finish,
    run_runbook,
    start_runbook,
)
from tests.integration.writers import Writers
from tests.lab.etcd_programs import INSTALLED, NEWEST

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.host import Host

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

chaos = pytest.mark.chaos
FLAGS = "/etc/systemd/system/etcd.service.d/10-flags.conf"


def tell(title: str, prefect: Prefect, began: float, report: object) -> None:
    """Print the figures of a run, for whoever runs the test with -s."""
    lines = read_journal(prefect.journals[-1])
    measured = [r.details["summary"] for r in lines if r.event is Event.MEASURED]
    print(f"\n{title}: {time.monotonic() - began:.1f} s; {report}; {measured}")  # noqa: T201


@pytest.mark.one_etcd
@pytest.mark.parametrize(
    ("members", "etcd", "victim"),
    [
        pytest.param(3, "3.5.16", "first", id="3 members, first host"),
        pytest.param(3, NEWEST, "leader", id="3 members, newest 3.5, leader", marks=chaos),
        pytest.param(3, INSTALLED, "leader", id="3 members, 3.4, leader", marks=chaos),
        pytest.param(3, INSTALLED, "follower", id="3 members, 3.4, follower", marks=chaos),
        pytest.param(5, NEWEST, "first", id="5 members, newest 3.5, first host", marks=chaos),
        pytest.param(5, INSTALLED, "leader", id="5 members, 3.4, leader", marks=chaos),
    ],
)
def test_a_power_cut_member_is_replaced_on_a_fresh_host(
    start_lab: StartLab,
    prefect: Prefect,
    tmp_path: Path,
    members: int,
    etcd: str,
    victim: str,
) -> None:
    """100 MB of data, two writers, no write lost; the inventory and every etcd.conf follow."""
    scene = raise_cluster(start_lab, prefect, tmp_path, members=members, etcd=etcd)
    hosts, spare = scene.members, scene.spare[0]
    fill(scene.lab, hosts[0], 100)
    leader = find_leader(scene.lab, hosts)
    follower = next(host for host in hosts[1:] if host != leader)
    dead = {"first": hosts[0], "leader": leader, "follower": follower}[victim]
    with Writers(scene.lab, tmp_path, files=scene.clients) as writers:
        began = time.monotonic()
        scene.lab[dead].power_cut()
        ended = replace(prefect, scene, dead, spare)
        assert ended.status == 0, ended.output
        report_at = time.monotonic()
    left = [spare if host == dead else host for host in hosts]
    report = writers.check(on=spare)
    tell(f"{members} x {etcd}, {victim}", prefect, began + time.monotonic() - report_at, report)
    assert report.lost == ()
    check_cluster(prefect, scene, left)
    again = replace(prefect, scene, dead, spare)
    assert again.status == 0, again.output
    assert "nothing to do" in again.output
    asked = replace(prefect, scene, dead, spare, "--approval")
    assert asked.status == 0, asked.output
    steps = [r.details.get("step", "") for r in read_journal(prefect.journals[-1])]
    assert any(step.startswith("reach the other members on") for step in steps), steps


@pytest.fixture
def scene(start_lab: StartLab, prefect: Prefect, tmp_path: Path) -> Scene:
    """Three members and one spare host."""
    return raise_cluster(start_lab, prefect, tmp_path)


def test_a_reinstalled_host_takes_its_own_place(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """Same name, same address, empty disk; no inventory to change. Called by its member's name."""
    scene = raise_cluster(start_lab, prefect, tmp_path, named=True)
    scene.lab["master02"].power_cut()
    scene.lab["master02"].reinstall()
    member = load_inventory(str(scene.inventory)).layout("master02").member
    ended = run_runbook(prefect, "replace_member", scene.inventory, "--member", member)
    assert ended.status == 0, ended.output
    assert f"{member} on master02" in " ".join(ended.stdout.split())
    check_cluster(prefect, scene, ["master01", "master02", "master03"])


@chaos
def test_a_host_that_answers_but_lost_its_disk_is_replaced_in_place(
    scene: Scene, prefect: Prefect
) -> None:
    """Etcd is down and its data is gone; SSH works. The member is called by its id."""
    host = scene.lab["master03"]
    member = list_members(scene.lab, "master01")["master03"]["ID"]
    host.run("systemctl kill -s KILL etcd; systemctl stop etcd; rm -rf /var/lib/etcd/*").check()
    refused = run_runbook(prefect, "replace_member", scene.inventory, "--member", f"{member:x}")
    assert refused.status == 2
    assert "name the host that takes its place" in refused.output
    words = ("--member", f"{member:x}", "--replacement", "master03")
    ended = run_runbook(prefect, "replace_member", scene.inventory, *words)
    assert ended.status == 0, ended.output
    check_cluster(prefect, scene, ["master01", "master02", "master03"])


def test_a_dead_member_whose_host_answers_is_kept_from_coming_back(
    scene: Scene, prefect: Prefect
) -> None:
    """Its etcd is disabled, its data set aside on its host; a reboot does not start it."""
    old = scene.lab["master02"]
    old.run("systemctl stop etcd").check()
    ended = replace(prefect, scene, "master02", "master04")
    assert ended.status == 0, ended.output
    check_cluster(prefect, scene, ["master01", "master04", "master03"])
    assert old.run("systemctl is-enabled etcd").stdout.strip() == "disabled"
    assert old.run("ls -d /var/lib/etcd/default.etcd.retired-*/member").check()
    assert not (old.root / "var/lib/etcd/default.etcd").exists()
    again = run_runbook(prefect, "bootstrap_cluster", scene.inventory)
    assert again.status == 0, again.output
    assert "nothing to do" in again.output


def test_a_planned_replacement_of_the_leader_adds_first(
    scene: Scene, prefect: Prefect, tmp_path: Path
) -> None:
    """No write is lost, there are never fewer than three healthy voters, leadership is moved."""
    leader = find_leader(scene.lab, scene.members)
    refused = replace(prefect, scene, leader, "master04")
    assert refused.status == 2
    assert "is a healthy voter" in refused.output
    with Writers(scene.lab, tmp_path, files=scene.clients) as writers:
        began = time.monotonic()
        ended = replace(prefect, scene, leader, "master04", "--planned")
        assert ended.status == 0, ended.output
    report = writers.check(on="master04")
    tell("planned, leader", prefect, began, report)
    assert report.lost == ()
    left = [*(h if h != leader else "master04" for h in ("master01", "master02", "master03"))]
    check_cluster(prefect, scene, left)
    assert scene.lab[leader].run("systemctl is-enabled etcd").stdout.strip() == "disabled"


def test_what_must_not_be_done_is_refused_and_nothing_is_changed(
    scene: Scene, prefect: Prefect
) -> None:
    """Foreign data, a name that is taken, quorum lost, an unknown member, an even number."""
    lab, before = scene.lab, scene.inventory.read_text()
    lab["master02"].run("systemctl stop etcd").check()
    members = list_members(lab, "master01")
    data = lab["master04"].root / "var/lib/etcd/default.etcd/member/wal"
    data.mkdir(parents=True)
    (data / "0000000000000000-0000000000000000.wal").write_bytes(b"other")

    def refuse(runbook: str, *words: str) -> str:
        ended = run_runbook(prefect, runbook, scene.inventory, *words, "--write-inventory")
        assert ended.status == 2, ended.output
        assert list_members(lab, "master01") == members
        assert scene.inventory.read_text() == before
        return ended.output

    to = ("--replacement", scene.address("master04"))
    assert "holds data, and this host is no member" in refuse(
        "replace_member", "--member", "master02", *to
    )
    assert "name one for each" in refuse("replace_member", "--member", "master02", *to, *to)
    assert "name at least one" in refuse("remove_member", "--empty-member")
    assert "no member, id or host is called so" in refuse("replace_member", "--member", "m9", *to)
    clash = ("--replacement", f"master03={lab['master04'].address}")
    assert "master03" in refuse("replace_member", "--member", "master02", *clash)
    assert "is a healthy voter (members that are down: master02)" in refuse(
        "replace_member", "--member", "master03"
    )
    assert "no more than 1 would" in refuse("remove_member", "--member", "master02")
    assert "without master03, 1 of 2 voters" in refuse("remove_member", "--member", "master03")
    lab["master03"].run("systemctl stop etcd").check()
    ended = run_runbook(
        prefect, "replace_member", scene.inventory, "--member", "master02", "--snapshot", "skip"
    )
    assert ended.status == 2
    assert "--snapshot skip) needs a reason" in ended.output
    data.parent.parent.rename(data.parent.parent.with_name("elsewhere"))
    ended = run_runbook(prefect, "replace_member", scene.inventory, "--member", "master02", *to)
    assert ended.status == 2, ended.output
    assert "quorum is lost: 0 of 3" in ended.output


@chaos
def test_one_becomes_three_becomes_five_becomes_three(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """Scaling by two at a time keeps the number odd; each ends in full health."""
    scene = raise_cluster(start_lab, prefect, tmp_path, members=1, spare=4)
    names = [f"master{n:02d}" for n in range(1, 6)]
    with Writers(scene.lab, tmp_path, files=scene.clients) as writers:
        for count in (3, 5):
            words = [x for n in names[count - 2 : count] for x in ("--member", scene.address(n))]
            ended = run_runbook(prefect, "add_member", scene.inventory, *words, "--write-inventory")
            assert ended.status == 0, ended.output
            check_cluster(prefect, scene, names[:count])
        words = ["--member", "master01", "--member", "master03", "--write-inventory"]
        ended = run_runbook(prefect, "remove_member", scene.inventory, *words)
        assert ended.status == 0, ended.output
    check_cluster(prefect, scene, ["master02", "master04", "master05"])
    assert writers.check(on="master05").lost == ()


@chaos
@pytest.mark.one_etcd
@pytest.mark.parametrize("etcd", [INSTALLED, NEWEST])
def test_two_dead_of_five_are_replaced_in_one_run(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path, etcd: str
) -> None:
    """Both go before the first comes; no write is lost."""
    scene = raise_cluster(start_lab, prefect, tmp_path, members=5, spare=2, etcd=etcd)
    with Writers(scene.lab, tmp_path, files=scene.clients) as writers:
        scene.lab["master01"].power_cut()
        scene.lab["master04"].power_cut()
        words = ["--member", "master01", "--replacement", scene.address("master06")]
        words += ["--member", "master04", "--replacement", scene.address("master07")]
        ended = run_runbook(prefect, "replace_member", scene.inventory, *words, "--write-inventory")
        assert ended.status == 0, ended.output
    assert writers.check(on="master07").lost == ()
    left = ["master06", "master02", "master03", "master07", "master05"]
    check_cluster(prefect, scene, left)


def begin_by_hand(scene: Scene, state: str) -> None:
    """Bring a replacement of master02 by master04 to where somebody stopped."""
    lab = scene.lab
    lab["master02"].power_cut()
    time.sleep(6)  # etcd adds nothing while it still tries the dead one
    dead = list_members(lab, "master01")["master02"]["ID"]
    etcdctl(lab, "member", "remove", f"{dead:x}", on="master01")
    url = f"https://{lab['master04'].address}:2380"
    if state == "removed":
        return
    learner = ["--learner"] if "learner" in state else []
    etcdctl(lab, "member", "add", "master04", *learner, f"--peer-urls={url}", on="master01")
    if state == "half-made learner":
        # Wrong flags: etcd ends, and leaves a directory without a log.
        lab["master04"].run(
            'mkdir -p /etc/etcd && echo \'ETCD_NAME="master04"\n'
            'ETCD_INITIAL_CLUSTER_TOKEN="etcd-cluster"\' > /etc/etcd/etcd.conf && '
            "mkdir -p /var/lib/etcd/default.etcd/member/snap && "
            "touch /var/lib/etcd/default.etcd/member/snap/db"
        ).check()


@chaos
@pytest.mark.parametrize(
    "state", ["removed", "unstarted voter", "unstarted learner", "half-made learner"]
)
def test_what_somebody_began_by_hand_is_ended(scene: Scene, prefect: Prefect, state: str) -> None:
    """Removed and none added; added and never started; started with wrong flags."""
    begin_by_hand(scene, state)
    ended = replace(prefect, scene, "master02", "master04")
    assert ended.status == 0, ended.output
    check_cluster(prefect, scene, ["master01", "master04", "master03"])


@chaos
def test_a_stranger_in_the_list_is_named_and_can_be_removed_by_its_id(
    scene: Scene, prefect: Prefect
) -> None:
    """A member that somebody added by hand stops the runbooks until it is dealt with."""
    lab = scene.lab
    url = "https://10.99.0.1:2380"
    time.sleep(6)  # etcd adds nothing while its members have just connected
    etcdctl(lab, "member", "add", "x", "--learner", f"--peer-urls={url}", on="master01")
    words = ("--member", "master02", "--replacement", scene.address("master04"), "--planned")
    refused = run_runbook(prefect, "replace_member", scene.inventory, *words)
    assert refused.status == 2
    assert url in refused.output
    stranger = f"{list_members(lab, 'master01')[url]['ID']:x}"
    assert stranger in refused.output
    ended = run_runbook(prefect, "remove_member", scene.inventory, "--member", stranger)
    assert ended.status == 0, ended.output
    check_cluster(prefect, scene, ["master01", "master02", "master03"])


@chaos
def test_without_consent_the_inventory_is_shown_and_left(scene: Scene, prefect: Prefect) -> None:
    """The diff is in the plan; the file is as it was; the next runbook says what is missing."""
    before = scene.inventory.read_text()
    scene.lab["master03"].power_cut()
    words = ("--member", "master03", "--replacement", scene.address("master04"))
    ended = run_runbook(prefect, "replace_member", scene.inventory, *words)
    assert ended.status == 0, ended.output
    assert f"+  - {{name: master04, address: {scene.lab['master04'].address}}}" in ended.output
    assert scene.inventory.read_text() == before
    checked = run_runbook(prefect, "check_health", scene.inventory)
    assert checked.status == 1
    assert "which the inventory does not have" in checked.output


@chaos
def test_the_record_names_the_members_before_and_how_long_it_took(
    scene: Scene, prefect: Prefect
) -> None:
    """The report has both lists, the snapshot was verified before the member list changed."""
    scene.lab["master03"].power_cut()
    ended = replace(prefect, scene, "master03", "master04", "--reason", "power supply")
    assert ended.status == 0, ended.output
    steps = [
        r.details["step"]
        for r in read_journal(prefect.journals[-1])
        if r.event is Event.STEP_FINISHED
    ]
    assert steps.index("save a snapshot") < steps.index("remove a member")
    found = prefect.ask("/artifacts/filter", {"sort": "CREATED_DESC", "limit": 20})
    report = next(a for a in found if str(a["key"]).endswith("-report") and "replace" in a["key"])
    text = json.dumps(report["data"])
    for said in (
        "members before",
        "members after",
        "time to full health",
        "power supply",
        "master04",
    ):
        assert said in text


@chaos
def test_leadership_is_handed_to_whom_it_is_wanted(scene: Scene, prefect: Prefect) -> None:
    """By name, and by nobody's name; to the leader itself nothing is done."""
    leader = find_leader(scene.lab, scene.members)
    target = next(host for host in scene.members if host != leader)
    ended = run_runbook(prefect, "move_leader", scene.inventory, "--to", target)
    assert ended.status == 0, ended.output
    assert find_leader(scene.lab, scene.members) == target
    again = run_runbook(prefect, "move_leader", scene.inventory, "--to", target)
    assert "nothing to do" in again.output
    assert run_runbook(prefect, "move_leader", scene.inventory).status == 0
    assert find_leader(scene.lab, scene.members) != target
    scene.lab[target].run("systemctl stop etcd").check()
    refused = run_runbook(prefect, "move_leader", scene.inventory, "--to", target)
    assert refused.status == 2
    assert "is not healthy and cannot lead" in refused.output


def use_flags(host: Host) -> str:
    """Give a host's etcd its settings as flags in a drop-in, and let it run so; get the text."""
    found = parse_configuration((host.root / "etc/etcd/etcd.conf").read_text())
    found["ETCD_LISTEN_PEER_URLS"] = f"https://{host.address}:2380"
    found["ETCD_LISTEN_CLIENT_URLS"] = f"https://{host.address}:2379,https://127.0.0.1:2379"
    words = [f"--{flag_name(name)}={value}" for name, value in found.items()]
    command = " \\\n  ".join(["ExecStart=/usr/local/bin/etcd", *words])
    text = f"[Service]\nEnvironmentFile=\nExecStart=\n{command}\n"
    host.run(["mkdir", "-p", str(Path(FLAGS).parent)]).check()
    install(host, FLAGS, text)
    host.run("systemctl daemon-reload; systemctl restart etcd").check()
    return text


@pytest.mark.chaos
def test_a_member_moves_to_another_address_with_its_data(
    scene: Scene, prefect: Prefect, tmp_path: Path
) -> None:
    """Its id stays, no write is lost; certificates, list, settings and inventory say the new.

    The inventory's first host, the leader: it is asked at both addresses, under one name. Its
    settings are flags of a drop-in, and it hears the loopback, too: that stays.
    """
    lab, leader = scene.lab, scene.members[0]
    flags = use_flags(lab[leader])
    if (old := find_leader(lab, scene.members)) != leader:
        entry = list_members(lab, leader)[leader]
        etcdctl(lab, "move-leader", f"{entry['ID']:x}", on=old)
    host = lab[leader]
    prefix, _, last = host.address.rpartition(".")
    address = f"{prefix}.{int(last) + 100}"
    before = list_members(lab, leader)[leader]["ID"]
    words = ("--member", leader, "--address", address, "--write-inventory")
    refused = run_runbook(prefect, "update_member", scene.inventory, *words)
    assert refused.status == 2
    assert "cannot be reached" in refused.output
    link = "$(ip -o address show scope global | awk '{print $2; exit}')"
    host.run(f"ip address add {address}/24 dev {link}").check()
    known = lab.known_hosts.read_text()
    added = [x.replace(host.address, address) for x in known.splitlines() if host.address in x]
    lab.known_hosts.write_text(known + "\n".join(added) + "\n")
    with Writers(lab, tmp_path, files=scene.clients) as writers:
        began = time.monotonic()
        ended = run_runbook(prefect, "update_member", scene.inventory, *words)
        assert ended.status == 0, ended.output
    other = next(name for name in scene.members if name != leader)
    report = writers.check(on=other)
    tell("another address", prefect, began, report)
    assert report.lost == ()
    entry = list_members(lab, other)[leader]
    assert entry["ID"] == before
    assert entry["peerURLs"] == [f"https://{address}:2380"]
    assert entry["clientURLs"] == [f"https://{address}:2379"]
    assert address in scene.inventory.read_text()
    for name in scene.members[1:]:
        conf = (lab[name].root / "etc/etcd/etcd.conf").read_text()
        assert f"{leader}=https://{address}:2380" in conf
    moved = host.run(["cat", FLAGS]).check().stdout
    assert moved == flags.replace(f"//{host.address}:", f"//{address}:")
    assert f"--listen-client-urls=https://{address}:2379,https://127.0.0.1:2379" in moved
    assert run_runbook(prefect, "check_health", scene.inventory).status == 0
    again = run_runbook(prefect, "update_member", scene.inventory, *words)
    assert again.status == 0, again.output
    assert "nothing to do" in again.output


@chaos
def test_the_old_host_returns_while_it_is_being_replaced(
    scene: Scene, prefect: Prefect, tmp_path: Path
) -> None:
    """It boots with its old data and an enabled etcd right after it was removed: it stays out."""
    old = scene.lab["master01"]
    with Writers(scene.lab, tmp_path, files=scene.clients) as writers:
        old.power_cut()
        words = ("--member", "master01", "--replacement", scene.address("master04"))
        process = start_runbook(
            prefect, "replace_member", scene.inventory, *words, "--write-inventory"
        )
        deadline = time.monotonic() + HANG_SECONDS
        while "master01" in list_members(scene.lab, "master02"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        old.start()
        ended = finish(process)
        assert ended.status == 0, ended.output
    assert writers.check(on="master04").lost == ()
    check_cluster(prefect, scene, ["master04", "master02", "master03"])
    assert "has been permanently removed" in old.run("journalctl -u etcd").stdout


@chaos
def test_the_old_host_returns_before_it_was_removed(scene: Scene, prefect: Prefect) -> None:
    """The gate sees that the member is healthy again, and the plan is dropped as stale."""
    old = scene.lab["master03"]
    old.run("systemctl stop etcd; systemctl mask --runtime etcd").check()
    slow = "mv /usr/bin/openssl /usr/bin/openssl.real && printf '#!/bin/sh\nsleep 3\nexec "
    slow += '/usr/bin/openssl.real "$@"\n\' > /usr/bin/openssl && chmod 755 /usr/bin/openssl'
    scene.lab["master04"].run(slow).check()
    old.run("mv /usr/bin/sudo /usr/bin/sudo.away").check()  # so that it is not retired first
    words = ("--member", "master03", "--replacement", scene.address("master04"))
    process = start_runbook(prefect, "replace_member", scene.inventory, *words)
    conf = scene.lab["master04"].root / "etc/etcd/ssl"
    deadline = time.monotonic() + HANG_SECONDS
    while not conf.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    old.run("systemctl unmask --runtime etcd; systemctl start etcd").check()
    ended = finish(process)
    assert ended.status == 1, ended.output
    assert "master03 is back and healthy" in ended.output
    assert set(list_members(scene.lab, "master01")) == {"master01", "master02", "master03"}


@chaos
def test_a_dead_host_that_answers_late_is_locked_before_anything_of_it_is_touched(
    scene: Scene, prefect: Prefect
) -> None:
    """Its cable is plugged in while it is waited for: it is retired before it is removed."""
    late = scene.lab["master03"]
    late.run("systemctl stop etcd").check()
    # The network's own answer "no such host" would come before the cable is plugged in.
    own = "$(ip -o address show scope global | awk '{print $2; exit}')"
    mac = late.run(f"cat /sys/class/net/{own}/address").check().stdout.strip()
    link = late.lab.bridge
    neighbour = ["ip", "neighbour", "replace", late.address, "lladdr", mac, "dev", link]
    subprocess.run([*neighbour, "nud", "permanent"], check=True)
    late.cut_cable()
    known = len(prefect.journals)
    words = ("--member", "master03", "--replacement", scene.address("master04"))
    process = start_runbook(prefect, "replace_member", scene.inventory, *words, "--write-inventory")
    deadline = time.monotonic() + HANG_SECONDS
    while len(prefect.journals) == known or "lock the cluster on master03" not in (
        prefect.journals[-1].read_text()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(1.5)  # TCP asks after 0, 1 and 3 s
    late.plug_cable()
    ended = finish(process)
    lines = [
        (r.event, r.details.get("step"))
        for r in read_journal(prefect.journals[-1])
        if r.event in (Event.STEP_STARTED, Event.STEP_FINISHED)
    ]
    locked = lines.index((Event.STEP_FINISHED, "lock the cluster on master03"))
    assert ended.status == 0, ended.output
    retired = lines.index((Event.STEP_FINISHED, "retire master03"))
    removing = lines.index((Event.STEP_STARTED, "remove a member"))
    assert locked < retired < removing
    assert late.run("systemctl is-enabled etcd").stdout.strip() == "disabled"
    assert not (late.root / "var/lib/etcd/default.etcd").exists()
    check_cluster(prefect, scene, ["master01", "master02", "master04"])


@chaos
def test_two_runners_at_once(scene: Scene, prefect: Prefect) -> None:
    """One does it; the other is refused and names it, or comes too late and finds it done."""
    scene.lab["master02"].power_cut()
    words = ("--member", "master02", "--replacement", scene.address("master04"))
    both = [
        start_runbook(prefect, "replace_member", scene.inventory, *words, "--write-inventory")
        for _ in range(2)
    ]
    ended = sorted((finish(process) for process in both), key=lambda e: e.status)
    assert [one.status for one in ended] == [0, 2], [one.output for one in ended]
    assert "is being worked on by run" in ended[1].output
    check_cluster(prefect, scene, ["master01", "master04", "master03"])


@chaos
def test_the_cable_between_runner_and_a_host_is_cut_in_the_middle(
    scene: Scene, prefect: Prefect
) -> None:
    """The run stops and says so; the next one ends what was begun."""
    scene.lab["master02"].power_cut()
    words = ("--member", "master02", "--replacement", scene.address("master04"))
    process = start_runbook(prefect, "replace_member", scene.inventory, *words, "--write-inventory")
    deadline = time.monotonic() + HANG_SECONDS
    url = f"https://{scene.lab['master04'].address}:2380"
    while not {url, "master04"} & set(list_members(scene.lab, "master01")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    scene.lab["master04"].cut_cable()
    first = finish(process)
    assert first.status == 1, first.output
    scene.lab["master04"].plug_cable()
    time.sleep(1)
    ended = replace(prefect, scene, "master02", "master04")
    assert ended.status == 0, ended.output
    check_cluster(prefect, scene, ["master01", "master04", "master03"])
