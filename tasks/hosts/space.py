"""The room that a member's database has on its host's disk."""

from __future__ import annotations

from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.model.layout import Layout
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


def defragment_stopped_command(layout: Layout) -> Command:
    """Stop a member, write its database anew, and start it, whatever becomes of who asked.

    Without a program for that it fails, and has done nothing. Where only the copy fails, etcd is
    started with the database that it had.
    """
    binaries = quote(str(layout.binaries))
    script = f"""
data={quote(str(layout.data))}
export ETCDCTL_API=3
tool={binaries}/etcdutl
if [ ! -x "$tool" ]; then
  tool={binaries}/etcdctl
  "$tool" defrag --help 2>/dev/null | grep -q -e --data-dir || {{
    echo "there is no etcdutl in {binaries}, which a stopped member's database needs" >&2
    exit 1
  }}
fi
read -r uid gid < <(stat -c '%u %g' "$data/member/snap/db") || exit 1
setsid bash -c '
systemctl stop "$1" || exit 1
setpriv --reuid="$4" --regid="$5" --clear-groups "$2" defrag --data-dir "$3"
status=$?
systemctl start --no-block "$1"
exit $status
' defragment {quote(layout.service)} "$tool" "$data" "$uid" "$gid" </dev/null >&2 &
wait $!
"""
    return Command("write the database anew while etcd is stopped", script.strip())


def parse_disk_room(result: Result) -> DiskRoom:
    """Read the answer of `disk_room_command`."""
    first, *others = result.stdout.splitlines()
    free, mount = first.split(maxsplit=1)
    return DiskRoom(int(free), mount, tuple(others))
