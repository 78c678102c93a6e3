"""The inventory file that the project's command line needs to work on a lab's hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.credentials import authority_path, key_path, known_hosts_path
from tests.lab.errors import LabError
from tests.lab.installation import OPERATOR

if TYPE_CHECKING:
    from tests.lab.etcd_programs import EtcdPrograms
    from tests.lab.state import LabRecord

MARK = "# Written by tests.lab for its own hosts; removed when they go down.\n"


def write_inventory(lab: LabRecord, programs: EtcdPrograms) -> None:
    """Write the file at the lab's `inventory` path; LabError rather than replace another's file."""
    path = Path(lab.inventory)
    if path.exists() and not path.read_text().startswith(MARK):
        raise LabError(f"{path} is not a lab's file and is left alone: choose another --inventory")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(inventory_text(lab, programs))


def remove_inventory(lab: LabRecord) -> None:
    """Remove the file, unless somebody has replaced it by one of their own."""
    path = Path(lab.inventory)
    if path.is_file() and path.read_text().startswith(MARK):
        path.unlink()


def inventory_text(lab: LabRecord, programs: EtcdPrograms) -> str:
    """Render the inventory; JSON strings are YAML strings."""
    hosts = "".join(
        f"  - {{name: {name}, address: {address}}}\n" for name, address in lab.addresses().items()
    )
    if lab.etcd_source == "installed":
        binaries = "    source: installed\n"
    else:
        sums = ", ".join(f"{name}: {value}" for name, value in programs.sha256.items())
        binaries = (
            "    source: directory\n"
            f"    path: {json.dumps(str(programs.directory))}\n"
            f"    sha256: {{{sums}}}\n"
        )
    authority = authority_path(lab)
    return (
        f"{MARK}"
        f"name: {lab.name}\n"
        "topology: external\n"
        "hosts:\n"
        f"{hosts}"
        "ssh:\n"
        f"  user: {OPERATOR}\n"
        f"  key: {json.dumps(str(key_path(lab)))}\n"
        f"  known_hosts: {json.dumps(str(known_hosts_path(lab)))}\n"
        "etcd:\n"
        f"  version: {programs.version}\n"
        "  binaries:\n"
        f"{binaries}"
        "  settings: {}\n"
        "authority:\n"
        f"  certificate: {json.dumps(str(authority / 'ca.pem'))}\n"
        f"  key: {json.dumps(str(authority / 'ca-key.pem'))}\n"
        f"  passphrase: {{file: {json.dumps(str(authority / 'passphrase'))}}}\n"
    )
