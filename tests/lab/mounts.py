"""What is mounted below a lab's directory, and how it is taken away again."""

from __future__ import annotations

import re
from pathlib import Path

from tests.lab.commands import execute, run
from tests.lab.errors import LabError


def list_below(directory: Path) -> list[Path]:
    """List the mount points at or below a directory, the last mounted first."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        escaped = line.split()[4]
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped))
        if point == directory or directory in point.parents:
            points.append(point)
    return points[::-1]


def unmount_below(directory: Path) -> None:
    """Unmount everything at or below a directory; what is busy is detached (lazily).

    LabError when something is still mounted: the directory must then not be deleted.
    """
    for point in list_below(directory):
        if execute(["umount", str(point)]).status != 0:
            execute(["umount", "--lazy", str(point)])
    if left := list_below(directory):
        raise LabError(
            f"{left[0]} cannot be unmounted: see `fuser -vm {left[0]}`, then run `down` again"
        )


def mount_tmpfs(point: Path, megabytes: int) -> None:
    """Mount a tmpfs of that size at a directory, made when missing."""
    point.mkdir(parents=True, exist_ok=True)
    run(
        "mount",
        "-t",
        "tmpfs",
        "-o",
        f"size={megabytes}m,mode=0755",
        "etcd-runbooks-lab",
        str(point),
    )


def mount_overlay(lower: Path, disk: Path, point: Path) -> None:
    """Mount `lower`, read-only, under what is written to `disk` (upper and work directories)."""
    for directory in (disk / "upper", disk / "work", point):
        directory.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={lower},upperdir={disk / 'upper'},workdir={disk / 'work'}"
    run("mount", "-t", "overlay", "-o", options, "etcd-runbooks-lab", str(point))
