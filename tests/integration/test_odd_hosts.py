"""Hosts as they are: disks of their own, links, accounts, other etcds and firewalls.

What can be worked with is worked with; what cannot is refused before anything is changed, by one
look at each host that names all of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.integration.members import list_members
from tests.integration.odd import OddScene, write_inventory
from tests.integration.runbooks import Prefect, finish, start_runbook
from tests.lab.etcd_programs import get_programs
from tests.lab.selinux import find_mislabelled, label_files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.host import Host
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

DISK = "mkdir -p {0}; mount -t tmpfs none {0}; chmod 0755 {0}; mkdir -m 0700 {0}/lost+found; "
ACCOUNTS = {
    "master01": "groupadd --system stores; useradd --system -g stores -s /usr/sbin/nologin etcd",
    # A directory service: getent knows the account, /etc/passwd does not.
    "master02": """
mkdir -p /etc/userdb; cd /etc/userdb
printf '{"userName":"etcd","uid":995,"gid":1,"disposition":"system"}' > etcd.user
chmod 0644 etcd.user; ln -s etcd.user 995.user
getent passwd etcd; ! grep etcd /etc/passwd
""",
}
LINKS = """
mkdir -p /srv/ssl /srv/keys /srv/conf /opt/etcd/bin /etc/etcd
ln -s /srv/ssl /etc/etcd/ssl
ln -s /srv/conf/etcd.conf /etc/etcd/etcd.conf
ln -s /opt/etcd/bin/etcd /usr/local/bin/etcd
"""
LABELLED = [
    *("/opt/etcd/bin/etcd", "/usr/local/bin/etcdctl", "/srv/conf/etcd.conf", "/var/lib/etcd"),
    *("/etc/systemd/system/etcd.service", "/srv/ssl/ca.pem"),
    *(f"/srv/ssl/{role}{part}.pem" for role in ("server", "peer") for part in ("", "-key")),
]


# Refused, with nothing changed


def hold_ports(host: Host, slice_of: str = "system") -> Callable[[], object]:
    """Let another etcd, of a unit of its own, hold the clients' port."""
    programs = get_programs(host.lab.etcd).directory
    (host.root / "opt/events").mkdir()
    shutil.copy(programs / "etcd", host.root / "opt/events/etcd")
    words = (
        "--data-dir=/opt/events/data --listen-peer-urls=http://127.0.0.1:2383 "
        "--listen-client-urls=http://0.0.0.0:2379 --advertise-client-urls=http://127.0.0.1:2379 "
        "--initial-advertise-peer-urls=http://127.0.0.1:2383 "
        "--initial-cluster=default=http://127.0.0.1:2383"
    )
    host.run(
        f"systemd-run --unit=etcd-events.service --slice={slice_of} /opt/events/etcd {words}; "
        "until ss -Hltn 'sport = :2379' | grep -q .; do sleep 0.1; done"
    ).check()
    return lambda: host.run("systemctl stop etcd-events; rm -r /opt/events").check()


def hold_ports_in_a_pod(host: Host) -> Callable[[], object]:
    """Let one hold it in a control group such as a kubelet's containers have with systemd's driver.

    On real nodes it is refused by test_stacked.
    """
    return hold_ports(host, "kubepods-burstable-podd0c1f8e2.slice")


def reject(host: Host) -> Callable[[], object]:
    """Let a firewall reject, not drop, what comes in for the peers' port."""
    rule = "pref 10 iif eth0 ipproto tcp dport 2380 prohibit"
    host.run(f"ip rule add {rule}").check()
    return lambda: host.run(f"ip rule del {rule}").check()


def mounted(path: str, options: str = "defaults") -> Callable[[Host], Callable[[], object]]:
    """Mount a file system at a place."""

    def mount(host: Host) -> Callable[[], object]:
        host.run(f"mkdir -p {path}; mount -t tmpfs -o {options} none {path}").check()
        return lambda: host.run(f"umount {path}").check()

    return mount


def linked(path: str, real: str) -> Callable[[Host], Callable[[], object]]:
    """Let a place be a link to a directory."""

    def link(host: Host) -> Callable[[], object]:
        host.run(f"mkdir -p {real}; ln -s {real} {path}").check()
        return lambda: host.run(f"rm {path}; rmdir {real}").check()

    return link


