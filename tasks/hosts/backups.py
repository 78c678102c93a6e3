"""What runs have replaced on a host: listed, and removed by name. Commands and parsers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.hosts.files import CHANGED, UNCHANGED
from tasks.model.retention import Backup


def list_command(directory: PurePosixPath) -> Command:
    """List the directories of runs with their sizes; none where there is nothing yet."""
    script = (
        f"cd {quote(str(directory))} 2>/dev/null || exit 0\n"
        'for each in */; do [ -d "$each" ] && [ ! -L "${each%/}" ] || continue\n'
        '  printf "%s %s\\n" "$(du -sk -- "$each" | cut -f 1)" "${each%/}"; done'
    )
    return Command(f"list what is kept in {directory}", script)


def parse_list(result: Result) -> tuple[Backup, ...]:
    """Read the answer of `list_command`."""
    rows = (line.split(" ", 1) for line in result.stdout.splitlines())
    return tuple(Backup(name, int(size)) for size, name in rows)


def remove_command(directory: PurePosixPath, names: Iterable[str]) -> Command:
    """Remove directories of runs, and nothing beside them; one that is gone is no error."""
    listed = " ".join(map(quote, names))
    script = (
        f"cd {quote(str(directory))} || exit 1\nchanged={UNCHANGED}\n"
        f"for each in {listed}; do\n"
        '  [ -d "$each" ] && [ ! -L "$each" ] || continue\n'
        f'  rm -rf --one-file-system -- "./$each" && changed={CHANGED}\ndone\n'
        'echo "$changed"'
    )
    return Command(f"remove what is kept in {directory}: {listed}", script)
