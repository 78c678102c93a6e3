"""Takes labs away: everything that carries a lab's name, however far its start had come."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import cgroups, mounts, network
from tests.lab.inventory import remove_inventory
from tests.lab.state import DISKS, GONE, STATE, UNBORN, lab_group, list_records, locked

if TYPE_CHECKING:
    from tests.lab.state import LabRecord

NSPAWN_DIRECTORIES = Path("/run/systemd/nspawn/propagate")
"""Where systemd-nspawn makes an empty directory a machine, and leaves it when it is killed."""


def remove(lab: LabRecord) -> None:
    """End a lab's processes and remove its links, mounts, inventory and directory.

    A lab that is gone already is no error, and one that has its name or its slot since then is
    left alone. LabError when the kernel holds on to something; the record is then still there,
    and removing it again goes on from there.
    """
    with locked():
        for record in list_records():
            if record.identity == lab.identity:
                _remove_under_lock(record)


def _remove_under_lock(lab: LabRecord) -> None:
    # Silence first: no host may hear another one's last words.
    network.remove_bridge(lab)
    cgroups.kill(lab.cgroup())
    cgroups.remove(lab.cgroup())
    for link in network.list_links():
        if link.removeprefix(lab.cable_prefix).isdigit() and link.startswith(lab.cable_prefix):
            network.remove_link(link)
    mounts.unmount_below(lab.directory)
    shutil.rmtree(lab.disks, ignore_errors=True)
    remove_inventory(lab)
    for host in lab.hosts:
        with contextlib.suppress(OSError):
            (NSPAWN_DIRECTORIES / f"{lab.name}-{host}").rmdir()
    _delete(lab.directory)


def reap() -> list[str]:
    """Remove the labs whose owner died, and return their names."""
    with locked():
        return reap_under_lock()


def reap_under_lock() -> list[str]:
    """Do what `reap` does, for a caller that holds the lock."""
    abandoned = [record for record in list_records() if record.is_abandoned]
    for record in abandoned:
        _remove_under_lock(record)
    for directory in STATE.glob("[!.]*/"):
        # Under the lock no lab is without its record, so this is what somebody deleted by hand.
        if not (directory / "lab.json").exists():
            _remove_remains(directory)
    for disks in DISKS.glob("*/"):
        if not (STATE / disks.name / "lab.json").exists():
            shutil.rmtree(disks, ignore_errors=True)
    for leftover in [*STATE.glob(f"{UNBORN}*"), *STATE.glob(f"{GONE}*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    return [record.name for record in abandoned]


def _remove_remains(directory: Path) -> None:
    """Take away what is found by a lab's name alone; its bridge, if there is one, stays unused."""
    own = cgroups.list_own_groups(controllers=True)
    groups = [group / lab_group(directory.name) for group in own]
    cgroups.kill(groups)
    cgroups.remove(groups)
    mounts.unmount_below(directory)
    _delete(directory)


def _delete(directory: Path) -> None:
    """Delete a lab's directory, whose mounts are gone, also while another process does the same.

    It is renamed first, so that no half a lab is ever found.
    """
    gone = directory.with_name(f"{GONE}{directory.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        directory.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
