"""The control groups that hold a lab's processes, and nothing but those.

They are how a host's processes are found and ended: never by name, never by a remembered id.
A group is one directory in each hierarchy that systemd tracks services in (cgroup v2, and v1's
name=systemd where both are mounted). v1's resource controllers are left alone but for hosts that
run containers, which have a group of their own in each.
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

FLAGS = frozenset({"rw", "ro", "xattr", "none", "clone_children", "noprefix"})
"""What the options of a v1 hierarchy's mount name beside its controllers."""

KILL_SECONDS = 10.0
"""How long killed processes may take to be gone."""


def list_own_groups(*, controllers: bool = False) -> list[Path]:
    """List the directories of this process's own group, one a hierarchy, cgroup v2 first.

    `controllers` says whether v1's resource controllers are among them.
    """
    mounts: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        point = Path(before.split()[4])
        if kind == "cgroup2":
            mounts.setdefault("", point)
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            mounts.setdefault("name=systemd", point)
        elif kind == "cgroup" and controllers:
            # As /proc/self/cgroup names a hierarchy of several: cpu,cpuacct.
            mounts.setdefault(",".join(o for o in options.split(",") if o not in FLAGS), point)
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controller, path = line.split(":", 2)
        own[controller] = path.lstrip("/")
    return [mounts[key] / own[key] for key in sorted(mounts) if key in own]


def make(directory: Path) -> None:
    """Make a host's group in one hierarchy; v1's cpuset takes no process before it has its CPUs."""
    directory.mkdir(parents=True, exist_ok=True)
    for level in (directory.parent, directory):
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (level.parent / name).exists() and (level / name).exists():
                (level / name).write_text((level.parent / name).read_text())


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
