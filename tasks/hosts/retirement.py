"""Taking a member's data and connections out of the way on its host."""

from __future__ import annotations

from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command
from tasks.hosts.files import CHANGED, UNCHANGED


def drop_connections_command(address: str, port: int) -> Command:
    """End the TCP connections between a port, here or there, and a host that is dead.

    Where the kernel cannot (CONFIG_INET_DIAG_DESTROY), nothing is changed and nothing fails.
    """
    chosen = f"'( sport = :{port} or dport = :{port} )' dst {quote(address)}"
    script = (
        f"count() {{ ss -Htn state established {chosen} | wc -l; }}\n"
        f"before=$(count)\nss -KHtn {chosen} >/dev/null 2>&1 || :\n"
        f'[ "$(count)" -lt "$before" ] && echo {CHANGED} || echo {UNCHANGED}'
    )
    return Command(f"end the connections to {address}", script)


def set_aside_command(directory: PurePosixPath, mark: str) -> Command:
    """Rename a directory that holds anything to a name with `mark`; nothing is deleted.

    Fails where the directory is a mount point, since what it holds then stays in place.
    """
    source, aside = quote(str(directory)), quote(f"{directory}.{mark}")
    script = (
        f'[ -d {source} ] && [ -n "$(ls -A {source})" ] || {{ echo {UNCHANGED}; exit 0; }}\n'
        f"mv -T --no-clobber {source} {aside}\n"
        f'[ ! -e {source} ] || {{ echo "{directory} could not be renamed" >&2; exit 1; }}\n'
        f"sync {quote(str(directory.parent))}\necho {CHANGED}"
    )
    return Command(f"set {directory} aside", script)
