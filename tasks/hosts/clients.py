"""Clients of etcd on their machines: their files change, and then they are told.

Whether a client has read its files cannot be seen from outside. A mark on its host stands from
before the first file changes until it was told, so that a run which died in between is finished
by the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from shlex import join, quote

from tasks.hosts.batch import Command, Result
from tasks.hosts.files import CHANGED
from tasks.model.layout import NOTES

PENDING = NOTES / "pending"


def pending_command(client: str) -> Command:
    """Tell whether a client's files were changed and it was not told yet."""
    mark = quote(str(PENDING / client))
    return Command(f"pending change of {client}", f"[ ! -e {mark} ] || echo {CHANGED}")


def parse_pending(result: Result) -> bool:
    """Read the answer of `pending_command`."""
    return result.stdout.strip() == CHANGED


def mark_pending_command(client: str) -> Command:
    """Note that a client's files are about to change."""
    mark = quote(str(PENDING / client))
    script = f"mkdir -p {PENDING}\ntouch {mark}\nsync {mark} {PENDING}"
    return Command(f"note a change of {client}", script)


def places_command(paths: Iterable[PurePosixPath]) -> Command:
    """Make the directories of a client's files, where they are not there."""
    places = join(dict.fromkeys(str(path.parent) for path in paths))
    return Command("make the directories of a client's files", f"(umask 022; mkdir -p {places})")


def tell_command(client: str, after_change: str | None) -> Command:
    """Run the inventory's `after_change`, and take the note away when it ended well."""
    mark = quote(str(PENDING / client))
    run = f"( {after_change}\n) </dev/null 1>&2" if after_change else ":"
    return Command(f"tell {client}", f"{run}\nrm -f {mark}")
