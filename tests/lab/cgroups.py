"""The control groups that hold a lab's processes, and nothing but those.

They are how a host's processes are found and ended: never by name, never by a remembered id.
A group is one directory in each hierarchy that systemd tracks services in (cgroup v2, and v1's
name=systemd where both are mounted); the resource controllers are left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

KILL_SECONDS = 10.0
"""How long killed processes may take to be gone."""


def list_own_groups() -> list[Path]:
    """List the directories of this process's own group, one a hierarchy, cgroup v2 first."""
    mounts: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            mounts.setdefault("", Path(before.split()[4]))
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            mounts.setdefault("name=systemd", Path(before.split()[4]))
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controller, path = line.split(":", 2)
        own[controller] = path.lstrip("/")
    return [mounts[key] / own[key] for key in sorted(mounts) if key in own]


def list_processes(group: Sequence[Path]) -> set[int]:
    """List the processes in a group and in the groups below it."""
    found: set[int] = set()
    for directory in group:
        # A group that vanishes while it is read has no processes; os.walk passes over it.
        for path, _, _ in os.walk(directory):
            with contextlib.suppress(OSError):
                pids = (Path(path) / "cgroup.procs").read_text().split()
                found.update(int(pid) for pid in pids if pid != "0")
    return found


def kill(group: Sequence[Path]) -> None:
    """End every process of a group with SIGKILL and wait until they are gone.

    LabError when some remain after KILL_SECONDS.
    """
    deadline = time.monotonic() + KILL_SECONDS
    while processes := list_processes(group):
        if time.monotonic() > deadline:
            raise LabError(
                f"processes {sorted(processes)} of {group[0]} outlive SIGKILL by {KILL_SECONDS:g} s"
                ": see their stacks in /proc/<pid>/stack, then run `down` again"
            )
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def remove(group: Sequence[Path]) -> None:
    """Remove a group that has no processes, and the groups below it.

    LabError when the kernel still holds one after KILL_SECONDS.
    """
    deadline = time.monotonic() + KILL_SECONDS
    for top in group:
        while top.exists():
            for path, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(path).rmdir()
            if top.exists() and time.monotonic() > deadline:
                raise LabError(f"{top} cannot be removed: see {top}/cgroup.procs")
