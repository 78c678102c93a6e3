"""Brings a lab that is there already to where `up` would leave it: on, plugged in, written down.

A lab's record is the machine's and its inventory is in somebody's checkout; hosts may be off, cut
off or frozen, and a removal may have ended half-way. Data on the hosts' disks stays.
"""

from __future__ import annotations

import fcntl
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.lab import mounts, network
from tests.lab.credentials import key_path, known_hosts_path
from tests.lab.errors import LabError
from tests.lab.etcd_programs import get_programs
from tests.lab.inventory import add_inventory, check_place, inventories, write_inventory
from tests.lab.lab import Lab
from tests.lab.state import STATE, list_records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.host import Host
    from tests.lab.state import LabRecord

FROZEN = r"""
for process in /proc/[0-9]*; do
    case $(cat "$process/status" 2>/dev/null) in
    *'State:'?'T '*) kill -CONT "${process#/proc/}" ;;
    esac
done
"""
"""Lets every process of a host run on that somebody stopped."""


@contextmanager
def alone() -> Iterator[None]:
    """Let one `up` of this machine work at a time: a half-started lab looks like a half-removed."""
    STATE.mkdir(mode=0o755, exist_ok=True)
    with (STATE / ".up").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find(name: str) -> LabRecord | None:
    """Find the record of a lab that is up, half up, or half removed."""
    return next((record for record in list_records() if record.name == name), None)


def is_whole(lab: Lab) -> bool:
    """Tell whether nothing is lost that makes the lab's hosts these hosts: disks and keys."""
    disks = {host.root for host in lab.hosts.values()}
    if lab.record.data_disk_mb is not None:
        disks |= {disk / "var/lib" for disk in disks}
    files = (key_path(lab.record), known_hosts_path(lab.record))
    return disks <= set(mounts.list_below(lab.directory)) and all(file.exists() for file in files)


def check_as_asked(lab: Lab, *, hosts: int, etcd: str | None, kubernetes: str | None) -> None:
    """Refuse a lab that is another one than was asked for; LabError says how to get that."""
    record = lab.record
    differs = []
    if record.owner is not None:
        differs.append(f"belongs to process {record.owner.pid}, which removes it at its end")
    if len(record.hosts) < hosts:
        differs.append(f"has {len(record.hosts)} hosts, not {hosts}")
    if etcd is not None and (wanted := get_programs(etcd).version) != record.etcd:
        differs.append(f"has etcd {record.etcd}, not {wanted}")
    if kubernetes is not None and kubernetes != record.kubernetes:
        differs.append(f"has {record.kubernetes or 'no'} Kubernetes, not {kubernetes}")
    if differs:
        raise LabError(
            f"a lab named {record.name} is up, and it {' and '.join(differs)}. Nothing was "
            f"changed. Choose another --name, or remove that lab with all that is on it: "
            f"python -m tests.lab down --name {record.name}"
        )


def revive(lab: Lab, inventory: Path) -> list[str]:
    """Undo what keeps hosts from being reached, and write the inventory; returns what was done."""
    check_place(inventory)
    done = []
    if lab.record.bridge not in network.list_links():
        for host in lab.hosts.values():
            host.power_cut()
        network.make_bridge(lab.record)
        done.append("the bridge is made again")
    with ThreadPoolExecutor(len(lab.hosts)) as pool:
        for found in pool.map(_revive_host, lab.hosts.values()):
            done += found
    if inventory not in inventories(lab.record) or not inventory.exists():
        done.append(f"{inventory} is written")
    add_inventory(lab.record, inventory)
    write_inventory(lab.record, get_programs(lab.record.etcd))
    return done


def _revive_host(host: Host) -> list[str]:
    done = []
    if not host.is_plugged:
        host.plug_cable()
        done.append(f"{host.name} is plugged in")
    host.restore_sudo()
    host.skew_clock(0)
    if host.is_running:
        host.run(FROZEN).check()
    else:
        host.start()
        done.append(f"{host.name} is started")
    return done
