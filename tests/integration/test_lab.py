"""The lab itself: what its hosts are, what its faults do, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from tasks.model.inventory_file import load_inventory
from tests.lab import cgroups
from tests.lab.errors import CommandTimedOut, HostError, LabError
from tests.lab.etcd_programs import INSTALLED, get_programs
from tests.lab.host import Host
from tests.lab.lab import EtcdSource, Lab
from tests.lab.preparedness import unavailable_reason
from tests.lab.state import STATE, list_records

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd]

ROOT = Path(__file__).parents[2]

SECONDS = 30.0
"""How long anything of one host may take here on a busy machine; most takes half a second."""


@pytest.fixture(scope="module")
def pair(start_module_lab: StartLab) -> Lab:
    """Two hosts, each with a data disk of 16 MB, for tests that leave them as they were."""
    return start_module_lab(hosts=2, etcd=INSTALLED, data_disk_mb=16)


def ssh(lab: Lab, host: Host, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the operator, with host keys verified; 255 when there is no login."""
    options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={lab.known_hosts}",
        "IdentitiesOnly=yes",
        "ConnectTimeout=1",
    ]
    words = ["-F", "none", "-i", str(lab.key), *(f"-o{option}" for option in options)]
    return subprocess.run(
        ["ssh", *words, f"operator@{host.address}", command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def command_line(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m tests.lab` in a process of its own, without standard input."""
    return subprocess.run(
        [sys.executable, "-m", "tests.lab", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )


def hears(peer: socket.socket) -> bool:
    """Tell whether the other side answers, or even closes, within 0.3 s."""
    peer.settimeout(0.3)
    try:
        peer.recv(4096)
    except TimeoutError:
        return False
    return True


def eventually(is_so: Callable[[], bool]) -> bool:
    """Wait up to SECONDS for something to be so."""
    deadline = time.monotonic() + SECONDS
    while not (so := is_so()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return so


def traces(lab: Lab) -> set[str]:
    """List what of a lab can be seen on this machine, without asking the lab's own code."""
    links = {entry.name for entry in Path("/sys/class/net").iterdir()}
    # What has been free for a moment may be somebody else's by now.
    if any(other.slot == lab.record.slot and other.name != lab.name for other in list_records()):
        links = set()
    marks = (lab.record.bridge, lab.record.cable_prefix)
    found = {f"link {name}" for name in links if name.startswith(marks)}
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found |= {f"mount {line}" for line in mounts if f"/{lab.name}/" in line}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            group = (process / "cgroup").read_text()
            words = (process / "cmdline").read_text()
        except OSError:
            continue
        if lab.name in group or lab.name in words:
            found.add(f"process {process.name} {words}")
    for top in ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/run"):
        for path in subprocess.run(
            ["find", top, "-xdev", "-name", f"*{lab.name}*"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split():
            found.add(f"path {path}")
    return found


def no_trace(lab: Lab) -> bool:
    """Tell whether a lab is gone; dead processes wait a moment for PID 1 to collect them."""
    gone = eventually(lambda: not traces(lab))
    assert traces(lab) == set()
    return gone


# What a host is


def test_hosts_have_identities_of_their_own(pair: Lab) -> None:
    """Hostname, machine-id and host key differ between hosts, and from this machine's."""
    machine_ids = {host.run("cat /etc/machine-id").stdout for host in pair.hosts.values()}
    machine_ids.add(Path("/etc/machine-id").read_text())
    assert len(machine_ids) == 3
    assert len({host.host_key for host in pair.hosts.values()}) == 2
    for name, host in pair.hosts.items():
        assert host.run("hostname").stdout.strip() == name


def test_systemd_has_booted_without_a_failed_unit(pair: Lab) -> None:
    """PID 1 is systemd, and it is satisfied."""
    host = pair["master01"]
    assert host.run("cat /proc/1/comm").stdout.strip() == "systemd"
    assert eventually(lambda: host.run("systemctl is-system-running").stdout == "running\n"), (
        host.run("systemctl list-units --failed; systemctl list-jobs").stdout
    )


def test_the_operator_logs_in_at_once_and_has_sudo(pair: Lab) -> None:
    """No D-Bus time-out (25 s) and no DNS time-out (10 s) is hidden in a login or in sudo."""
    began = time.monotonic()
    answer = ssh(pair, pair["master01"], "sudo -n id -un && id -un")
    assert (answer.returncode, answer.stdout) == (0, "root\noperator\n"), answer.stderr
    assert time.monotonic() - began < 9


def test_hosts_know_each_other_and_their_default_route(pair: Lab) -> None:
    """Names resolve to the lab's addresses, and the default route leads to the runner."""
    first, second = pair.hosts.values()
    reached = first.run(f"timeout 3 head -c4 </dev/tcp/{second.name}/22")
    assert reached.stdout == "SSH-", reached.stderr
    route = first.run("ip route get 192.0.2.1").stdout
    assert f"via {pair.gateway} dev eth0 src {first.address}" in route


def test_hosts_are_bare(pair: Lab) -> None:
    """Nothing of etcd is there but what a test installs."""
    left = "type etcd etcdctl etcdutl; getent passwd etcd; getent group etcd; systemctl cat etcd"
    assert pair["master01"].run(f"({left}) 2>/dev/null").stdout == ""
    files = "/var/lib/etcd /etc/etcd /etc/default/etcd /etc/init.d/etcd /usr/bin/etcd"
    assert pair["master01"].run(f"ls -d {files} 2>/dev/null").stdout == ""


def test_hosts_hide_this_machine(pair: Lab) -> None:
    """The checkout, other people's homes and this machine's caches are not on a host."""
    answer = pair["master01"].run("ls / /home /opt /srv /usr/local/bin /tmp /var/cache").stdout
    assert "operator" in answer
    for name in ("work", "lost+found", "etcd-runbooks-lab", "python3"):
        assert name not in answer.split()
    assert pair["master01"].run(["ls", str(ROOT)]).status != 0


def test_services_run_as_on_a_real_host(pair: Lab) -> None:
    """A system user, a Type=notify unit, daemon-reload, enable --now and its journal work."""
    script = """
    set -e
    useradd --system --no-create-home --shell /usr/sbin/nologin probe
    printf '%s\\n' '[Service]' Type=notify User=probe NotifyAccess=all LimitNOFILE=65536 \
        'ExecStart=sh -c "echo hello; systemd-notify --ready; exec sleep 600"' \
        '[Install]' WantedBy=multi-user.target >/etc/systemd/system/probe.service
    systemctl daemon-reload
    systemctl enable --now --quiet probe
    systemctl is-active probe
    journalctl --quiet --output=cat --unit=probe | grep hello
    systemctl disable --now --quiet probe
    """
    answer = pair["master02"].run(script)
    assert (answer.status, answer.stdout) == (0, "active\nhello\n"), answer.stderr


@pytest.mark.chaos
def test_an_installed_etcd_is_on_the_host(start_lab: StartLab) -> None:
    """With the source `installed` the version asked for is in /usr/local/bin, without a unit."""
    lab = start_lab(hosts=1, etcd=INSTALLED, etcd_source="installed")
    said = "type -p etcd etcdctl && etcd --version && etcdctl version"
    etcd, etcdctl, _, _, version, *_ = lab["master01"].run(said).check().stdout.split()
    assert (etcd, etcdctl) == ("/usr/local/bin/etcd", "/usr/local/bin/etcdctl")
    assert version == get_programs(INSTALLED).version
    assert lab["master01"].run("systemctl cat etcd").status != 0
    assert YAML(typ="safe").load(lab.inventory)["etcd"]["binaries"] == {"source": "installed"}


def test_the_inventory_names_what_is_there(pair: Lab) -> None:
    """Every path in it exists, secrets are the owner's only, and the sums are the programs'."""
    inventory = YAML(typ="safe").load(pair.inventory)
    assert inventory["name"] == pair.name
    assert inventory["hosts"] == [
        {"name": host.name, "address": host.address} for host in pair.hosts.values()
    ]
    programs = get_programs(INSTALLED)
    assert inventory["etcd"]["version"] == programs.version
    binaries = inventory["etcd"]["binaries"]
    assert binaries["sha256"] == programs.sha256
    assert {path.name for path in Path(binaries["path"]).iterdir()} == set(programs.sha256)
    secrets = [inventory["ssh"]["key"], inventory["authority"]["passphrase"]["file"]]
    assert [Path(path).stat().st_mode & 0o777 for path in secrets] == [0o600, 0o600]
    assert Path(inventory["authority"]["certificate"]).parent.is_dir()


@pytest.mark.chaos
@pytest.mark.parametrize("etcd_source", ["directory", "installed"])
def test_the_inventory_is_one_that_the_runbooks_load(
    start_lab: StartLab, etcd_source: EtcdSource
) -> None:
    """The model accepts the file, and takes from it the hosts that are up."""
    lab = start_lab(hosts=1, etcd=INSTALLED, etcd_source=etcd_source)
    inventory = load_inventory(str(lab.inventory))
    assert [host.address for host in inventory.hosts] == [lab["master01"].address]
    assert inventory.etcd.binaries.source == etcd_source
    assert inventory.ssh.key == lab.key


def test_a_command_that_does_not_end_is_killed(pair: Lab) -> None:
    """`run` keeps its time limit, and what it started in the host ends too."""
    with pytest.raises(CommandTimedOut, match=r"master01: .* did not end within 0\.2 s"):
        pair["master01"].run("sleep 4321", timeout=0.2)
    ended = "! pgrep --full '^sleep 4321'"
    assert eventually(lambda: pair["master01"].run(ended).status == 0)


# What a fault does


def test_a_power_cut_is_silent_and_the_host_starts_again(start_lab: StartLab) -> None:
    """Peers hear nothing; after the start, files and enabled services are back, /run is not."""
    host = start_lab(hosts=1, etcd=INSTALLED)["master01"]
    host.run(
        "echo kept >/var/lib/kept; touch /run/lost; printf '[Service]\nExecStart=sleep 600\n"
        "[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/probe.service;"
        "systemctl enable --quiet --now probe"
    ).check()
    with socket.create_connection((host.address, 22), SECONDS) as peer:
        assert peer.recv(4096).startswith(b"SSH-")
        host.power_cut()
        assert not host.is_running
        assert not hears(peer)
    with pytest.raises(HostError, match="is off: start it first"):
        host.run("true")
    host.start()
    assert host.run("cat /var/lib/kept; ls /run/lost").stdout == "kept\n"
    assert eventually(lambda: host.run("systemctl is-active probe").status == 0)


@pytest.mark.chaos
def test_a_stop_lets_services_end_in_order(start_lab: StartLab) -> None:
    """ExecStop has run before the host is off."""
    host = start_lab(hosts=1, etcd=INSTALLED)["master01"]
    host.run(
        "systemd-run --unit=probe --property='ExecStop=touch /var/lib/stopped' sleep 600"
    ).check()
    host.stop()
    assert not host.is_running
    assert (host.root / "var/lib/stopped").exists()


@pytest.mark.chaos
def test_a_host_comes_back_from_a_reboot(start_lab: StartLab) -> None:
    """`systemctl reboot` over SSH boots it again, as on a real machine."""
    lab = start_lab(hosts=1, etcd=INSTALLED)
    host = lab["master01"]
    host.run("touch /run/before").check()
    ssh(lab, host, "sudo -n systemctl reboot")
    assert eventually(lambda: ssh(lab, host, "! ls /run/before").returncode == 0)


def test_a_cut_cable_isolates_a_running_host(pair: Lab) -> None:
    """Nobody reaches it, it runs on, and plugging the cable in heals it."""
    host = pair["master02"]
    host.cut_cable()
    try:
        assert ssh(pair, host, "true").returncode == 255
        assert host.run("cat /sys/class/net/eth0/carrier").stdout == "0\n"
        host.power_cut()
        host.start()
        assert ssh(pair, host, "true").returncode == 255
    finally:
        host.plug_cable()
    assert eventually(lambda: ssh(pair, host, "true").returncode == 0)


def test_a_frozen_unit_does_nothing_until_it_is_thawed(pair: Lab) -> None:
    """Its processes stand still while systemd takes it for active."""
    host = pair["master01"]
    host.run("systemd-run --unit=ticks sh -c 'while :; do echo >>/run/ticks; sleep 0.01; done'")

    def ticks() -> int:
        return int(host.run("wc -l </run/ticks").stdout or 0)

    assert eventually(lambda: ticks() > 0)
    host.freeze("ticks")
    before = ticks()
    time.sleep(0.1)
    assert ticks() == before
    assert host.run("systemctl is-active ticks").stdout == "active\n"
    host.thaw("ticks")
    assert eventually(lambda: ticks() > before)
    host.run("systemctl stop ticks").check()


def test_a_full_disk_takes_no_more_bytes(pair: Lab) -> None:
    """Only /var/lib is full, on that host only."""
    first, second = pair.hosts.values()
    first.fill_disk()
    try:
        refused = first.run("echo more >/var/lib/more")
        assert "No space left on device" in refused.stderr
        first.run("echo more >/home/operator/more").check()
        second.run("echo more >/var/lib/more").check()
    finally:
        first.free_disk()
    first.run("echo more >/var/lib/more && rm /var/lib/more").check()


@pytest.mark.chaos
def test_a_disk_that_is_not_its_own_is_not_filled(start_lab: StartLab) -> None:
    """Without a data disk the fault is refused, with what to do."""
    lab = start_lab(hosts=1, etcd=INSTALLED)
    with pytest.raises(LabError, match="start the lab with data_disk_mb"):
        lab["master01"].fill_disk()


def test_a_skewed_clock_shows_on_one_host(pair: Lab) -> None:
    """`date` and bash's clock differ by what was asked for, and are right again with 0."""
    first, second = pair.hosts.values()

    def lead(host: Host) -> int:
        seen = ssh(pair, host, "date +%s; echo ${EPOCHREALTIME%.*}").stdout.split()
        leads = {round((int(clock) - time.time()) / 10) * 10 for clock in seen}
        assert len(leads) == 1
        return leads.pop()

    first.skew_clock(-3600)
    assert (lead(first), lead(second)) == (-3600, 0)
    first.skew_clock(0)
    assert lead(first) == 0


def test_a_blocked_port_drops_what_others_send(pair: Lab) -> None:
    """New and established connections from elsewhere hang; the host itself still gets through."""
    first, second = pair.hosts.values()
    with socket.create_connection((first.address, 22), SECONDS) as peer:
        assert peer.recv(4096).startswith(b"SSH-")
        first.block_port(22)
        try:
            assert ssh(pair, first, "true").returncode == 255
            peer.sendall(b"SSH-2.0-lab\r\n")
            assert not hears(peer)
            assert first.run(f"head -c4 </dev/tcp/{first.address}/22").stdout == "SSH-"
            assert ssh(pair, second, "true").returncode == 0
        finally:
            first.unblock_port(22)
    assert ssh(pair, first, "true").returncode == 0


def test_revoked_sudo_is_refused_until_it_is_restored(pair: Lab) -> None:
    """`sudo -n` fails at once; the login itself still works."""
    host = pair["master01"]
    host.revoke_sudo()
    try:
        refused = ssh(pair, host, "sudo -n true")
        assert refused.returncode == 1
        assert "a password is required" in refused.stderr
    finally:
        host.restore_sudo()
    assert ssh(pair, host, "sudo -n true").returncode == 0


@pytest.mark.chaos
def test_a_reinstalled_host_is_a_stranger_until_its_key_is_known(start_lab: StartLab) -> None:
    """Its disk is bare, and its new key is refused unless known_hosts was told."""
    lab = start_lab(hosts=2, etcd=INSTALLED)
    host = lab["master02"]
    key, machine_id = host.host_key, host.run("cat /etc/machine-id").stdout
    host.run("touch /var/lib/old").check()
    host.reinstall(trusted=False)
    assert "Host key verification failed" in ssh(lab, host, "true").stderr
    host.reinstall()
    assert host.host_key != key
    assert host.run("cat /etc/machine-id").stdout != machine_id
    answer = ssh(lab, host, "ls /var/lib/old; getent hosts master01")
    assert answer.stdout.split() == [lab["master01"].address, "master01"]


@pytest.mark.chaos
def test_a_host_can_be_added_to_a_running_lab(start_lab: StartLab) -> None:
    """The others know its name, the operator its key, and the inventory both."""
    lab = start_lab(hosts=1, etcd=INSTALLED)
    added = lab.add_host()
    assert added.name == "master02"
    assert ssh(lab, added, "true").returncode == 0
    assert ssh(lab, lab["master01"], "getent hosts master02").returncode == 0
    names = [host["name"] for host in YAML(typ="safe").load(lab.inventory)["hosts"]]
    assert names == ["master01", "master02"]


# What stays, and what does not


@pytest.mark.chaos
def test_two_labs_exist_side_by_side(start_lab: StartLab) -> None:
    """Same host names, other bridges and subnets; the end of one leaves the other alone."""
    one, two = start_lab(hosts=1, etcd=INSTALLED), start_lab(hosts=1, etcd=INSTALLED)
    assert not one.record.network.overlaps(two.record.network)
    for lab in (one, two):
        assert ssh(lab, lab["master01"], "hostname").stdout == "master01\n"
    one.down()
    assert ssh(two, two["master01"], "hostname").stdout == "master01\n"


def test_a_name_or_subnet_that_is_taken_is_refused(pair: Lab) -> None:
    """Nothing of the lab that has it is touched."""
    with pytest.raises(LabError, match=f"a lab named {pair.name} is up"):
        Lab.start(pair.name, etcd=INSTALLED)
    with pytest.raises(LabError, match="overlaps"):
        Lab.start(etcd=INSTALLED, subnet=pair.record.subnet)
    assert ssh(pair, pair["master01"], "true").returncode == 0


def test_nothing_is_left_behind(start_lab: StartLab) -> None:
    """Links, mounts, processes, control groups and files are gone, off or cut or full or not."""
    lab = start_lab(hosts=3, etcd=INSTALLED, data_disk_mb=16)
    kinds = {trace.split()[0] for trace in traces(lab)}
    assert kinds == {"link", "mount", "process", "path"}
    lab["master01"].power_cut()
    lab["master02"].cut_cable()
    lab["master03"].fill_disk()
    lab.down()
    assert no_trace(lab)
    lab.down()


@pytest.mark.chaos
def test_the_end_of_a_lab_that_is_gone_spares_the_one_in_its_place(start_lab: StartLab) -> None:
    """A second `down`, as fixtures do it, touches no later lab of the same name and slot."""
    first = start_lab(hosts=1, etcd=INSTALLED)
    first.down()
    second = start_lab(first.name, hosts=1, etcd=INSTALLED)
    first.down()
    assert ssh(second, second["master01"], "true").returncode == 0


@pytest.mark.chaos
def test_a_busy_mount_does_not_keep_a_lab_alive(start_lab: StartLab) -> None:
    """Somebody's open file on a host's disk is detached, not waited for."""
    lab = start_lab(hosts=1, etcd=INSTALLED)
    with (lab["master01"].root / "etc/hostname").open():
        lab.down()
        assert no_trace(lab)


def test_a_failed_start_leaves_nothing(
    start_lab: StartLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When one host does not boot, the error shows its console and all hosts are gone."""
    failed: list[Lab] = []
    boot = Host.start

    def fail(host: Host, timeout: float = 60.0) -> None:
        boot(host, timeout)
        if host.name == "master02":
            failed.append(Lab.get(host.lab.name))
            raise host.error("does not answer on port 22")

    monkeypatch.setattr(Host, "start", fail)
    with pytest.raises(HostError, match=r"console\.log") as caught:
        start_lab(hosts=2, etcd=INSTALLED)
    assert "master02 (10." in str(caught.value)
    assert no_trace(failed[0])


def test_a_lab_whose_owner_was_killed_is_removed_by_the_next_command(start_lab: StartLab) -> None:
    """A kill -9 of pytest leaves hosts running only until somebody looks."""
    bystander = start_lab(hosts=1, etcd=INSTALLED)
    program = (
        "from tests.lab.lab import Lab\n"
        f"print(Lab.start(hosts=2, etcd={INSTALLED!r}).name, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as owner:
        assert owner.stdout is not None
        lab = Lab.get(owner.stdout.readline().strip())
        assert lab["master01"].is_running
        os.kill(owner.pid, signal.SIGKILL)
    listed = command_line("list").stdout
    # Another session may have looked first, and then it was the one to say "removed".
    assert f"{lab.name}  " not in listed
    assert no_trace(lab)
    assert f"{bystander.name}  {bystander.record.subnet}" in listed
    assert ssh(bystander, bystander["master01"], "true").returncode == 0


def test_the_command_line_keeps_a_lab_until_down(tmp_path: Path) -> None:
    """`up` returns with hosts running, each command finds them, `down` removes all."""
    if (reason := unavailable_reason()) is not None:
        pytest.skip(reason)
    name, inventory = f"cli-{os.getpid()}", tmp_path / "cli.yaml"
    options = ["--name", name, "--etcd", INSTALLED, "--inventory", str(inventory)]
    started = command_line("up", "1", *options)
    try:
        assert started.returncode == 0, started.stderr
        assert YAML(typ="safe").load(inventory)["name"] == name
        lab, host = Lab.get(name), f"{name}/master01"
        assert ssh(lab, lab["master01"], "true").returncode == 0
        asked = command_line("exec", host, "--", "sh", "-c", "hostname; exit 3")
        assert (asked.returncode, asked.stdout) == (3, "master01\n")
        assert command_line("power-cut", host).returncode == 0
        assert "master01  10." in (listed := command_line("list").stdout)
        assert "off" in listed
        assert command_line("start", host).returncode == 0
        assert command_line("cut-cable", host).returncode == 0
        assert "on, cable cut" in command_line("list").stdout
        assert command_line("plug-cable", host).returncode == 0
        unknown = command_line("start", f"{name}/master09")
        assert (unknown.returncode, unknown.stderr) == (
            1,
            f"lab: {name} has no host 'master09', but master01\n",
        )
    finally:
        ended = command_line("down", "--name", name)
    assert ended.returncode == 0, ended.stderr
    assert no_trace(lab)
    assert not inventory.exists()


@pytest.mark.chaos
def test_somebody_elses_inventory_is_not_overwritten(start_lab: StartLab, tmp_path: Path) -> None:
    """A file that no lab wrote is left alone, and the lab does not start."""
    inventory = tmp_path / "production.yaml"
    inventory.write_text("name: production\n")
    with pytest.raises(LabError, match="left alone"):
        start_lab(hosts=1, etcd=INSTALLED, inventory=inventory)
    assert inventory.read_text() == "name: production\n"


# What it needs


@pytest.mark.parametrize(
    ("program", "package"), [("systemd-nspawn", "systemd-container"), ("sshd", "openssh-server")]
)
def test_what_is_missing_is_named_with_the_line_that_helps(
    program: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason says which Debian package to install."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(
        "tests.lab.preparedness.shutil.which", lambda name, path: None if name == program else path
    )
    assert unavailable_reason() == f"the lab needs Debian packages: apt-get install -y {package}"


@pytest.mark.parametrize("version", ["3.5", "latest", "../../etc"])
def test_what_is_no_version_is_refused(version: str) -> None:
    """Nothing is looked up for it."""
    with pytest.raises(LabError, match="is no version of etcd"):
        get_programs(version)


def test_processes_are_found_by_their_control_group(pair: Lab) -> None:
    """A lab's groups hold every process of its hosts and never this one."""
    processes = cgroups.list_processes(pair.record.cgroup())
    assert os.getpid() not in processes
    assert len(processes) >= 2 * len(["nspawn", "systemd", "journald", "dbus", "sshd"])
    assert STATE in pair.directory.parents
