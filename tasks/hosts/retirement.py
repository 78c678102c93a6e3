"""Taking a member's service and data out of the way on its host."""

from __future__ import annotations

from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command
from tasks.hosts.files import CHANGED, UNCHANGED


def retire_service_command(unit: str) -> Command:
    """Stop a unit and keep it from starting again, also after a reboot."""
    name = quote(unit)
    script = (
        f'[ "$(systemctl show {name} -p LoadState --value)" = loaded ] || '
        f"{{ echo {UNCHANGED}; exit 0; }}\n"
        f"changed={UNCHANGED}\n"
        f"if systemctl is-enabled --quiet {name}; then systemctl disable --quiet {name}; "
        f"changed={CHANGED}; fi\n"
        f'case "$(systemctl show {name} -p ActiveState --value)" in\n'
        f"  inactive|failed) ;;\n  *) systemctl stop {name}; changed={CHANGED} ;;\nesac\n"
        f"systemctl reset-failed {name} 2>/dev/null || :\necho $changed"
    )
    return Command(f"stop and disable {unit}", script)


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
