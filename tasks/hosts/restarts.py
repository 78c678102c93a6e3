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

LOOK = r"""
systemctl show {unit} -p {properties}
pid=$(systemctl show {unit} -p MainPID --value)
# NeedDaemonReload does not see the first drop-in of a unit: systemd remembers the directories.
loaded=" $(systemctl show {unit} -p DropInPaths --value) "
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
program=$(systemctl show {unit} -p ExecStart --value | sed -n '1s/^{{ path=\([^ ;]*\) ;.*/\1/p')
if [ -f "$program" ]; then
  echo "disk-inode=$(stat -L -c %d:%i "$program")"
  [ -x "$program" ] && version "$program" disk
fi
settings=$(systemctl show {unit} -p ExecStart --value |
  sed -nE '1s/.* --?config-file[= ](\/[^ ;$]+) .*/\1/p')
if [ -r "$settings" ]; then
  echo "settings-file=$settings"
  one settings < "$settings"
elif [ -n "$settings" ]; then
  echo "absent=$settings"
fi
systemctl show {unit} -p EnvironmentFiles --value |
  sed -n 's/^\(\/.*\) (ignore_errors=.*)$/\1/p' | while read -r file; do
  [ -r "$file" ] || continue
  echo "file=$file"
  one text < "$file"
  sed -nE "s/^ETCD_([A-Z_]+_FILE|DATA_DIR)=[\"']?([^\"']*)[\"']?[[:space:]]*$/\2/p" "$file" |
    while read -r path; do
      [ -z "$path" ] || [ -e "$path" ] || echo "absent=$path"
    done
done
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What `next_start_command` told; `files` are the EnvironmentFiles' texts, in order.

    `variables` are the unit's own `Environment=`; `required` the files that must be there;
    `settings_file` the path and text of what `--config-file` names.
    """

    unit_file_state: str
    needs_daemon_reload: bool
    running: RunningEtcd | None
    program: str
    version: str | None
    arguments: tuple[str, ...]
    variables: dict[str, str]
    required: tuple[str, ...]
    files: dict[str, str]
    absent: tuple[str, ...]
    settings_file: tuple[str, str] | None


def next_start_command(unit: str) -> Command:
    """Tell a unit's process and what would be started in its place."""
    script = LOOK.format(unit=quote(unit), properties=PROPERTIES).strip()
    return Command(f"what {unit} runs and would start", script)


def parse_next_start(result: Result) -> Seen | None:
    """Read the answer of `next_start_command`; None when systemd knows no such unit."""
    pairs = [line.split("=", 1) for line in result.stdout.splitlines() if "=" in line]
    values = {key: value for key, value in pairs if key not in {"file", "text", "absent"}}
    # A masked unit has LoadState masked and no ExecStart, also while its process runs.
    if values.get("LoadState") in {None, "not-found"}:
        return None
    started = (
        re.match(r"\{ path=(\S+) ; argv\[\]=(.*?) ; ignore_errors=", values["ExecStart"] or "")
        if "ExecStart" in values
        else None
    )
    files, name = {}, ""
    for key, value in pairs:
        if key == "file":
            name = value
        elif key == "text":
            files[name] = _decode(value)
    return Seen(
        values.get("UnitFileState", ""),
        values.get("NeedDaemonReload") == "yes" or "unread" in values,
        _parse_running(values),
        started[1] if started else "",
        _version(values.get("disk")),
        tuple(started[2].split()[1:]) if started else (),
        _variables(shlex.split(values.get("Environment", ""))),
        tuple(
            value.removesuffix(" (ignore_errors=no)")
            for key, value in pairs
            if key == "EnvironmentFiles" and value.endswith("(ignore_errors=no)")
        ),
        files,
        tuple(value for key, value in pairs if key == "absent"),
        (values["settings-file"], _decode(values["settings"])) if "settings" in values else None,
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