FAULTS: dict[str, tuple[str, Callable[[Host], Callable[[], object]], str]] = {
    "noexec": (
        "master01",
        mounted("/usr/local/bin", "noexec"),
        "master01: no program can be started from /usr/local/bin",
    ),
    "programs-do-not-fit": (
        "master02",
        mounted("/usr/local/bin", "size=64m"),
        "master02: has only 64 MiB free for etcd's programs in /usr/local/bin",
    ),
    "read-only": (
        "master03",
        mounted("/etc/etcd", "ro"),
        "Read-only file system (file system /etc/etcd)",
    ),
    "log-is-a-mount-point": (
        "master01",
        mounted("/var/lib/etcd-wal"),
        "master01: /var/lib/etcd-wal is a mount point, and etcd replaces the directory of its log",
    ),
    "log-beside-others": (
        "master03",
        lambda _: lambda: None,
        "master03: /var/lib belongs to root, and etcd, as etcd, makes the directory of its log "
        "there (/var/lib/etcd-wal)",
    ),
    "data-in-a-home": (
        "master02",
        linked("/var/lib/etcd", "/home/operator/etcd"),
        "master02: /var/lib/etcd is a link to /home/operator/etcd, which its unit hides from etcd "
        "(ProtectHome=yes)",
    ),
    "another-etcd": (
        "master02",
        hold_ports,
        "master02: port 2379 is taken by etcd of etcd-events.service; it is not this inventory's",
    ),
    "a-kubeadm-pod": (
        "master01",
        hold_ports_in_a_pod,
        "master01: port 2379 is taken by etcd of a Kubernetes pod; it is not this inventory's",
    ),
    "rejected": ("master03", reject, "master01: cannot reach master03 at {master03} port 2380"),
}


@pytest.fixture(scope="module")
def bare(start_module_lab: StartLab) -> Lab:
    """Start hosts that no runbook changes."""
    return start_module_lab(hosts=3)


def test_all_that_forbids_a_start_is_named_at_once(
    bare: Lab, prefect: Prefect, tmp_path: Path
) -> None:
    """Each fault by its host; afterwards each host is as it was."""
    more = "paths: {wal_directory: /var/lib/etcd-wal}\n"
    scene = OddScene(
        bare, write_inventory(bare, tmp_path / "odd.yaml", list(bare.hosts), more), prefect
    )
    undo = [make(bare[name]) for name, make, _ in FAULTS.values()]
    look = "find /etc /usr/local /var -xdev -name '.etcd-runbooks*'"
    try:
        said = scene.run("bootstrap_cluster", status=2).stderr
        left = {name: host.run(look).stdout for name, host in bare.hosts.items()}
    finally:
        for undone in undo:
            undone()
    addresses = {name: host.address for name, host in bare.hosts.items()}
    missing = {
        name: sentence
        for name, (_, _, sentence) in FAULTS.items()
        if sentence.format(**addresses) not in said
    }
    assert not missing, said
    assert not any(left.values())


# Worked with


