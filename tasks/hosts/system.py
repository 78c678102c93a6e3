"""What a machine is: system, addresses, ports, disk, accounts, installed programs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import quote
from typing import TYPE_CHECKING

from tasks.hosts.batch import Command, Result
from tasks.hosts.files import CHANGED, UNCHANGED
from tasks.hosts.retirement import IGNORED
from tasks.hosts.services import GROUPS
from tasks.hosts.sessions import ACTIVATE
from tasks.model.observation import DataDirectory, Directory, Listener, Places, Program

if TYPE_CHECKING:
    from collections.abc import Iterable

TOOLS = (
    *("openssl", "flock", "systemctl", "systemd-analyze", "journalctl", "useradd"),
    *("groupadd", "sha256sum", "timeout", "mktemp", "install", "ip", "ss"),
)
FSYNC_WRITES = 50


@dataclass(frozen=True, slots=True)
class System:
    """What `system_command` tells."""

    hostname: str
    operating_system: str
    architecture: str
    systemd_version: int | None
    missing_tools: tuple[str, ...]


def system_command() -> Command:
    """Tell what system this is, and which of the tools that the runbooks use are missing."""
    script = f"""
echo "hostname=$(cat /proc/sys/kernel/hostname)"
( . /etc/os-release 2>/dev/null; echo "os=${{PRETTY_NAME:-unknown}}" )
echo "architecture=$(uname -m)"
echo "init=$(cat /proc/1/comm)"
systemctl --version 2>/dev/null | sed -n '1s/^systemd \\([0-9]*\\).*/systemd=\\1/p'
for tool in {" ".join(TOOLS)}; do command -v "$tool" >/dev/null || echo "missing=$tool"; done
for tool in {" ".join(ACTIVATE)}; do ! command -v "$tool" >/dev/null || exit 0; done
echo "missing={ACTIVATE[0]}"
"""
    return Command("describe the system", script.strip())


def parse_system(result: Result) -> System:
    """Read the answer of `system_command`; systemd has no version where it is not PID 1."""
    pairs = [line.split("=", 1) for line in result.stdout.splitlines() if "=" in line]
    values = {key: value for key, value in pairs if key != "missing"}
    version = values.get("systemd")
    return System(
        values["hostname"],
        values["os"],
        values["architecture"],
        int(version) if version and values["init"] == "systemd" else None,
        tuple(value for key, value in pairs if key == "missing"),
    )


def addresses_command() -> Command:
    """Tell the default route's interface and all global addresses."""
    script = (
        "ip -o route show default | head -n 1\nip -o -6 route show default | head -n 1\n"
        "ip -o addr show scope global"
    )
    return Command("addresses", script)


def parse_addresses(result: Result) -> tuple[str | None, tuple[str, ...]]:
    """Read the default route's address, as the procedures detect it, and all addresses.

    The first address of the default route's interface, IPv4 before IPv6; None without a route.
    """
    interfaces, addresses = [], []
    for line in result.stdout.splitlines():
        words = line.split()
        if words[:1] == ["default"] and "dev" in words:
            interfaces.append(words[words.index("dev") + 1])
        elif len(words) > 3 and words[2] in {"inet", "inet6"}:  # noqa: PLR2004 - ip's columns
            addresses.append((words[1], words[3].split("/")[0]))
    on_route = [address for dev, address in addresses if dev in interfaces[:1]]
    return (on_route[0] if on_route else None, tuple(address for _, address in addresses))


def sources_command(addresses: Iterable[str]) -> Command:
    """Tell from which address of its own the host reaches each of others."""
    names = " ".join(map(quote, addresses))
    return Command("own addresses", f'for a in {names}; do echo "$a $(ip -o route get $a)"; done')


def parse_sources(result: Result) -> dict[str, str]:
    """Read the answer of `sources_command`; where there is no way, there is no address."""
    return dict(re.findall(r"^(\S+) .* src (\S+)", result.stdout, re.MULTILINE))


