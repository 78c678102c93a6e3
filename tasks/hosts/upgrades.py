"""What an upgrade sees and does on a host: remnants in the log, programs beside and in place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.hosts.files import CHANGED, UNCHANGED, keep_aside, relabel
from tasks.hosts.restarts import VERSION
from tasks.model.upgrades import FORCED, LogRemnants

SNAPSHOT_SECONDS = 20

LOG = r"""
data={data}; log={log}
# Entries of the v2 store: an id, the method (field 2) and the path (field 3). /0 is etcd's own.
methods=$'\x12(\x04QGET|\x04POST|\x04SYNC|\x06DELETE)\x1a|\x12\x03PUT\x1a..?/[0-9]'
LC_ALL=C grep -zaohE "$methods" "$log"/*.wal 2>/dev/null |
  tr '\n\0' '.\n' | LC_ALL=C awk '/PUT/ {{ if (/\/0$/) own++; else writes++; next }} {{ entries++ }}
    END {{ printf "entries=%d\nwrites=%d\nown=%d\n", entries, writes, own }}' || :
newest=$(ls "$data/member/snap"/*.snap 2>/dev/null | sort | tail -n 1) || newest=
if [ -n "$newest" ] && grep -qaE '"Path":"/[1-9]/' "$newest"; then echo keys=yes; fi
# What stands before the last of them has its index, and the name of a snapshot has its own.
last=
for file in "$log"/*.wal; do
  at=$(LC_ALL=C grep -zaobE "$methods" "$file" 2>/dev/null | LC_ALL=C tr -c '0-9:\0' . |
    tr '\0' '\n' | tail -n 1) || at=
  [ -z "$at" ] || {{ last=$file; offset=${{at%%:*}}; }}
done
if [ -n "$last" ] && [ -n "$newest" ]; then
  newest=${{newest##*-}}
  echo "saved=${{newest%.snap}}"
  echo "before=$(head -c "$offset" "$last" | tail -c {bytes} | od -An -v -tx1 | tr -d ' \n')"
fi
"""

BEFORE_BYTES = 64
_NUMBER = rb"[\x80-\xff]*[\x00-\x7f]"
_INDEX = re.compile(
    rb"\x08\x00\x10" + _NUMBER + rb"\x18(" + _NUMBER + rb")\x22" + _NUMBER + rb".{1,16}$", re.DOTALL
)
"""An entry of raft's: its type, term, index and data; of a request the data begin with its id."""


@dataclass(frozen=True, slots=True)
class ProgramSight:
    """What `program_command` tells of a host and of the program that its unit starts."""

    real: PurePosixPath
    architecture: str
    owner: str
    free: int
    data_free: int
    kept: tuple[str, ...]
    staged: tuple[str, ...]


def log_command(data: PurePosixPath, wal: PurePosixPath | None) -> Command:
    """Tell what of the v2 store is in a member's log, and in its newest snapshot."""
    log = quote(str(wal or data / "member/wal"))
    return Command(
        "look for v2 entries",
        LOG.format(data=quote(str(data)), log=log, bytes=BEFORE_BYTES).strip(),
    )


def parse_log(result: Result) -> LogRemnants:
    """Read the answer of `log_command`."""
    values = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    writes = int(values.get("writes", "0"))
    entries, own = int(values.get("entries", "0")) + writes, int(values.get("own", "0"))
    last = _read_index(bytes.fromhex(values.get("before", "")))
    is_saved = last is not None and last <= int(values.get("saved", "0"), 16)
    return LogRemnants(entries, writes, "keys" in values, own, is_saved)


def _read_index(before: bytes) -> int | None:
    """Read the index of the entry whose request begins in these bytes; None where there is none."""
    found = _INDEX.search(before)
    if found is None:
        return None
    number: bytes = found[1]
    return sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(number))


def removed_command(data: PurePosixPath, ids: tuple[str, ...]) -> Command:
    """Tell which of the members a member's data note as removed; 3.6 turns those away.

    bbolt has a key and its value side by side: the id, and the word.
    """
    patterns = " ".join(f"-e {quote(f'{number}removed')}" for number in ids)
    database = quote(str(data / "member/snap/db"))
    return Command(
        "look for members noted as removed",
        f"LC_ALL=C grep -aoF {patterns} {database} | sort -u || :",
    )


def parse_removed(result: Result) -> tuple[str, ...]:
    """Read the answer of `removed_command`: ids, in hexadecimal."""
    return tuple(line.removesuffix("removed") for line in result.stdout.split())


def program_command(program: str, data: PurePosixPath, wal: PurePosixPath | None) -> Command:
    """Tell where a program is in truth, whose it is, and what an upgrade has left."""
    places = " ".join(quote(str(place)) for place in (data, wal) if place)
    script = f"""
real=$(readlink -m {quote(program)})
echo "real=$real"
echo "architecture=$(uname -m)"
owner=$({{ dpkg-query -S "$real" || rpm -qf --qf 'rpm: %{{NAME}}' "$real"; }} 2>/dev/null |
  head -n 1) || owner=
case "$owner" in *"not owned"*) owner= ;; esac
echo "owner=${{owner%%:*}}"
free() {{ [ ! -d "$2" ] || df --output=avail -B1 "$2" | tail -n 1 | sed "s/^ */$1=/"; }}
free free "${{real%/*}}"
for place in {places}; do free data_free "$place"; done
if [ -d {FORCED} ]; then find {FORCED} -type f -printf 'kept=/%P\\n'; fi
for place in "${{real%/*}}"/.etcd-*; do
  if [ -d "$place" ]; then echo "staged=${{place##*/.etcd-}}"; fi
