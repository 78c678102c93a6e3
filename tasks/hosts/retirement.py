"""Taking a member's data and connections out of the way on its host."""

from __future__ import annotations

from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command
from tasks.hosts.files import CHANGED, UNCHANGED

ASIDE = "etcd-runbooks-"
"""How the name of a directory begins that was set aside within a mount point."""
IGNORED = f"--ignore=lost+found --ignore='{ASIDE}*'"
"""For ls: what is no data of a member's; an ext4 of its own has lost+found."""


def drop_connections_command(address: str, port: int) -> Command:
    """End the TCP connections between a port, here or there, and a host that is dead.

    Where the kernel cannot (CONFIG_INET_DIAG_DESTROY), nothing is changed and nothing fails.
    """
    chosen = f"'( sport = :{port} or dport = :{port} )' dst {quote(address)}"
    script = (
        f"count() {{ ss -tn state established {chosen} | sed 1d | wc -l; }}\n"
        f"before=$(count)\nss -Ktn {chosen} >/dev/null 2>&1 || :\n"
        f'[ "$(count)" -lt "$before" ] && echo {CHANGED} || echo {UNCHANGED}'
    )
    return Command(f"end the connections to {address}", script)


def set_aside_command(
    directory: PurePosixPath, mark: str, *, leaves_empty: bool = False
) -> Command:
    """Rename a directory that holds anything to a name with `mark`; nothing is deleted.

    `leaves_empty`: an empty one takes its place, with its mode and owner. A mount point cannot be
    renamed: what it holds goes into a directory within it, which etcd passes over.
    """
    source, aside = quote(str(directory)), quote(f"{directory}.{mark}")
    again = (
        f"mkdir {source}; chown --reference={aside} {source}; chmod --reference={aside} {source}"
        if leaves_empty
        else f'[ ! -e {source} ] || {{ echo "{directory} could not be renamed" >&2; exit 1; }}'
    )
    script = f"""
[ -d {source} ] && [ -n "$(ls -A {IGNORED} {source})" ] || {{ echo {UNCHANGED}; exit 0; }}
if mountpoint -q {source}; then
  inside={source}/{ASIDE}{quote(mark)}
  mkdir -p -m 0700 "$inside"
  find {source} -mindepth 1 -maxdepth 1 ! -name lost+found ! -name '{ASIDE}*' \
    -exec mv -t "$inside" --no-clobber {{}} +
else
  mv -T --no-clobber {source} {aside}
  {again}
fi
sync {quote(str(directory.parent))}
echo {CHANGED}
"""
    return Command(f"set {directory} aside", script.strip())
