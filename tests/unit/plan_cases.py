"""One healthy baseline of everything that a plan looks at; tests change one thing of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tasks.model.certificates import Role
from tasks.model.inventory import Inventory
from tasks.model.observation import (
    DataDirectory,
    FileState,
    HostObservation,
    HostTarget,
    LeafFiles,
    Path,
    Program,
    Reachability,
    ServiceState,
    ServiceStatus,
)
from tasks.model.snapshots import Manifest

NAMES = ("m1", "m2", "m3")
UNIT, CONFIGURATION, AUTHORITY = "[Unit]\n", 'ETCD_NAME="m"\n', "CA\n"
SUM = "a" * 64


def inventory(**changes: Any) -> Inventory:  # noqa: ANN401 - any field
    """Make an inventory of three hosts."""
    content: dict[str, Any] = {
        "name": "c1",
        "hosts": [{"name": n, "address": f"10.0.0.{i}"} for i, n in enumerate(NAMES, 1)],
        "etcd": {"version": "3.5.16", "binaries": {"source": "installed"}},
        "authority": {"certificate": "ca.pem", "key": "k.pem", "passphrase": {"env": "X"}},
    }
    return Inventory.model_validate({**content, **changes})


def text_file(text: str) -> FileState:
    """Make a file as the runbook writes it."""
    return FileState("0644", "root", "root", SUM, text)


def leaf() -> LeafFiles:
    """Make an installed pair."""
    return LeafFiles(text_file("CERT"), FileState("0600", "etcd", "etcd", SUM), "PUBLIC")


def bare(name: str = "m1", **changes: Any) -> HostObservation:  # noqa: ANN401 - any field
    """Make a bare host that has etcd's program and nothing to object to."""
    nothing = LeafFiles(None, None, None)
    facts: dict[str, Any] = {
        "host": name,
        "hostname": name,
        "operating_system": "Debian GNU/Linux 12 (bookworm)",
        "architecture": "x86_64",
        "systemd_version": 252,
        "clock_offset": 0.0,
        "clock_uncertainty": 0.01,
        "detected_address": f"10.0.0.{NAMES.index(name) + 1}",
        "addresses": (f"10.0.0.{NAMES.index(name) + 1}",),
        "missing_tools": (),
        "disk_free": 50 << 30,
        "fsync_mean": 0.001,
        "listeners": (),
        "programs": (Program("etcd", SUM, "3.5.16"),),
        "account_uid": None,
        "account_group": None,
        "data": DataDirectory.MISSING,
        "state_mode": None,
        "resolved": {name: ("10.0.0.1",)},
        "service": None,
        "unit": None,
        "configuration": None,
        "authority": None,
        "leaves": dict.fromkeys(Role, nothing),
        "certificates_mode": None,
    }
    return HostObservation(**{**facts, **changes})


def finished(name: str = "m1", **changes: Any) -> HostObservation:  # noqa: ANN401 - any field
    """Make a host on which everything is done and etcd runs."""
    facts: dict[str, Any] = {
        "account_uid": 999,
        "account_group": "etcd",
        "data": DataDirectory.INITIALISED,
        "state_mode": "0700 etcd etcd",
        "certificates_mode": "0750 root etcd",
        "service": ServiceStatus(ServiceState.ACTIVE, is_enabled=True),
        "unit": text_file(UNIT),
        "configuration": text_file(CONFIGURATION),
        "authority": text_file(AUTHORITY),
        "leaves": {role: leaf() for role in Role},
    }
    return bare(name, **{**facts, **changes})


def target(name: str = "m1", **changes: Any) -> HostTarget:  # noqa: ANN401 - any field
    """Make what a finished host holds."""
    facts: dict[str, Any] = {
        "host": name,
        "unit": UNIT,
        "configuration": CONFIGURATION,
        "authority": AUTHORITY,
        "program_sums": {},
        "leaf_differences": dict.fromkeys(Role, ()),
        "configuration_identity": {"ETCD_INITIAL_CLUSTER_TOKEN": ("t", "t")},
    }
    return HostTarget(**{**facts, **changes})


def ways() -> tuple[Path, ...]:
    """Make the open ways between all hosts."""
    return tuple(
        Path(source, to, f"10.0.0.{NAMES.index(to) + 1}", port, Reachability.OPEN)
        for source in NAMES
        for to in NAMES
        if source != to
        for port in (2380, 2379)
    )


def snapshot_of(taken: datetime, **changes: Any) -> Manifest:  # noqa: ANN401 - any field
    """Make the manifest of a snapshot of that time."""
    manifest = Manifest(
        file=f"{taken:%Y%m%dT%H%M%S}.db",
        cluster="c1",
        cluster_id="1",
        revision=9,
        taken=taken,
        source="m1",
        behind=0,
        size=1,
        sha256="",
        key_count=None,
        hash_kv=None,
        cluster_version="3.6.0",
        members=(),
        authorities=(),
    )
    return manifest.model_copy(update=changes)