@pytest.fixture(scope="module")
def scene(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> OddScene:
    """Bootstrap three odd hosts; the fourth is as odd, and spare.

    Data and log are on disks of their own, the data directory is the disk's root; certificates,
    settings and program are behind links; accounts are there already; files have SELinux's labels.
    """
    lab = start_module_lab(hosts=4)
    for name, host in lab.hosts.items():
        host.run(DISK.format("/var/lib/etcd") + DISK.format("/wal") + LINKS).check()
        host.run(f"set -e; {ACCOUNTS.get(name, ':')}").check()
        label_files(host)
    more = "paths: {data_directory: /var/lib/etcd, wal_directory: /wal/etcd}\n"
    path = tmp_path_factory.mktemp("odd") / "odd.yaml"
    scene = OddScene(lab, write_inventory(lab, path, list(lab.hosts)[:3], more), prefect)
    scene.run("bootstrap_cluster")
    return scene


def test_what_is_behind_links_is_made_there(scene: OddScene) -> None:
    """And judged there: no key is readable by everybody, and a second run changes nothing."""
    for host in scene.lab.hosts.values():
        if host.name == "master04":
            continue
        shown = host.run(
            "readlink /etc/etcd/ssl /etc/etcd/etcd.conf /usr/local/bin/etcd; "
            "ls /srv/ssl/server-key.pem /srv/conf/etcd.conf; stat -c %a /opt/etcd/bin/etcd"
        ).check()
        assert shown.stdout.split()[:6] == [
            *("/srv/ssl", "/srv/conf/etcd.conf", "/opt/etcd/bin/etcd"),
            *("/srv/conf/etcd.conf", "/srv/ssl/server-key.pem", "755"),
        ]
        assert find_mislabelled(host, LABELLED) == []
    scene.run("check_certificates", named="--clusters")
    assert "nothing to do" in scene.run("bootstrap_cluster").stdout


def test_an_account_keeps_its_own_primary_group(scene: OddScene) -> None:
    """Also one that a directory service has; the unit runs by it."""
    groups = {"master01": "stores", "master02": "daemon", "master03": "etcd"}
    for name, group in groups.items():
        shown = scene.lab[name].run(
            "ps -o user=,group= -C etcd; stat -c '%U %G' /var/lib/etcd/member /wal/etcd; "
            "systemctl show etcd -p NRestarts"
        )
        assert shown.check().stdout.split() == [*("etcd", group) * 3, "NRestarts=0"]


def test_a_rotation_through_a_link_keeps_the_link(scene: OddScene) -> None:
    """Who reads the pair by its other name sees the new one."""
    host = scene.lab["master01"]
    host.run(
        "cd /srv/ssl; for f in server-key.pem server.pem; do mv $f /srv/keys/; "
        "ln -s ../keys/$f $f; done"
    ).check()
    look = (
        "openssl x509 -in /srv/keys/server.pem -noout -serial; readlink /srv/ssl/server-key.pem; "
        "stat -c %a /srv/keys/server-key.pem; openssl pkey -in /srv/keys/server-key.pem -pubout | "
        "sha256sum; openssl x509 -in /srv/keys/server.pem -noout -pubkey | sha256sum; "
        "ls -A /srv/ssl"
    )
    before = host.run(look).check().stdout.splitlines()
    scene.run("rotate_certificates", "--which", "all")
    after = host.run(look).check().stdout.splitlines()
    assert before[0] != after[0]
    assert after[1:3] == ["../keys/server-key.pem", before[2]]
    assert after[3] == after[4]
    assert not [name for name in after if name.endswith(".new")]
    own = [f"/srv/keys/{name}" for name in ("server.pem", "server-key.pem")]
    assert find_mislabelled(host, [*own, *(x for x in LABELLED if "/server" not in x)]) == []
    assert "nothing to do" in scene.run("rotate_certificates").stdout


def test_a_read_only_place_stops_a_rotation_before_it_begins(scene: OddScene) -> None:
    """Not after the pairs of other hosts were swapped."""
    host = scene.lab["master03"]
    host.run("mkdir -p /var/backups; mount -t tmpfs -o ro none /var/backups").check()
    serials = "cd /srv/ssl; sha256sum server.pem peer.pem client.pem ca.pem"
    before = [h.run(serials).stdout for h in scene.lab.hosts.values()]
    try:
        said = scene.run("rotate_certificates", "--which", "all", status=2).stderr
    finally:
        host.run("umount /var/backups").check()
    assert "master03: no file can be written for /var/backups/etcd-runbooks: Read-only" in said
    assert [h.run(serials).stdout for h in scene.lab.hosts.values()] == before


@pytest.mark.chaos
def test_a_run_that_stops_half_way_says_where_each_host_is(scene: OddScene) -> None:
    """A disk that becomes read-only between the look and the swap; the same command finishes."""
    host = scene.lab["master03"]
    host.run(
        "mount --bind /srv/ssl /srv/ssl; (until [ $(ls /srv/ssl/*.new | wc -l) -ge 6 ]; do "
        "sleep 0.02; done; sleep 0.2; "
        "mount -o remount,ro,bind /srv/ssl) > /dev/null 2>&1 &"
    ).check()
    try:
        stopped = scene.run("rotate_certificates", "--which", "all", status=1).stderr
    finally:
        host.run("umount -l /srv/ssl").check()
    done, _, rest = stopped.partition("; ended in the middle of: master03: ")
    settled, left = done.rpartition(", all of ")[2].split(", "), rest.partition("not done: ")[2]
    for name in ("master01", "master02"):  # in which order pairs are swapped is the leader's matter
        assert (name in settled) is not (f"{name}: " in left), stopped
    assert "Run it again" in stopped
    scene.run("check_health")
    scene.run("rotate_certificates", "--which", "all")
    assert not host.run("find /srv/ssl /srv/keys -name '*.new'").check().stdout
    scene.run("check_health")


@pytest.mark.chaos
def test_what_is_set_aside_stays_on_its_disk(scene: OddScene) -> None:
    """A planned replacement writes the inventory, too; one that died in the middle is finished."""
    lab, old = scene.lab, scene.lab["master02"]
    swapped = ("--member", "master02", "--replacement", scene.joining("master04"))
    words = (*swapped, "--planned", "--write-inventory")
    killer = ("-m", "tests.integration.killed_run", "step-started|retire master02")
    started = start_runbook(
        scene.prefect, "replace_member", scene.inventory, *words, launcher=killer
    )
    assert finish(started).status == -9
    assert "name: master04" not in scene.inventory.read_text()
    old.run(  # it died between two renames
        "systemctl stop etcd; cd /var/lib/etcd; mkdir etcd-runbooks-retired-1 other; "
        "mv member etcd-runbooks-retired-1"
    ).check()
    scene.run("replace_member", *words)
    assert "name: master04" in scene.inventory.read_text()
    shown = old.run("cd /var/lib/etcd; ls -A; ls -d etcd-runbooks-*/*; ls /wal").check().stdout
    assert {"lost+found", "etcd-runbooks-retired-1/member"} <= set(shown.split())
    assert not old.run("ls -d /var/lib/etcd/other /var/lib/etcd?* /wal?* /wal/etcd").stdout
    scene.run("check_health")
    # What lies there is in nobody's way.
    back = ("--member", "master04", "--replacement", scene.joining("master02"))
    scene.run("replace_member", *back, "--planned", "--write-inventory")
    scene.run("check_health")
    named = set(list_members(lab, "master02"))
    assert named == {"master01", "master02", "master03"}


@pytest.mark.chaos
def test_a_member_whose_log_is_lost_is_replaced_in_place(scene: OddScene) -> None:
    """Its data are set aside on their disk, and it joins again there."""
    host = scene.lab["master03"]
    host.run("systemctl stop etcd; rm -r /wal/etcd").check()
    scene.run("replace_member", "--member", "master03")
    scene.run("check_health")
    shown = host.run("ls -A /var/lib/etcd /wal; stat -c '%a %U' /var/lib/etcd").check().stdout
    assert "etcd-runbooks-retired-" in shown
    assert "700 etcd" in shown


@pytest.mark.chaos
def test_a_data_directory_behind_a_link_stays_there(scene: OddScene) -> None:
    """Set aside beside the directory that the link leads to; the link leads to an empty one."""
    host = scene.lab["master03"]
    host.run(
        "systemctl stop etcd; mkdir -p /srv/big; cp -a /var/lib/etcd /srv/big/etcd; "
        "umount /var/lib/etcd; rmdir /var/lib/etcd; ln -s /srv/big/etcd /var/lib/etcd; "
        "rm -r /srv/big/etcd/etcd-runbooks-*; systemctl start etcd"
    ).check()
    scene.run("check_health")
    host.run("systemctl stop etcd; rm -r /wal/etcd").check()
    scene.run("replace_member", "--member", "master03")
    scene.run("check_health")
    shown = host.run("readlink /var/lib/etcd; ls -d /srv/big/etcd.retired-*/member").check()
    assert shown.stdout.startswith("/srv/big/etcd\n")
    assert host.run("ls /srv/big/etcd").check().stdout.split()[-1:] == ["member"]
