"""Taking a member's data and connections out of the way on its host."""

from __future__ import annotations

from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command
from tasks.hosts.files import CHANGED, UNCHANGED

ASIDE = "etcd-runbooks-"
"""How the name of a directory begins that was set aside within a mount point; a dot before it is
a probe's file."""
IGNORED = f"--ignore=lost+found --ignore='{ASIDE}*' --ignore='.{ASIDE}*'"
"""For ls: what is no data of a member's; an ext4 of its own has lost+found."""


def drop_connections_command(address: str, port: int) -> Command:
    """End the TCP connections between a port, here or there, and a host that is dead.

    Where the kernel cannot (CONFIG_INET_DIAG_DESTROY), nothing is changed and nothing fails.
    """
    chosen = f"'( sport = :{port} or dport = :{port} )' dst {quote(_literal(address))}"
    script = (
        f"count() {{ {{ ss -tn state established {chosen} 2>/dev/null || :; }} | sed 1d | wc -l; }}"
        "\n"
        f"before=$(count)\nss -Ktn {chosen} >/dev/null 2>&1 || :\n"
        f'[ "$(count)" -lt "$before" ] && echo {CHANGED} || echo {UNCHANGED}'
    )
    return Command(f"end the connections to {address}", script)


def _literal(address: str) -> str:
    """Write an address as ss reads it: of a bare IPv6 one it takes the end for a port."""
    return f"[{address}]" if ":" in address else address


def set_aside_command(
    directory: PurePosixPath, mark: str, *, leaves_empty: bool = False
) -> Command:
    """Rename a directory that holds anything to a name with `mark`; nothing is deleted.

    `leaves_empty`: an empty one takes its place, with its mode and owner. A mount point cannot be
    renamed: what it holds goes into a directory within it, which etcd passes over. A link stays,
    and leads to an empty directory then.
    """
    named = quote(str(directory))
    script = f"""
source=$(readlink -m {named})
[ -d "$source" ] && [ -n "$(ls -A {IGNORED} "$source")" ] || {{ echo {UNCHANGED}; exit 0; }}
if mountpoint -q "$source"; then
  inside=$source/{ASIDE}{quote(mark)}
  mkdir -p -m 0700 "$inside"
  find "$source" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name '{ASIDE}*' \
    -exec mv -t "$inside" --no-clobber {{}} +
  [ -z "$(ls -A {IGNORED} "$source")" ] || {{
    echo "not all of $source could be moved" >&2; exit 1; }}
else
  aside=$source.{quote(mark)}
  mv -T --no-clobber "$source" "$aside"
  [ ! -e "$source" ] || {{ echo "$source could not be renamed" >&2; exit 1; }}
  if {"true" if leaves_empty else f"[ -L {named} ]"}; then
    mkdir "$source"; chown --reference="$aside" "$source"; chmod --reference="$aside" "$source"
  fi
fi
sync "${{source%/*}}/"
echo {CHANGED}
"""
    return Command(f"set {directory} aside", script.strip())