done
"""
    return Command("the program that the unit starts", script.strip())


def parse_program(result: Result) -> ProgramSight:
    """Read the answer of `program_command`."""
    pairs = [line.split("=", 1) for line in result.stdout.splitlines() if "=" in line]
    values = dict(pairs)
    return ProgramSight(
        PurePosixPath(values["real"]),
        values["architecture"],
        values.get("owner", ""),
        int(values.get("free", "0")),
        min((int(value) for key, value in pairs if key == "data_free"), default=0),
        tuple(value for key, value in pairs if key == "kept"),
        tuple(value for key, value in pairs if key == "staged"),
    )


def version_command(program: str) -> Command:
    """Tell the version of a program, if it runs."""
    return Command("version on disk", f"timeout 10 {quote(program)} --version 2>&1 || :")


def parse_version(result: Result) -> str | None:
    """Read the answer of `version_command`."""
    found = VERSION.search(result.stdout)
    return found[1] if found else None


def exchange_programs_command(
    beside: PurePosixPath, target: PurePosixPath, backup: PurePosixPath
) -> Command:
    """Put the programs that lie beside in the place of those that are there; prints which.

    etcd itself is `target`, whatever it is called; its tools get their own names beside it. Each
    file is whole or as it was, and what runs keeps the file that it was started from.
    """
    script = f"""
directory={quote(str(beside))}
put() {{
  cmp -s "$1" "$2" && return 0
  new=$(mktemp "$2.XXXXXXXX"); cp -T "$1" "$new"; chmod 0755 "$new"
  target=$2
  if [ -e "$target" ]; then mkdir -p "{backup}${{target%/*}}"
    cp -aT --backup=numbered "$target" "{backup}$target"; fi
  sync "$new"; mv -fT "$new" "$target"; {relabel("target")}; sync "${{target%/*}}/"
  echo "$target"
}}
put "$directory/etcd" {quote(str(target))}
for program in "$directory"/{{etcdctl,etcdutl}}; do
  if [ -f "$program" ]; then put "$program" {quote(str(target.parent))}/"${{program##*/}}"; fi
done
"""
    return Command(f"put {target} in place", script.strip())


def clear_command(places: Iterable[PurePosixPath]) -> Command:
    """Remove what was put beside."""
    names = " ".join(quote(str(place)) for place in places)
    script = f"""
changed={UNCHANGED}
for place in {names}; do [ ! -d "$place" ] || {{ rm -rf "$place"; changed={CHANGED}; }}; done
echo $changed
"""
    return Command("remove the programs that were put beside", script.strip())


def keep_settings_command(paths: Iterable[PurePosixPath]) -> Command:
    """Keep settings as they are now, unless a run that died has kept older ones."""
    lines = "\n".join(
        f"[ -e {quote(f'{FORCED}{path}')} ] || {{ {keep_aside(path, FORCED)}; }}" for path in paths
    )
    return Command("keep the settings", lines)


def clear_kept_command() -> Command:
    """Remove what is left of the kept settings, which are in place again."""
    return Command("forget the kept settings", f"rm -rf {FORCED}")


def await_snapshot_command(data: PurePosixPath, index: int) -> Command:
    """Wait until the member has saved a snapshot of its log that holds an entry."""
    script = f"""
for _ in $(seq {SNAPSHOT_SECONDS * 5}); do
  newest=$(ls {quote(str(data / "member/snap"))} | sed -n 's/^[0-9a-f]*-\\(.*\\)\\.snap$/\\1/p' |
    sort | tail -n 1)
  if [[ ! "$newest" < {index:016x} ]]; then echo "$newest"; exit 0; fi
  sleep 0.2
done
echo "no snapshot of the log with entry {index} after {SNAPSHOT_SECONDS} s" >&2; exit 1
"""
    return Command("wait for a snapshot of the log", script.strip())
