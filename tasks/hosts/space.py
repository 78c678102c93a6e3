"""The room that a member's database has on its host's disk."""

from __future__ import annotations

from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.model.space import DiskRoom


def disk_room_command(data: PurePosixPath) -> Command:
    """Tell what is free where the database lies, and what lies beside it, with sizes in bytes."""
    script = f"""
snap={quote(str(data))}/member/snap
df --output=avail,target -B1 "$snap" | tail -n 1
for file in "$snap"/db.tmp.* "$snap"/*.snap.db; do
  if [ -f "$file" ]; then stat -c '%s %n' "$file"; fi
done
"""
    return Command("see the database's disk", script.strip())


def parse_disk_room(result: Result) -> DiskRoom:
    """Read the answer of `disk_room_command`."""
    first, *others = result.stdout.splitlines()
    free, mount = first.split(maxsplit=1)
    return DiskRoom(int(free), mount, tuple(others))
