"""Clusters that lost their data or their quorum, on real hosts: restored, or recovered.

CI restores one in `test_snapshots`.
"""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.members import find_leader
from tests.integration.restores import (
    DATA,
    KEYS,
    LEAP,
    check_table,
    check_whole,
    header,
    keys_of,
    lose,
    processes,
)
from tests.integration.runbooks import Prefect, etcdctl, run_runbook
from tests.integration.writers import DIRECTORY, Writers
from tests.lab.etcd_programs import INSTALLED

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = [
    "tests.lab.fixtures",
    "tests.integration.fixtures",
    "tests.integration.restore_fixtures",
]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(900)]


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


def client_files(lab: Lab, host: str) -> Path:
    """Put a client's files for writers on a host."""
    files = lab[host].root / DIRECTORY.removeprefix("/")
    ssl = lab[host].root / "etc/etcd/ssl"
    files.mkdir(exist_ok=True)
    for name in ("ca.pem", "client.pem", "client-key.pem"):
        (files / name).write_bytes((ssl / name).read_bytes())
    return files


def lose_one_then_another(lab: Lab, tmp_path: Path, survivor: str) -> Writers:
    """Let writers write until a majority is dead; what was acknowledged, the survivor has."""
    one, two = (name for name in lab.hosts if name != survivor)
    etcdctl(lab, "put", "begun", "x")
    with Writers(lab, tmp_path, count=3, files=client_files(lab, survivor)) as writers:
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
    folder = prefect.home / "etcd-runbooks" / "snapshots" / lab.name
    manifests = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    saved = max(manifests, key=lambda one: one["taken"])
    assert (saved["runbook"], saved["source"]) == ("recover_quorum", survivor)
    assert int(saved["cluster_id"], 16) == before["cluster_id"]
    proven = run_runbook(prefect, "rehearse_snapshot", lab.inventory, named="--clusters")
    assert proven.status == 0, proven.output
    check_whole(lab, prefect)


def test_five_members_are_recovered_from_the_further_of_two(
    start_lab: StartLab, prefect: Prefect, tmp_path: Path, etcd_version: str
) -> None:
    """One of the two that are left heard nothing of the last seconds; nothing is lost."""
    lab = start_lab(hosts=5)
    ended = run_runbook(prefect, "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output
    before = header(lab, "master01")
    with Writers(lab, tmp_path, count=3, files=client_files(lab, "master01")) as writers:
        time.sleep(1)
        lab["master02"].run("systemctl kill --signal=STOP etcd").check()
        time.sleep(3)
        lose(lab, "master03", "master04", "master05")
        for name in ("master01", "master02"):
            lab[name].run("systemctl kill --signal=KILL etcd; systemctl stop etcd").check()
    words = ("--accept", "old-revisions") if etcd_version == INSTALLED else ()
    refused = run_runbook(prefect, "recover_quorum", lab, *words)
    assert "would be recovered from master01" in refused.stderr, refused.output
    ended = run_runbook(prefect, "recover_quorum", lab, "--consent", lab.name, *words)
    assert ended.status == 0, ended.output
    for host in lab.hosts:
        report = writers.check(on=host)
        assert report.acknowledged > 100
        assert report.lost == ()
    assert (
        len({header(lab, host)["cluster_id"] for host in lab.hosts} | {before["cluster_id"]}) == 2
    )
    check_whole(lab, prefect)