def listeners_command(own: str) -> Command:
    """Tell which TCP ports are listened on, by whom, and the control groups of those.

    `own` is the shell that puts the member's control group into a variable of this name.
    """
    script = f"""
{GROUPS}{{ {own}
}} 2>/dev/null || own=
said=$(ss -ltnp | sed 1d)
[ -z "$own" ] || printf 'own\\t%s\\n' "${{outer%/}}$own"
for pid in $(sed 's/pid=/\\n&/g' <<< "$said" | sed -n 's/^pid=\\([0-9]*\\).*/\\1/p' | sort -u); do
  printf 'group\\t%s\\t%s\\n' "$pid" "$(group_of "$pid")"
done
echo "$said"
"""
    return Command("listening ports", script.strip())


def parse_listeners(result: Result) -> tuple[Listener, ...]:
    """Read the answer of `listeners_command`."""
    found, groups, own = [], {}, None
    for line in result.stdout.splitlines():
        kind, *rest = line.split("\t")
        if kind == "own":
            own = rest[0]
        elif kind == "group":
            groups[rest[0]] = rest[1]
        elif line.strip():
            words = line.split()
            address, port = words[3].rsplit(":", 1)
            holder = re.search(r'users:\(\("([^"]+)",pid=(\d+)', line)
            program, pid = holder.groups() if holder else ("?", "")
            group = groups.get(pid, "")
            is_own = own is not None and f"{group}/".startswith(f"{own}/")
            unit = _unit_of(group)
            found.append(Listener(int(port), program, address.strip("[]"), unit, is_own))
    return tuple(found)


def _unit_of(group: str) -> str:
    """Say what a process belongs to, by its control group."""
    if "/kubepods" in group:
        return "a Kubernetes pod"
    parts = [part for part in group.split("/") if part.endswith((".service", ".scope"))]
    return parts[-1] if parts else ""


def disk_command(path: PurePosixPath) -> Command:
    """Tell the free bytes of the disk under `path`, and the mean time of a synchronous write.

    Writes and removes one file of 2300 bytes a write beside where the data will be, as etcd's
    hardware page does with fio (https://etcd.io/docs/v3.5/op-guide/hardware/).
    """
    script = f"""
directory=$(readlink -m {quote(str(path))})
while [ ! -d "$directory" ]; do directory=$(dirname "$directory"); done
df --output=avail -B1 "$directory" | tail -n 1
file=$(mktemp "$directory/.etcd-runbooks-fsync.XXXXXX") || exit 0
trap 'rm -f "$file"' EXIT
began=$(date +%s.%N)
dd if=/dev/zero of="$file" bs=2300 count={FSYNC_WRITES} oflag=dsync status=none || exit 0
echo "$began $(date +%s.%N)"
"""
    return Command(f"disk of {path}", script.strip())


def parse_disk(result: Result) -> tuple[int, float | None]:
    """Read free bytes and seconds a write; None when the disk took no write."""
    lines = result.stdout.split("\n")
    words = lines[1].split() if len(lines) > 1 else []
    try:
        began, ended = map(float, words)
    except ValueError:
        return int(lines[0]), None
    return int(lines[0]), (ended - began) / FSYNC_WRITES


def resolve_command(names: tuple[str, ...]) -> Command:
    """Tell the addresses that this host finds for each name."""
    listed = " ".join(map(quote, names))
    script = (
        f"for name in {listed or ':'}; do\n"
        '  echo "$name $(timeout 3 getent ahosts "$name" | cut -d" " -f1 | sort -u | tr "\\n" " ")"'
        " || :\ndone"
    )
    return Command("resolve names", script)


def parse_resolved(result: Result) -> dict[str, tuple[str, ...]]:
    """Read the addresses of each name; none when it does not resolve."""
    rows = [line.split() for line in result.stdout.splitlines() if line.strip()]
    return {row[0]: tuple(row[1:]) for row in rows}


def programs_command(directory: PurePosixPath, names: Iterable[str]) -> Command:
    """Tell the SHA-256 and version of etcd's programs in a directory."""
    script = f"cd {quote(str(directory))} 2>/dev/null || exit 0\n" + "\n".join(
        f'[ -x {name} ] && echo "{name} $(sha256sum < {name} | cut -c-64) '
        f'$(./{name} {_version_word(name)} 2>&1 | head -n 1)" || :'
        for name in names
    )
    return Command(f"programs in {directory}", script)


