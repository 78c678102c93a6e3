"""What bootstrap_cluster refuses on real hosts, each fault by its name.

Every refusal ends with status 2, says where and what to do, and leaves every host and the
authority's directory on the runner as they were. The lab stays bare: nothing here bootstraps it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from tasks.model.certificates import AuthorityPolicy
from tasks.pki.authority import create_authority
from tests.integration.runbooks import Ended, Prefect, etcdctl, run_runbook, wait_until
from tests.lab.commands import Completed
from tests.lab.etcd_programs import INSTALLED, get_programs

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.host import Host
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd]

PASSPHRASE = "the right passphrase of this test"
WATCHED = ("etc", "usr/local", "var/lib", "var/backups")
DATA = "/var/lib/etcd/default.etcd"

Content = dict[str, Any]


@pytest.fixture(scope="module")
def bare(start_module_lab: StartLab) -> Lab:
    """Start three hosts that have etcd's programs and stay bare."""
    return start_module_lab(hosts=3, etcd=INSTALLED, etcd_source="installed")


def entries(host: Host, *, ignored: str | None = None) -> set[str]:
    """List all that a runbook could change, seen from this machine: also when the host is off.

    A file with size, mode, owner and its time of change; a directory without its time, since
    preflight's disk probe makes and removes a file.
    """
    tops = [str(host.root / top) for top in WATCHED]
    kinds = ["(", "-type", "d", "-printf", r"%p %m %U %G\n", ")", "-o", "-printf"]
    found = subprocess.run(
        ["find", *tops, "-xdev", *kinds, r"%p %s %m %U %G %C@ %l\n"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    lines = {line.removeprefix(str(host.root)) for line in found.stdout.splitlines()}
    return {line for line in lines if ignored is None or not line.startswith(ignored)}


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Read mode and content of every file under a directory of the runner."""
    return {
        str(path): (path.stat().st_mode, path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True, slots=True)
class Bench:
    """A lab, and a directory for a test's own inventory and authority."""

    lab: Lab
    prefect: Prefect
    directory: Path

    @property
    def authority(self) -> Path:
        """Where this test's inventories keep the authority."""
        return self.directory / "authority"

    def write(self, change: Callable[[Content], object] = lambda _: None) -> Path:
        """Write the lab's inventory with this test's authority and a change to it."""
        content = YAML(typ="safe").load(self.lab.inventory)
        self.authority.mkdir(mode=0o700, exist_ok=True)
        passphrase = self.authority / "passphrase"
        if not passphrase.exists():
            passphrase.touch(mode=0o600)
            passphrase.write_text(f"{PASSPHRASE}\n")
        content["authority"] = {
            "certificate": str(self.authority / "ca.pem"),
            "key": str(self.authority / "ca-key.pem"),
            "passphrase": {"file": str(passphrase)},
        }
        content["ssh"]["connect_timeout_seconds"] = 5
        change(content)
        path = self.directory / "inventory.yaml"
        path.write_text(json.dumps(content))
        return path

    def run(self, inventory: Path, *options: str, ignored: str | None = None) -> Ended:
        """Run bootstrap_cluster, and see that nothing changed on any host or on the runner."""
        hosts = self.lab.hosts
        before = {name: entries(host, ignored=ignored) for name, host in hosts.items()}
        files = contents(self.authority)
        ended = run_runbook(self.prefect, "bootstrap_cluster", inventory, *options)
        for name, host in hosts.items():
            changes = entries(host, ignored=ignored) ^ before[name]
            assert not changes, (name, sorted(changes)[:20], ended.output)
        assert contents(self.authority) == files
        return ended

    def refused(self, inventory: Path, *said: str, ignored: str | None = None) -> str:
        """Run bootstrap_cluster, see it refused with all that is to be said, and return that."""
        ended = self.run(inventory, ignored=ignored)
        assert ended.status == 2, ended.output
        assert ended.stderr.startswith("refused: "), ended.output
        for words in said:
            assert words in ended.stderr
        assert "Traceback" not in ended.output
        assert "Unclosed" not in ended.output
        return ended.stderr


@pytest.fixture
def bench(bare: Lab, prefect: Prefect, tmp_path: Path) -> Bench:
    """Give a test the bare lab and a directory of its own."""
    return Bench(bare, prefect, tmp_path)


def listens(host: Host, port: int) -> bool:
    """Tell whether anything listens on a port of a host."""
    return bool(host.run(["ss", "-Hltn", f"sport = :{port}"]).check().stdout.strip())


@contextmanager
def unit(host: Host, *command: str, port: int) -> Iterator[None]:
    """Run a program on a host as a transient unit that listens on a port."""
    host.run(["systemd-run", "--quiet", "--unit=somebody-elses", *command]).check()
    try:
        wait_until(lambda: listens(host, port), f"nothing listens on {port}")
        yield
    finally:
        host.run(["systemctl", "stop", "somebody-elses"]).check()


@contextmanager
def squatter(host: Host, port: int) -> Iterator[None]:
    """Let a program that is not etcd listen on a port."""
    with unit(host, "--working-directory=/run", "python3", "-m", "http.server", str(port),
              port=port):  # fmt: skip
        yield


@contextmanager
def lone_etcd(host: Host, *options: str) -> Iterator[Callable[..., Completed]]:
    """Run an etcd that holds `its` data, and lend its etcdctl; all is gone with the block."""

    def etcdctl_there(*words: str) -> Completed:
        return host.run(["env", "ETCDCTL_API=3", "/usr/local/bin/etcdctl", *words])

    etcd = ["/usr/local/bin/etcd", "--name=lone", f"--data-dir={DATA}", *options]
    try:
        with unit(host, *etcd, port=2379):
            wait_until(lambda: etcdctl_there("put", "its", "data").status == 0, "no lone etcd")
            yield etcdctl_there
    finally:
        host.run("rm -rf /var/lib/etcd").check()


@contextmanager
def no_sudo(host: Host) -> Iterator[None]:
    """Revoke the operator's sudo."""
    host.revoke_sudo()
    try:
        yield
    finally:
        host.restore_sudo()


@contextmanager
def skewed(host: Host, seconds: int) -> Iterator[None]:
    """Let a host's clock be wrong."""
    host.skew_clock(seconds)
    try:
        yield
    finally:
        host.skew_clock(0)


@contextmanager
def blocked(host: Host, port: int) -> Iterator[None]:
    """Put a firewall before a port of a host."""
    host.block_port(port)
    try:
        yield
    finally:
        host.unblock_port(port)


def put_authority(bench: Bench, made: datetime, *, key_of: datetime | None = None) -> None:
    """Put an authority that was made at a time where the inventory says, its key encrypted."""
    bench.write()
    authority = create_authority(AuthorityPolicy(), made)
    other = create_authority(AuthorityPolicy(), key_of) if key_of else authority
    (bench.authority / "ca.pem").write_bytes(authority.certificate_pem)
    key = bench.authority / "ca-key.pem"
    key.touch(mode=0o600)
    key.write_bytes(other.seal_key(PASSPHRASE.encode()))


def known_hosts(bench: Bench, change: Callable[[str], str | None]) -> Path:
    """Write an inventory whose known_hosts has the second host's line changed, or left out."""
    address = bench.lab["master02"].address
    path = bench.directory / "known_hosts"
    lines = bench.lab.known_hosts.read_text().splitlines()
    changed = [change(line) if line.split()[0] == address else line for line in lines]
    path.write_text("".join(f"{line}\n" for line in changed if line))
    return bench.write(lambda c: c["ssh"].update(known_hosts=str(path)))


# The way to the hosts


def test_a_wrong_host_key(bench: Bench) -> None:
    """A host that shows another key than known_hosts has is not logged in to."""
    first = bench.lab["master01"].host_key
    inventory = known_hosts(bench, lambda line: f"{line.split()[0]} {first}")
    said = bench.refused(inventory, "master02:", "host key", "in place of the old one")
    assert "master01:" not in said


def test_a_host_missing_from_known_hosts(bench: Bench) -> None:
    """An unknown host is refused, not learnt."""
    inventory = known_hosts(bench, lambda _: None)
    known = (bench.directory / "known_hosts").read_bytes()
    bench.refused(inventory, "master02:", "host key", str(bench.directory / "known_hosts"))
    assert (bench.directory / "known_hosts").read_bytes() == known


@pytest.mark.chaos
def test_a_known_hosts_file_that_is_not_there(bench: Bench) -> None:
    """The file is named, and that fingerprints are compared on the console."""
    missing = bench.directory / "nowhere"
    inventory = bench.write(lambda c: c["ssh"].update(known_hosts=str(missing)))
    bench.refused(inventory, "ssh.known_hosts", str(missing), "console")


def test_no_sudo(bench: Bench) -> None:
    """The host, the account and the line for sudoers are named."""
    with no_sudo(bench.lab["master03"]):
        bench.refused(
            bench.write(), "master03:", "sudo wants a password", "NOPASSWD", "/etc/sudoers"
        )


def test_a_login_denied(bench: Bench) -> None:
    """A key that the host does not accept is told apart from a host that is away."""
    key = bench.directory / "other_key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=20
    )
    inventory = bench.write(lambda c: c["hosts"][1].update(ssh={"key": str(key)}))
    said = bench.refused(inventory, "master02:", "login", "denied", "authorized_keys")
    assert "master03" not in said


def test_an_unreachable_host(bench: Bench) -> None:
    """A host without power is named with its address; the others are examined all the same."""
    host = bench.lab["master02"]
    host.power_cut()
    try:
        with no_sudo(bench.lab["master01"]):
            bench.refused(
                bench.write(lambda c: c["ssh"].update(connect_timeout_seconds=2)),
                f"master02: no SSH connection to operator@{host.address} port 22",
                "master01: sudo wants a password of operator",
            )
    finally:
        host.start()


# The hosts


@pytest.mark.chaos
def test_a_closed_port(bench: Bench) -> None:
    """A peer port behind a firewall is named from both hosts that cannot reach it."""
    host = bench.lab["master02"]
    with blocked(host, 2380):
        way = f"cannot reach master02 at {host.address} port 2380"
        said = bench.refused(
            bench.write(), f"master01: {way}", f"master03: {way}", "open the port between the hosts"
        )
    assert "port 2379" not in said


def test_a_port_taken_by_another_program(bench: Bench) -> None:
    """The program is named, with the command that shows it."""
    with squatter(bench.lab["master01"], 2379):
        bench.refused(
            bench.write(), "master01:", "port 2379 is taken by python3", "stop it", "sport = :2379"
        )


def test_a_clock_an_hour_ahead(bench: Bench) -> None:
    """The host whose clock is wrong is named, against the others and the runner."""
    with skewed(bench.lab["master03"], 3600):
        said = bench.refused(bench.write(), "master03: the clock is", "NTP", "the runner's")
    assert re.search(r"master03: the clock is 3[56]\d\d", said)


@pytest.mark.chaos
def test_a_clock_an_hour_behind(bench: Bench) -> None:
    """A clock behind is the runner's to notice; it would make certificates not valid yet."""
    with skewed(bench.lab["master03"], -3600):
        said = bench.refused(bench.write(), "the runner's")
    assert re.search(r"master03: the clock is 3[56]\d\d", said)


def test_a_full_disk(start_lab: StartLab, prefect: Prefect, tmp_path: Path) -> None:
    """A disk without a free byte is named; so is one that is too small."""
    bench = Bench(
        start_lab(hosts=1, etcd=INSTALLED, etcd_source="installed", data_disk_mb=100),
        prefect,
        tmp_path,
    )
    host = bench.lab["master01"]
    said = bench.refused(bench.write(), "master01: has only", "256 MiB are needed")
    assert "took no test write" not in said
    host.fill_disk()
    bench.refused(bench.write(), f"master01: the disk of {DATA} took no test write", "full")


def test_another_version_than_the_one_that_is_installed(bench: Bench) -> None:
    """Both versions are named, for every host."""
    there = get_programs(INSTALLED).version
    said = bench.refused(bench.write(lambda c: c["etcd"].update(version="3.5.16")))
    for name in bench.lab.hosts:
        assert f"{name}: /usr/local/bin/etcd is version {there}" in said
    assert "the inventory wants 3.5.16" in said


def test_data_of_an_unknown_etcd(bench: Bench) -> None:
    """A write-ahead log without an etcd.conf is somebody's data."""
    host = bench.lab["master02"]
    host.run(f"mkdir -p {DATA}/member/wal && echo log > {DATA}/member/wal/0-0.wal").check()
    try:
        bench.refused(bench.write(), f"master02: {DATA} holds data", "move it away")
    finally:
        host.run("rm -r /var/lib/etcd").check()


def test_data_of_another_cluster(bench: Bench) -> None:
    """With an etcd.conf of another cluster, what differs is named."""
    host = bench.lab["master02"]
    settings = "ETCD_NAME=other\nETCD_INITIAL_CLUSTER_TOKEN=others-token\n"
    host.run(f"mkdir -p {DATA}/member/wal && echo log > {DATA}/member/wal/0-0.wal").check()
    host.run("mkdir -p /etc/etcd && cat > /etc/etcd/etcd.conf", text=settings).check()
    try:
        bench.refused(
            bench.write(), f"master02: {DATA} holds data of another cluster", "others-token",
            "left alone",
        )  # fmt: skip
    finally:
        host.run("rm -r /var/lib/etcd /etc/etcd").check()


def test_a_lone_etcd_that_somebody_started_by_hand(bench: Bench) -> None:
    """Its unit is named, not taken for ours; it keeps running with its data."""
    host = bench.lab["master01"]
    urls = (
        "--listen-client-urls=http://0.0.0.0:2379",
        f"--advertise-client-urls=http://{host.address}:2379",
        "--listen-peer-urls=http://0.0.0.0:2380",
    )
    with lone_etcd(host, *urls) as etcdctl_there:
        # etcd itself writes there; that its data lives on is asked below.
        taken = "port {} is taken by etcd of somebody-elses.service"
        bench.refused(bench.write(), taken.format(2379), taken.format(2380), ignored=DATA)
        found = etcdctl_there("get", "its", "--print-value-only").check()
        assert found.stdout.strip() == "data"


def test_a_lone_etcd_that_listens_to_itself_only(bench: Bench) -> None:
    """Its ports are taken, and closed to the other hosts."""
    host = bench.lab["master01"]
    with lone_etcd(host):
        way = f"cannot reach master01 at {host.address} port 2379 (refused)"
        bench.refused(bench.write(), f"master02: {way}", f"master03: {way}", ignored=DATA)


def test_leftovers_in_the_data_directory(bench: Bench) -> None:
    """Anything at all in the data directory is the operator's to move."""
    host = bench.lab["master03"]
    host.run(f"mkdir -p {DATA} && touch {DATA}/notes").check()
    try:
        bench.refused(bench.write(), f"master03: {DATA} holds data", "move it away")
    finally:
        host.run("rm -r /var/lib/etcd").check()


def test_every_finding_of_every_host_at_once(bench: Bench) -> None:
    """One run tells all there is to repair."""
    lab = bench.lab
    with ExitStack() as faults:
        faults.enter_context(no_sudo(lab["master01"]))
        faults.enter_context(squatter(lab["master02"], 2379))
        faults.enter_context(blocked(lab["master02"], 2380))
        faults.enter_context(skewed(lab["master03"], 3600))
        said = bench.refused(
            bench.write(),
            "master01: sudo wants a password of operator",
            "master02: port 2379 is taken by python3",
            "master03: the clock is",
            f"master03: cannot reach master02 at {lab['master02'].address} port 2380",
        )
    count = re.search(r"preflight found (\d+) reason", said)
    assert count is not None
    assert int(count.group(1)) == said.count("\n  - ")


# The authority


def test_a_wrong_passphrase(bench: Bench) -> None:
    """The authority that exists is not opened by it, and is not replaced."""
    put_authority(bench, datetime.now(UTC))
    (bench.authority / "passphrase").write_text("a wrong one\n")
    said = bench.refused(bench.write(), "passphrase", "authority.key")
    assert "a wrong one" not in said


def test_a_passphrase_file_that_others_can_read(bench: Bench) -> None:
    """The command that closes it is named."""
    inventory = bench.write()
    (bench.authority / "passphrase").chmod(0o644)
    said = bench.refused(inventory, "authority.passphrase.file", "read by others", "chmod 600")
    assert PASSPHRASE not in said


@pytest.mark.chaos
def test_a_passphrase_file_that_is_not_there(bench: Bench) -> None:
    """The field and the file are named."""
    inventory = bench.write()
    (bench.authority / "passphrase").unlink()
    bench.refused(inventory, "authority.passphrase.file", str(bench.authority / "passphrase"))


@pytest.mark.chaos
def test_a_passphrase_that_is_empty(bench: Bench) -> None:
    """No authority is ever made with an empty passphrase."""
    inventory = bench.write()
    (bench.authority / "passphrase").write_text("\n")
    bench.refused(inventory, "authority.passphrase", "empty")


@pytest.mark.chaos
def test_a_passphrase_variable_that_is_not_set(bench: Bench) -> None:
    """The field and the variable are named."""
    inventory = bench.write(
        lambda c: c["authority"].update(passphrase={"env": "ETCD_RUNBOOKS_NO_SUCH_VARIABLE"})
    )
    bench.refused(inventory, "authority.passphrase.env", "ETCD_RUNBOOKS_NO_SUCH_VARIABLE")


def test_an_adopted_authority_that_has_expired(bench: Bench) -> None:
    """The date is named."""
    made = datetime(2001, 2, 3, tzinfo=UTC)
    put_authority(bench, made)
    over = made + AuthorityPolicy().validity
    bench.refused(bench.write(), "authority.certificate expired on", str(over.year), "move it")


@pytest.mark.chaos
def test_an_adopted_authority_with_anothers_key(bench: Bench) -> None:
    """A certificate and a key that do not belong together do not sign."""
    now = datetime.now(UTC)
    put_authority(bench, now, key_of=now)
    bench.refused(bench.write(), "authority.key", "authority.certificate")


@pytest.mark.chaos
def test_an_adopted_authority_without_its_key(bench: Bench) -> None:
    """The file that is missing is named; the certificate is not written over."""
    put_authority(bench, datetime.now(UTC))
    (bench.authority / "ca-key.pem").unlink()
    bench.refused(bench.write(), "authority.key", str(bench.authority / "ca-key.pem"), "put the")


# The inventory


@pytest.mark.chaos
def test_an_unknown_field(bench: Bench) -> None:
    """The field is named, with those that there are."""
    inventory = bench.write(lambda c: c["etcd"].update(versoin="3.5.16"))
    bench.refused(inventory, "etcd.versoin: no such field", "known here:", "cluster_token")


@pytest.mark.chaos
def test_a_host_that_is_named_twice(bench: Bench) -> None:
    """The name is said, and that each host needs its own."""
    inventory = bench.write(lambda c: c["hosts"][2].update(name="master01"))
    bench.refused(inventory, "hosts: two hosts have the name master01", "each needs its own")


@pytest.mark.chaos
def test_an_address_that_is_given_twice(bench: Bench) -> None:
    """Both hosts are named."""
    address = bench.lab["master01"].address
    inventory = bench.write(lambda c: c["hosts"][2].update(address=address))
    bench.refused(inventory, f"the address {address} (master01 and master03)")


def test_every_wrong_field_at_once(bench: Bench) -> None:
    """One run tells all that is wrong in the file."""

    def spoil(content: Content) -> None:
        content["etcd"]["version"] = "latest"
        content["hosts"][1]["name"] = "Master 02"
        del content["authority"]["key"]

    bench.refused(bench.write(spoil), "etcd.version", "hosts[1].name", "authority.key: is missing")


@pytest.mark.chaos
def test_an_even_number_of_members(bench: Bench) -> None:
    """Two members are refused with the field that allows them."""
    inventory = bench.write(lambda c: c["hosts"].pop())
    bench.refused(inventory, "2 members tolerate 0 failure(s)", "even_members: true")


def test_an_even_number_of_members_on_purpose(bench: Bench) -> None:
    """With even_members they are planned; a dry run changes nothing, on the runner neither."""

    def two(content: Content) -> None:
        content["hosts"].pop()
        content["even_members"] = True

    ended = bench.run(bench.write(two), "--dry-run")
    assert ended.status == 0, ended.output
    assert "start etcd" in ended.stdout


def test_programs_with_another_checksum(bench: Bench) -> None:
    """The field, the file and what it really has are named."""
    programs = get_programs(INSTALLED)
    binaries = {
        "source": "directory",
        "path": str(programs.directory),
        "sha256": {**programs.sha256, "etcdctl": "0" * 64},
    }
    inventory = bench.write(lambda c: c["etcd"].update(binaries=binaries))
    bench.refused(
        inventory, "etcd.binaries.sha256.etcdctl", str(programs.directory / "etcdctl"),
        programs.sha256["etcdctl"], "correct it",
    )  # fmt: skip


# Not refused


@pytest.mark.skipif(shutil.which("cfssl") is None, reason="needs cfssl (golang-cfssl)")
def test_an_authority_made_by_cfssl_is_adopted(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """The cluster trusts it as it is, and its plain key is encrypted where it lies."""
    lab = start_lab(hosts=1, etcd=INSTALLED, etcd_source="installed")
    bench = Bench(lab, prefect, tmp_path)
    inventory = bench.write()
    request = {"CN": "Our own CA", "key": {"algo": "rsa", "size": 2048}, "names": [{"O": "Us"}]}
    made = json.loads(
        subprocess.run(
            ["cfssl", "gencert", "-initca", "-"],
            input=json.dumps(request), capture_output=True, text=True, timeout=60, check=True,
        ).stdout
    )  # fmt: skip
    certificate, key = bench.authority / "ca.pem", bench.authority / "ca-key.pem"
    certificate.write_text(made["cert"])
    key.touch(mode=0o600)
    key.write_text(made["key"])
    ended = run_runbook(prefect, "bootstrap_cluster", inventory)
    assert ended.status == 0, ended.output
    assert certificate.read_text() == made["cert"]
    assert lab["master01"].run(["cat", "/etc/etcd/ssl/ca.pem"]).check().stdout == made["cert"]
    etcdctl(lab, "put", "with", "cfssl")
    assert key.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert key.stat().st_mode & 0o777 == 0o600
    opened = subprocess.run(
        ["openssl", "pkey", "-in", str(key), "-passin", f"file:{bench.authority / 'passphrase'}",
         "-pubout"],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    expected = subprocess.run(
        ["openssl", "x509", "-noout", "-pubkey"],
        input=made["cert"], capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert opened.stdout == expected.stdout
