"""Snapshots of a real cluster: restored by etcd's own tool, and taken while members die."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from tests.contract.s3_server import ENVIRONMENT, s3_server
from tests.integration.runbooks import Ended, Prefect, etcdctl, run_runbook
from tests.lab.etcd_programs import INSTALLED, get_programs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

KEYS = 40


@pytest.fixture(scope="module")
def lab(start_module_lab: StartLab, prefect: Prefect) -> Lab:
    """Bootstrap a cluster that has some keys, with some of its history compacted."""
    lab = start_module_lab(hosts=3)
    ended = run_runbook(prefect, "bootstrap_cluster", lab)
    assert ended.status == 0, ended.output
    for number in range(KEYS):
        etcdctl(lab, "put", f"key{number}", "x" * 1000)
    etcdctl(lab, "compact", "20")
    return lab


def write_rules(lab: Lab, **rules: object) -> Path:
    """Write the lab's inventory with these rules for snapshots, beside it."""
    yaml = YAML()
    content = yaml.load(lab.inventory)
    content["snapshots"] = rules
    inventory = lab.inventory.with_name(f"{lab.inventory.stem}-snapshots.yaml")
    with inventory.open("w") as file:
        yaml.dump(content, file)
    return inventory


def save(prefect: Prefect, lab: Lab, **rules: object) -> tuple[Ended, Path]:
    """Save a snapshot by these rules; also gives the folder of a store that is a directory."""
    inventory = write_rules(lab, **rules)
    ended = run_runbook(prefect, "take_snapshot", inventory, named="--clusters")
    return ended, Path(str(rules.get("store", ""))) / lab.name


def rehearse(prefect: Prefect, lab: Lab, **rules: object) -> Ended:
    """Rehearse the newest snapshot by these rules."""
    inventory = write_rules(lab, **rules)
    return run_runbook(prefect, "rehearse_snapshot", inventory, named="--clusters")


def manifest_of(folder: Path) -> dict[str, object]:
    """Read the only manifest."""
    (path,) = folder.glob("*.json")
    return dict(json.loads(path.read_text()))


def test_a_snapshot_is_what_etcds_own_tool_restores(
    lab: Lab, prefect: Prefect, tmp_path: Path, etcd_version: str
) -> None:
    """Encrypted for a key of age's own, opened by age, and as many keys as the manifest says."""
    key = tmp_path / "key"
    subprocess.run(["age-keygen", "-o", str(key)], check=True, capture_output=True)
    recipient = subprocess.run(
        ["age-keygen", "-y", str(key)], check=True, capture_output=True, text=True
    ).stdout.strip()
    leader = next(
        row.split(",")[0]
        for row in etcdctl(lab, "endpoint", "status").splitlines()
        if row.split(", ")[4] == "true"
    )
    ended, folder = save(prefect, lab, store=str(tmp_path / "store"), recipients=[recipient])
    assert ended.status == 0, ended.output
    manifest = manifest_of(folder)
    source = lab[str(manifest["source"])]
    assert source.address not in leader
    assert manifest["key_count"] == KEYS
    assert (manifest["hash_kv"] is not None) == (etcd_version != INSTALLED)
    sealed, bare = folder / str(manifest["file"]), tmp_path / "bare.db"
    assert sealed.suffix == ".age"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    subprocess.run(["age", "-d", "-i", str(key), "-o", str(bare), str(sealed)], check=True)
    programs = get_programs(etcd_version).directory
    tool = programs / "etcdutl" if (programs / "etcdutl").exists() else programs / "etcdctl"
    said = json.loads(
        subprocess.run(
            [tool, "snapshot", "status", "--write-out=json", str(bare)],
            check=True,
            capture_output=True,
            env={**os.environ, "ETCDCTL_API": "3"},
        ).stdout
    )
    assert said["revision"] == manifest["revision"]
    restored = tmp_path / "restored"
    subprocess.run(
        [tool, "snapshot", "restore", f"--data-dir={restored}", str(bare)],
        check=True,
        capture_output=True,
        env={**os.environ, "ETCDCTL_API": "3"},
    )
    assert (restored / "member" / "snap" / "db").is_file()
    key.chmod(0o600)
    rules = {
        "store": str(tmp_path / "store"),
        "recipients": [recipient],
        "identity": {"file": str(key)},
        "programs": str(programs),
    }
    assert manifest_of(folder)["proven"] is None
    proven = rehearse(prefect, lab, **rules)
    assert proven.status == 0, proven.output
    assert "revision, keys" in proven.stdout
    assert manifest_of(folder)["proven"] is not None
    assert key.read_text().split()[-1] not in proven.output