def _version_word(name: str) -> str:
    return "--version" if name == "etcd" else "version"


def parse_programs(result: Result) -> tuple[Program, ...]:
    """Read the answer of `programs_command`; one that won't run has no version."""
    found = []
    for line in result.stdout.splitlines():
        name, digest, *rest = line.split(" ", 2)
        version = re.search(r"\b(\d+\.\d+\.\d+)\b", rest[0]) if rest else None
        found.append(Program(name, digest, version.group(1) if version else None))
    return tuple(found)


def account_command(name: str) -> Command:
    """Tell a system account's uid and group."""
    return Command(
        f"account {name}", f"id -u {quote(name)} 2>/dev/null && id -gn {quote(name)} || :"
    )


def parse_account(result: Result) -> tuple[int | None, str | None]:
    """Read uid and group; None when there is no such account."""
    lines = result.stdout.splitlines()
    return (int(lines[0]), lines[1]) if len(lines) > 1 else (None, None)


def make_account_command(name: str, home: PurePosixPath) -> Command:
    """Make a system account without a login, with a group of its own name.

    One that is there keeps its primary group, whichever that is.
    """
    script = f"""
made={UNCHANGED}
if ! getent group {quote(name)} >/dev/null; then groupadd --system {quote(name)}; made={CHANGED}; fi
if ! id -u {quote(name)} >/dev/null 2>&1; then
  useradd --system --gid {quote(name)} --home-dir {quote(str(home))} --no-create-home \
    --shell /usr/sbin/nologin {quote(name)}
  made={CHANGED}
fi
echo $made
""".strip()
    return Command(f"make account {name}", script)


def places_command(paths: Iterable[str], accounts: Iterable[str]) -> Command:
    """Tell which paths are there, with mode and owner, and which accounts and groups."""
    script = f"""
for path in {" ".join(map(quote, paths))}; do
  [ ! -e "$path" ] || stat -L --printf 'place\\t%n\\t0%a\\t%U\\t%G\\n' "$path"
done
for name in {" ".join(map(quote, accounts))}; do
  if getent passwd "$name"; then printf 'account\\t%s\\n' "$name" >&3; fi
  if getent group "$name"; then printf 'group\\t%s\\n' "$name" >&3; fi
done 3>&1 > /dev/null
"""
    return Command("see what is there", script.strip())


def parse_places(result: Result) -> Places:
    """Read the answer of `places_command`."""
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    return Places(
        {row[1]: Directory(*row[1:]) for row in rows if row[0] == "place"},
        frozenset(row[1] for row in rows if row[0] == "account"),
        frozenset(row[1] for row in rows if row[0] == "group"),
    )


def data_directory_command(
    state: PurePosixPath, data: PurePosixPath, wal: PurePosixPath | None = None
) -> Command:
    """Tell what the data directory holds, and mode and owner of its parent.

    `wal` is the write-ahead log's directory, where it is not in the data.
    """
    script = f"""
data={quote(str(data))}; wal={quote(str(wal or data / "member/wal"))}
stat -L -c '0%a %U %G' {quote(str(state))} 2>/dev/null || echo missing
if ls "$wal"/*.wal >/dev/null 2>&1; then echo {DataDirectory.INITIALISED}
elif [ ! -d "$data" ]; then echo {DataDirectory.MISSING}
elif [ -z "$(ls -A {IGNORED} "$data/")" ]; then echo {DataDirectory.EMPTY}
else echo {DataDirectory.LEFTOVERS}; fi
"""
    return Command(f"state of {data}", script.strip())


def parse_data_directory(result: Result) -> tuple[str | None, DataDirectory]:
    """Read the state directory's mode and owner, and what the data directory holds."""
    mode, data = result.stdout.splitlines()
    return (None if mode == "missing" else mode), DataDirectory(data)
