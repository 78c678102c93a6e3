"""What runs under a unit, and what it would start next; looks only, starts nothing but --version.

A running program's version is asked of /proc/PID/exe, so it is known also where the file was
replaced or deleted.
"""

from __future__ import annotations

import base64
import re
import shlex
from dataclasses import dataclass
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.model.restarts import RunningEtcd

PROPERTIES = (
    "MainPID,UnitFileState,NeedDaemonReload,LoadState,ExecStart,Environment,EnvironmentFiles"
)
VERSION = re.compile(r"\b(\d+\.\d+\.\d+)\b")
ENVIRONMENT_FILES = ("EnvironmentFiles", "EnvironmentFile")
"""What systemd calls this property; the latter before 240."""
_FILE = re.compile(r"(/.*) \(ignore_errors=(yes|no)\)")

LOOK = r"""
systemctl show {unit} -p {properties}
pid=$(systemctl show {unit} -p MainPID | cut -d= -f2-)
# NeedDaemonReload does not see the first drop-in of a unit: systemd remembers the directories.
loaded=" $(systemctl show {unit} -p DropInPaths | cut -d= -f2-) "
for file in /{{etc,run,usr/local/lib,usr/lib,lib}}/systemd/system/{unit}.d/*.conf; do
  [ ! -e "$file" ] || case "$loaded" in
    *"/${{file##*/}} "*) ;;
    *) echo "unread=$file" ;;
  esac
done
one() {{ printf '%s=' "$1"; base64 -w0; echo; }}
version() {{ timeout 10 "$1" --version 2>/dev/null | head -n 1 | one "$2" || :; }}
if [ "${{pid:-0}}" != 0 ] && [ -r "/proc/$pid/exe" ]; then
  one cmdline < "/proc/$pid/cmdline"
  {{ grep -z '^ETCD_' "/proc/$pid/environ" || :; }} | one environ
  echo "exe=$(readlink "/proc/$pid/exe")"
  echo "inode=$(stat -L -c %d:%i "/proc/$pid/exe")"
  version "/proc/$pid/exe" running
fi
program=$(systemctl show {unit} -p ExecStart | sed -n '1s/^ExecStart={{ path=\([^ ;]*\) ;.*/\1/p')
if [ -f "$program" ]; then
  echo "disk-inode=$(stat -L -c %d:%i "$program")"
  [ -x "$program" ] && version "$program" disk
fi
"""


@dataclass(frozen=True, slots=True)
class NextCommand:
    """What runs, and the command that would be started next, as it is loaded; no file is read.

    `variables` are those of the command's own, `files` the EnvironmentFiles in their order, with
    whether they must be there.
    """

    unit_file_state: str
    needs_daemon_reload: bool
    running: RunningEtcd | None
    program: str
    version: str | None
    arguments: tuple[str, ...]
    variables: dict[str, str]
    files: dict[str, bool]


def next_command(unit: str) -> Command:
    """Tell a unit's process and what would be started in its place."""
    script = LOOK.format(unit=quote(unit), properties=PROPERTIES).strip()
    return Command(f"what {unit} runs and would start", script)


def parse_next(result: Result) -> NextCommand | None:
    """Read the answer of `next_command`; None when systemd knows no such unit."""
    pairs = [line.split("=", 1) for line in result.stdout.splitlines() if "=" in line]
    values = dict(pairs)
    # A masked unit has LoadState masked and no ExecStart, also while its process runs.
    if values.get("LoadState") in {None, "not-found"}:
        return None
    started = (
        re.match(r"\{ path=(\S+) ; argv\[\]=(.*?) ; ignore_errors=", values["ExecStart"] or "")
        if "ExecStart" in values
        else None
    )
    files = [_FILE.fullmatch(value) for key, value in pairs if key in ENVIRONMENT_FILES]
    return NextCommand(
        values.get("UnitFileState", ""),
        values.get("NeedDaemonReload") == "yes" or "unread" in values,
        _parse_running(values),
        started[1] if started else "",
        _version(values.get("disk")),
        tuple(started[2].split()[1:]) if started else (),
        _variables(shlex.split(values.get("Environment", ""))),
        {found[1]: found[2] == "no" for found in files if found},
    )


def _parse_running(values: dict[str, str]) -> RunningEtcd | None:
    if "exe" not in values:
        return None
    program = values["exe"]
    is_deleted = program.endswith(" (deleted)")
    on_disk = values.get("disk-inode")
    return RunningEtcd(
        program.removesuffix(" (deleted)"),
        _version(values.get("running")),
        tuple(_decode(values.get("cmdline", "")).split("\0")[1:-1]),
        _variables(_decode(values.get("environ", "")).split("\0")),
        is_replaced=on_disk is not None and on_disk != values.get("inode"),
        is_deleted=is_deleted and on_disk is None,
    )


def _variables(assignments: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in assignments if text.startswith("ETCD_")]
    return {name: value for name, sign, value in pairs if sign}


def _version(encoded: str | None) -> str | None:
    found = VERSION.search(_decode(encoded or ""))
    return found[1] if found else None


def _decode(text: str) -> str:
    return base64.b64decode(text).decode(errors="replace")