def test_a_snapshot_that_is_not_what_was_saved_is_not_proven(
    lab: Lab, prefect: Prefect, tmp_path: Path, etcd_version: str
) -> None:
    """Truncated, changed, or copied from a member's disk; each is told apart, nothing is left."""
    rules = {"store": str(tmp_path), "programs": str(get_programs(etcd_version).directory)}
    ended, folder = save(prefect, lab, **rules)
    assert ended.status == 0, ended.output
    file = folder / str(manifest_of(folder)["file"])
    content = file.read_bytes()
    for spoiled, said in (
        (content[:-512], "it is cut off"),
        (bytes([content[0] ^ 1]) + content[1:], "does not match its own checksum"),
        (content[:-32], "a database without a checksum"),
    ):
        file.write_bytes(spoiled)
        ended = rehearse(prefect, lab, **rules)
        assert ended.status == 1, ended.output
        assert said in ended.stderr
        assert manifest_of(folder)["proven"] is None
    file.unlink()
    ended = rehearse(prefect, lab, **rules)
    assert ended.status == 2, ended.output
    assert "take_snapshot --clusters" in ended.stderr
    assert not list(Path(tempfile.gettempdir()).glob("etcd-runbooks-rehearsal-*"))


def test_the_fleet_shows_the_cluster_in_a_line(lab: Lab, prefect: Prefect, tmp_path: Path) -> None:
    """With its members, leader, first expiry, the snapshot that is not proven, the last change."""
    rules = {"store": str(tmp_path)}
    ended, _ = save(prefect, lab, **rules)
    assert ended.status == 0, ended.output
    ended = run_runbook(prefect, "check_fleet", write_rules(lab, **rules), named="--clusters")
    assert ended.status == 0, ended.output
    told = " ".join(ended.stdout.split())
    assert "3 of 3" in told
    assert "none; one of 0 h ago is not proven" in told
    assert "bootstrap_cluster by " in told
    assert not [column for column in ("?",) if f" {column} " in told]


def test_a_snapshot_goes_to_an_s3_server_and_old_ones_leave(
    lab: Lab, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one is the newest of its hour, which alone the rules keep."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with s3_server("backups") as url:
        rules = {
            "store": "s3://backups/etcd",
            "endpoint": url,
            "keep": {"hourly": 1, "daily": 0, "weekly": 0, "monthly": 0},
        }
        first, _ = save(prefect, lab, **rules)
        second, _ = save(prefect, lab, **rules)
    assert first.status == second.status == 0, first.output + second.output
    assert "removed by snapshots.keep" not in first.stdout
    assert "removed by snapshots.keep" in second.stdout
    assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in second.output


@contextmanager
def paused(lab: Lab, *names: str) -> Iterator[None]:
    """Let members hang as on a disk that hangs."""
    for name in names:
        lab[name].run("systemctl kill --signal=STOP etcd").check()
    try:
        yield
    finally:
        for name in names:
            lab[name].run("systemctl kill --signal=CONT etcd").check()


def test_a_store_that_takes_nothing_is_refused(lab: Lab, prefect: Prefect) -> None:
    """With the place, the reason and the way out; nothing is left."""
    ended, _ = save(prefect, lab, store="/dev/null")
    assert ended.status == 2, ended.output
    assert "/dev/null/" in ended.stderr
    assert "(Not a directory)" in ended.stderr
    assert "`snapshots.store`" in ended.stderr


def test_a_member_that_hangs_is_not_asked(lab: Lab, prefect: Prefect, tmp_path: Path) -> None:
    """One of three hangs: another follower or the leader gives the snapshot."""
    hanging = list(lab.hosts)[1]
    with paused(lab, hanging):
        ended, folder = save(prefect, lab, store=str(tmp_path))
    assert ended.status == 0, ended.output
    assert manifest_of(folder)["source"] != hanging


def test_a_cluster_that_lost_its_data_is_restored(
    lab: Lab, prefect: Prefect, tmp_path: Path, etcd_version: str
) -> None:
    """By consent, as another cluster, with what the snapshot has and nothing later."""
    ended, folder = save(prefect, lab, store=str(tmp_path))
    assert ended.status == 0, ended.output
    etcdctl(lab, "put", "later", "than the snapshot")
    for name in list(lab.hosts)[1:]:
        lab[name].run("systemctl stop etcd; rm -rf /var/lib/etcd/default.etcd").check()
    inventory = write_rules(lab, store=str(tmp_path))
    refused = run_runbook(prefect, "restore_cluster", inventory)
    assert refused.status == 2, refused.output
    assert f"--consent {lab.name}" in refused.stderr
    old = ("--accept", "old-revisions") if etcd_version == INSTALLED else ()
    ended = run_runbook(prefect, "restore_cluster", inventory, "--consent", lab.name, *old)
    assert ended.status == 0, ended.output
    for host in lab.hosts:
        keys = etcdctl(lab, "get", "key", "--prefix", "--keys-only", on=host).split()
        assert len(keys) == KEYS, host
    assert not etcdctl(lab, "get", "later").strip()
    listed = json.loads(etcdctl(lab, "endpoint", "status", "-w", "json"))
    ids = {f"{row['Status']['header']['cluster_id']:x}" for row in listed}
    assert len(ids) == 1
    assert manifest_of(folder)["cluster_id"] not in ids
