"""Clusters that lost their data or their quorum, on real hosts: restored, or recovered.

CI restores one in `test_snapshots`.
"""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tests.integration.members import find_leader
from tests.integration.runbooks import Ended, Prefect, etcdctl, finish, run_runbook, start_runbook
from tests.integration.writers import DIRECTORY, Writers
from tests.lab.etcd_programs import INSTALLED

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(900)]

KEYS = 30
LEAP = 1_000_000_000
DATA = "/var/lib/etcd/default.etcd"


@pytest.fixture(scope="module")
def lab(start_module_lab: StartLab, prefect: Prefect) -> Lab:
    """Bootstrap a cluster that has some keys, and save a snapshot of it."""
    lab = start_module_lab(hosts=3)
    ended = run_runbook(prefect, "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output
    for number in range(KEYS):
        etcdctl(lab, "put", f"key{number}", "x" * 1000)
    ended = run_runbook(prefect, "take_snapshot", lab.inventory, named="--clusters")
    assert ended.status == 0, ended.output
    return lab


@pytest.fixture
def words(lab: Lab, etcd_version: str) -> tuple[str, ...]:
    """Give consent, and what else this version needs a word for."""
    old = ("--accept", "old-revisions") if etcd_version == INSTALLED else ()
    return ("--consent", lab.name, *old)


def header(lab: Lab, host: str) -> dict[str, int]:
    """Ask one member for its cluster's id and its revision."""
    (row,) = json.loads(etcdctl(lab, "endpoint", "status", "-w", "json", on=host))
    return dict(row["Status"]["header"])


def keys_of(lab: Lab, host: str) -> set[str]:
    """List the keys that one member has."""
    return set(etcdctl(lab, "get", "", "--prefix", "--keys-only", on=host).split())


def lose(lab: Lab, *names: str) -> None:
    """Let members die at once, and their data be gone, as with their disks."""
    for name in names:
        lab[name].run(
            f"systemctl kill --signal=KILL etcd; systemctl stop etcd; rm -rf {DATA}"
        ).check()


def processes(lab: Lab) -> dict[str, str]:
    """Tell which process each member is."""
    asked = ["systemctl", "show", "etcd", "-p", "MainPID", "-p", "ActiveEnterTimestamp"]
    return {name: host.run(asked).check().stdout for name, host in lab.hosts.items()}


def check_whole(lab: Lab, prefect: Prefect) -> None:
    """See full health, data that etcd's account owns, and nothing that a restore left behind."""
    ended = run_runbook(prefect, "check_health", lab)
    assert ended.status == 0, ended.output
    for host in lab.hosts.values():
        assert host.run(f"stat -c %U {DATA}/member/snap/db").stdout.strip() == "etcd"
        left = host.run(f"ls -d {DATA}.etcd-runbooks* 2>/dev/null; systemctl list-units 'etcd-*'")
        assert "etcd-runbooks" not in left.stdout
        host.run(f"rm -rf {DATA}.replaced-*").check()  # the lab's disks are memory


def test_a_cluster_that_lost_its_data_is_restored(
    lab: Lab, prefect: Prefect, words: tuple[str, ...], etcd_version: str
) -> None:
    """With consent, as another cluster, at revisions that no watch has ever seen."""
    before = header(lab, "master01")
    etcdctl(lab, "put", "later", "than the snapshot")
    lose(lab, "master02", "master03")
    refused = run_runbook(prefect, "restore_cluster", lab, *words[2:])
    assert refused.status == 2, refused.output
    assert f"--consent {lab.name}" in refused.stderr
    assert "Nothing was changed" in refused.stderr
    ended = run_runbook(prefect, "restore_cluster", lab, *words)
    assert ended.status == 0, ended.output
    check_table(prefect, "restore_cluster")
    after = header(lab, "master02")
    assert after["cluster_id"] != before["cluster_id"]
    assert (after["revision"] > LEAP) == (etcd_version != INSTALLED)
    assert {len(keys_of(lab, host)) for host in lab.hosts} == {KEYS}
    check_whole(lab, prefect)
    again = run_runbook(prefect, "restore_cluster", lab, *words)
    assert again.status == 0, again.output
    assert "--again" in again.stdout
    assert header(lab, "master02")["cluster_id"] == after["cluster_id"]


def test_old_watches_are_cancelled(
    lab: Lab, prefect: Prefect, words: tuple[str, ...], etcd_version: str
) -> None:
    """One that lives through the restore, and one that begins anew from what it has seen."""
    if etcd_version == INSTALLED:
        pytest.skip("it cannot raise revisions, which is refused without a word")
    first = next(iter(lab.hosts.values()))
    urls = ",".join(f"https://{host.address}:2379" for host in lab.hosts.values())
    ssl = "/etc/etcd/ssl"
    tls = f"--cacert={ssl}/ca.pem --cert={ssl}/client.pem --key={ssl}/client-key.pem"
    ctl = f"env ETCDCTL_API=3 /usr/local/bin/etcdctl --endpoints={urls} {tls}"
    seen = header(lab, "master01")["revision"]
    first.run(f"systemd-run --quiet --unit=watcher sh -c '{ctl} watch --prefix \"\" 2>&1'").check()
    time.sleep(1)
    etcdctl(lab, "put", "watched", "x")
    ended = run_runbook(prefect, "restore_cluster", lab, *words, "--again")
    assert ended.status == 0, ended.output
    for _ in range(100):
        said = first.run("journalctl --output=cat --unit=watcher").stdout
        if "canceled" in said:
            break
        time.sleep(0.2)
    assert "watch is canceled by the server" in said  # for this, or for want of a leader
    anew = first.run(f"timeout 20 {ctl} watch --rev={seen} --prefix '' 2>&1").stdout
    assert "required revision has been compacted" in anew
    check_whole(lab, prefect)


def spoil(content: bytes) -> dict[str, tuple[bytes, str]]:
    """Spoil a snapshot in every way that was seen elsewhere, with what must be said of it."""
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    return {
        "empty": (b"", "it is empty"),
        "packed": (gzip.compress(content), "packed with gzip"),
        "cut": (content[:middle], "cut off"),
        "changed": (changed, "does not match its own checksum"),
        "copied": (content[:-32], "--accept no-checksum"),
        "nothing": (b"not a database\n" * 100, "no database of etcd's"),
    }


def test_a_bad_file_is_refused_with_nothing_touched(
    lab: Lab, prefect: Prefect, words: tuple[str, ...], tmp_path: Path
) -> None:
    """Told apart; etcd's processes are those of before. Another cluster's, too."""
    before = processes(lab)
    (stored,) = (prefect.home / "etcd-runbooks" / "snapshots" / lab.name).glob("*.db")
    content = stored.read_bytes()
    file = tmp_path / "snapshot.db"
    for name, (bad, said) in spoil(content).items():
        file.write_bytes(bad)
        ended = run_runbook(prefect, "restore_cluster", lab, *words, "--file", str(file))
        assert ended.status == 2, (name, ended.output)
        assert said in ended.stderr, (name, ended.output)
    file.write_bytes(content)
    manifest = json.loads(stored.with_suffix(".json").read_text())
    file.with_suffix(".json").write_text(json.dumps({**manifest, "cluster": "other"}))
    ended = run_runbook(prefect, "restore_cluster", lab, *words, "--file", str(file))
    assert (ended.status, "--accept other-cluster" in ended.stderr) == (2, True), ended.output
    file.with_suffix(".json").unlink()
    stranger = lab.inventory.with_name("stranger.yaml")
    hosts = {host.address: f"10.99.0.{number}" for number, host in enumerate(lab.hosts.values(), 1)}
    text = lab.inventory.read_text()
    for address, other in hosts.items():
        text = text.replace(f"address: {address}", f"address: {address}, peer_address: {other}")
    stranger.write_text(text)
    ended = run_runbook(prefect, "restore_cluster", stranger, *words, "--file", str(file))
    assert (ended.status, "none of its members" in ended.stderr) == (2, True), ended.output
    assert processes(lab) == before


def test_a_copied_database_is_restored_with_a_word(
    lab: Lab, prefect: Prefect, words: tuple[str, ...], tmp_path: Path
) -> None:
    """A member's own file, without a checksum; etcd starts on it on the runner first."""
    lab["master01"].run(["systemctl", "stop", "etcd"], timeout=60).check()
    etcdctl(lab, "put", "after", "the copy", on="master02")
    file = tmp_path / "copied.db"
    file.write_bytes(
        (lab["master01"].root / DATA.removeprefix("/") / "member/snap/db").read_bytes()
    )
    accept = ("--accept", "no-checksum", "--file", str(file))
    ended = run_runbook(prefect, "restore_cluster", lab, *words, *accept)
    assert ended.status == 0, ended.output
    assert "after" not in keys_of(lab, "master03")
    check_whole(lab, prefect)


def kill(prefect: Prefect, lab: Lab, runbook: str, point: str, *options: str) -> Ended:
    """Run a runbook that dies right after a line of its journal."""
    killer = ("-m", "tests.integration.killed_run", point)
    return finish(start_runbook(prefect, runbook, lab, *options, launcher=killer))


ALL = ("master01", "master02", "master03")
EVERYWHERE = (
    "restore the snapshot beside the data",
    "stop the member",
    "put what is ready in place",
    "start etcd where no client is",
    "let clients in",
    "mark the restore as done",
)
BEFORE = ("lock the cluster", "see what a restore finds")
STEPS = {
    "restore_cluster": Counter(
        [
            *(f"{step} on {host}" for step in (*BEFORE, *EVERYWHERE) for host in ALL),
            "restore the snapshot where no client is",
            "see what was restored, before clients come",
            *["verify the cluster"] * 2,
        ]
    ),
    "recover_quorum": Counter(
        [
            *(f"{step} on {host}" for step in (*BEFORE, *EVERYWHERE) for host in ALL),
            *(f"stop the member on {host}" for host in ALL),
            "read the end of the log on master01",
            "run a copy of the data alone on master01",
            "take a snapshot of the survivor",
            "remove the copy on master01",
            "see what was restored, before clients come",
            *["verify the cluster"] * 2,
        ]
    ),
}
"""What a whole run does; a recovery stops members before it reads the survivor's data, too."""


def check_table(prefect: Prefect, runbook: str) -> None:
    """See that the last run did what the table says: a step that is added must be added here."""
    records = read_journal(prefect.journals[-1])
    done = Counter(r.details["step"] for r in records if r.event is Event.STEP_FINISHED)
    assert done == STEPS[runbook]


def points(runbook: str) -> list[str]:
    """List the boundaries at which a run is killed: of each step on one host."""
    steps = [s for s in STEPS[runbook] if not s.endswith((" on master02", " on master03"))]
    return [f"{e}|{step}" for step in steps for e in (Event.STEP_STARTED, Event.STEP_FINISHED)]


@pytest.mark.parametrize("point", points("restore_cluster"))
def test_a_restore_that_is_killed_anywhere_is_finished_by_the_next_run(
    lab: Lab, prefect: Prefect, words: tuple[str, ...], point: str
) -> None:
    """As one cluster; what was written after clients were let in is there."""
    killed = kill(prefect, lab, "restore_cluster", point, *words, "--again")
    assert killed.status == -9, killed.output
    written = set()
    if "let clients in" in point or "verify" in point or "mark" in point:
        time.sleep(4)
        if lab["master01"].run(["systemctl", "is-active", "--quiet", "etcd"]).status == 0:
            etcdctl(lab, "put", "written", "since")
            written = {"written"}
    again = () if written else ("--again",)
    ended = run_runbook(prefect, "restore_cluster", lab, *words, *again)
    assert ended.status == 0, ended.output
    assert len({header(lab, host)["cluster_id"] for host in lab.hosts}) == 1
    assert written <= keys_of(lab, "master03")
    check_whole(lab, prefect)


def lose_one_then_another(lab: Lab, tmp_path: Path, survivor: str) -> Writers:
    """Let writers write until a majority is dead; what was acknowledged, the survivor has."""
    one, two = (name for name in lab.hosts if name != survivor)
    etcdctl(lab, "put", "begun", "x")
    files = lab[survivor].root / DIRECTORY.removeprefix("/")
    ssl = lab[survivor].root / "etc/etcd/ssl"
    files.mkdir(exist_ok=True)
    for name in ("ca.pem", "client.pem", "client-key.pem"):
        (files / name).write_bytes((ssl / name).read_bytes())
    with Writers(lab, tmp_path, count=3, files=files) as writers:
        time.sleep(2)
        lose(lab, one)
        time.sleep(3)
        lose(lab, two)
        time.sleep(1)
    return writers


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
def test_a_lost_majority_is_recovered_from_the_survivor(
    lab: Lab, prefect: Prefect, words: tuple[str, ...], tmp_path: Path, *, leads: bool
) -> None:
    """Nothing of what was acknowledged is lost: it was on both that were left until the end."""
    leader = find_leader(lab, list(lab.hosts))
    survivor = leader if leads else next(name for name in lab.hosts if name != leader)
    before = header(lab, survivor)
    has_quorum = run_runbook(prefect, "recover_quorum", lab, *words)
    assert has_quorum.status == 2, has_quorum.output
    assert "has its quorum" in has_quorum.stderr
    writers = lose_one_then_another(lab, tmp_path, survivor)
    refused = run_runbook(prefect, "recover_quorum", lab, *words[2:])
    assert f"Nothing is lost that {survivor} has" in refused.stderr, refused.output
    ended = run_runbook(prefect, "recover_quorum", lab, *words)
    assert ended.status == 0, ended.output
    if survivor == "master01":
        check_table(prefect, "recover_quorum")
    for host in lab.hosts:
        report = writers.check(on=host)
        assert report.acknowledged > 100
        assert report.lost == ()
    after = header(lab, survivor)
    assert after["cluster_id"] != before["cluster_id"]
    assert after["revision"] > before["revision"]
    check_whole(lab, prefect)


@pytest.mark.parametrize("point", points("recover_quorum"))
def test_a_recovery_that_is_killed_anywhere_is_finished_by_the_next_run(
    lab: Lab, prefect: Prefect, words: tuple[str, ...], point: str
) -> None:
    """With all that the survivor had."""
    etcdctl(lab, "put", "last", point)
    before = keys_of(lab, "master01")
    lose(lab, "master02", "master03")
    killed = kill(prefect, lab, "recover_quorum", point, *words)
    assert killed.status == -9, killed.output
    ended = run_runbook(prefect, "recover_quorum", lab, *words)
    assert ended.status == 0 or "has its quorum" in ended.stderr, ended.output
    for host in lab.hosts:
        assert keys_of(lab, host) == before
    value = etcdctl(lab, "get", "last", "--print-value-only", on="master03").strip()
    assert value == point
    check_whole(lab, prefect)


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_dead_majority_that_comes_back_does_not_join(
    lab: Lab, prefect: Prefect, words: tuple[str, ...]
) -> None:
    """It is another cluster; the recovered one stays what it is, and takes them in on request."""
    before = header(lab, "master01")
    for name in ("master02", "master03"):
        lab[name].power_cut()
    unsaid = run_runbook(prefect, "recover_quorum", lab, *words)
    assert unsaid.status == 2, unsaid.output
    assert "--without master02 --without master03" in unsaid.stderr
    without = ("--without", "master02", "--without", "master03")
    ended = run_runbook(prefect, "recover_quorum", lab, *words, *without)
    assert ended.status == 0, ended.output
    after = header(lab, "master01")
    assert after["cluster_id"] != before["cluster_id"]
    etcdctl(lab, "put", "recovered", "x", on="master01")
    for name in ("master02", "master03"):
        lab[name].start()
    until(lambda: lab["master03"].run(["systemctl", "is-active", "etcd"]).status == 0)
    time.sleep(10)
    assert header(lab, "master01")["cluster_id"] == after["cluster_id"]
    assert header(lab, "master02")["cluster_id"] == before["cluster_id"]
    listed = json.loads(etcdctl(lab, "member", "list", "-w", "json", on="master01"))["members"]
    assert [member["name"] for member in listed] == ["master01"]
    told = run_runbook(prefect, "check_health", lab)
    assert told.status == 1, told.output
    assert "disagree on the cluster id" in told.stderr
    fenced = run_runbook(prefect, "recover_quorum", lab, *words, *without)
    assert fenced.status == 0, fenced.output
    for name in ("master02", "master03"):
        assert lab[name].run(["systemctl", "is-active", "etcd"]).status != 0
    assert header(lab, "master01")["cluster_id"] == after["cluster_id"]
    both = ("--member", "master02", "--member", "master03")
    back = run_runbook(prefect, "replace_member", lab, *both)
    assert back.status == 0, back.output
    assert "recovered" in keys_of(lab, "master03")
    check_whole(lab, prefect)
