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


def inventories(lab: LabRecord) -> list[Path]:
    """List where the lab's inventory is: the first one's place, and other checkouts'."""
    others = _others(lab)
    added = others.read_text().splitlines() if others.exists() else []
    return [Path(path) for path in dict.fromkeys([lab.inventory, *added])]


def add_inventory(lab: LabRecord, path: Path) -> None:
    """Note one more place, so that the file there is kept true and removed with the lab."""
    if path not in inventories(lab):
        with _others(lab).open("a") as file:
            file.write(f"{path}\n")


def check_place(path: Path) -> None:
    """LabError when somebody else's file is at the place where an inventory shall be."""
    if path.exists() and not _is_ours(path):
        raise LabError(f"{path} is not a lab's file and is left alone: choose another --inventory")


def write_inventory(lab: LabRecord, programs: EtcdPrograms) -> None:
    """Write the file at each of its places whose directory is there; another's file is left."""
    for path in inventories(lab):
        if path.parent.is_dir() and (not path.exists() or _is_ours(path)):
            path.write_text(inventory_text(lab, programs))


def remove_inventory(lab: LabRecord) -> None:
    """Remove the files, but for those that somebody has replaced by one of their own."""
    for path in inventories(lab):
        if _is_ours(path):
            path.unlink()


def _others(lab: LabRecord) -> Path:
    return lab.directory / "inventories"


def _is_ours(path: Path) -> bool:
    return path.is_file() and path.read_text().startswith(MARK)


def inventory_text(lab: LabRecord, programs: EtcdPrograms) -> str:
    """Render the inventory; JSON strings are YAML strings."""
    hosts = "".join(
        f"  - {{name: {name}, address: {address}}}\n" for name, address in lab.addresses().items()
    )
    known = (
        f"{MARK}"
        f"name: {lab.name}\n"
        f"topology: {'stacked' if lab.kubernetes else 'external'}\n"
        "hosts:\n"
        f"{hosts}"
        "ssh:\n"
        f"  user: {OPERATOR}\n"
        f"  key: {json.dumps(str(key_path(lab)))}\n"
        f"  known_hosts: {json.dumps(str(known_hosts_path(lab)))}\n"
        "etcd:\n"
        f"  version: {programs.version}\n"
    )
    if lab.kubernetes:
        # The rest is kubeadm's.
        return known
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
        f"{known}"
        "  binaries:\n"
        f"{binaries}"
        "  settings: {}\n"
        "authority:\n"
        f"  certificate: {json.dumps(str(authority / 'ca.pem'))}\n"
        f"  key: {json.dumps(str(authority / 'ca-key.pem'))}\n"
        f"  passphrase: {{file: {json.dumps(str(authority / 'passphrase'))}}}\n"
    )
