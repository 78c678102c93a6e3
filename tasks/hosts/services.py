"""systemd units on a host: seeing and starting them, and what they logged."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.hosts.files import CHANGED, UNCHANGED
from tasks.model.observation import ServiceState, ServiceStatus

# capnslog of 3.4 ("C | etcdmain: ..."), Go's own end, and refused flags and variables.
_PLAIN_FATAL = re.compile(
    r" [CE] \| |^panic: |^error verifying flags|conflicting environment|shadowed"
)

WAIT_SECONDS = 120

VERIFY_UNIT = """
checked=$(mktemp -d); trap 'rm -rf "$new" "$checked"' EXIT
cp "$new" "$checked/{unit}"
systemd-analyze verify --man=no "$checked/{unit}" || {{
  echo "the unit was refused by systemd-analyze verify" >&2; exit 1; }}
"""

GROUPS = r"""
group_of() { sed -n 's/^[0-9]*:name=systemd://p; s/^0:://p' "/proc/$1/cgroup" 2>/dev/null |
  awk 'length > length(found) { found = $0 } END { print found }' || :; }
outer=$(group_of 1)
outer=${outer%/init.scope}
""".lstrip()
"""Shell: `group_of PID` tells a process's control group, below `outer` where /proc shows more."""


def verify_unit(unit: str) -> str:
    """Write the shell that lets systemd-analyze check "$new" under the unit's own name."""
    return VERIFY_UNIT.format(unit=unit).strip()


def verify_edited_unit(unit: str, path: PurePosixPath) -> str:
    """Write the same for an edit of a unit at `path`; one that was refused before may be again."""
    return (
        f"if systemd-analyze verify --man=no {quote(str(path))} > /dev/null 2>&1; then\n"
        f"{verify_unit(unit)}\nfi"
    )


def service_status_command(unit: str) -> Command:
    """Tell a unit's state, also when it does not exist."""
    properties = "LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload"
    return Command(f"status of {unit}", f"systemctl show {quote(unit)} -p {properties}")


def parse_service_status(result: Result) -> ServiceStatus | None:
    """Read the answer of `service_status_command`; None when systemd knows no such unit."""
    values = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    if values.get("LoadState") in {None, "not-found"}:
        return None
    return ServiceStatus(
        ServiceState(values["ActiveState"]),
        values.get("UnitFileState") == "enabled",
        values.get("NeedDaemonReload") == "yes",
        values.get("SubState", ""),
        "masked" in values.get("UnitFileState", ""),
    )


def daemon_reload_command(unit: str) -> Command:
    """Let systemd read the units again, if this one changed on disk."""
    script = (
        f"seen=$(systemctl show {quote(unit)} -p NeedDaemonReload -p LoadState | sort | xargs)\n"
        '[ "$seen" = "LoadState=loaded NeedDaemonReload=no" ] && '
        f"{{ echo {UNCHANGED}; exit 0; }}\nsystemctl daemon-reload\necho {CHANGED}"
    )
    return Command("reload systemd's units", script)


def start_service_command(unit: str) -> Command:
    """Enable a unit and start it without waiting; Type=notify is only ready with quorum."""
    name = quote(unit)
    script = (
        f"changed={UNCHANGED}\n"
        f"systemctl is-enabled --quiet {name} || {{ systemctl enable --quiet {name}; "
        f"changed={CHANGED}; }}\n"
        f"systemctl is-active --quiet {name} || {{ systemctl reset-failed {name} || :; "
        f"systemctl start --no-block {name}; changed={CHANGED}; }}\n"
        "echo $changed"
    )
    return Command(f"enable and start {unit}", script)


def journal_tail_command(unit: str, lines: int = 20) -> Command:
    """Tell the last lines that a unit logged, and how its main process ended."""
    script = (
        f"systemctl show {quote(unit)} -p ActiveState -p SubState -p ExecMainStatus | xargs\n"
        f"journalctl --no-pager --output=cat --lines={lines} --unit={quote(unit)}"
    )
    return Command(f"last journal lines of {unit}", script)


def last_words_command(unit: str) -> Command:
    """Tell what a unit logged during its last start, without systemd's own lines."""
    script = (
        f"started=$(systemctl show {quote(unit)} -p InvocationID --value)\n"
        '[ -n "$started" ] || exit 0\n'
        "journalctl --no-pager --output=cat --lines=200 "
        '_SYSTEMD_INVOCATION_ID="$started"'
    )
    return Command(f"last words of {unit}", script)


def parse_last_words(result: Result) -> str:
    """Read the line for which etcd ended: the last fatal one, or else the last that it logged."""
    last = fatal = ""
    for line in result.stdout.splitlines():
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            level, text = entry["level"], entry["msg"]
            if "error" in entry:
                text += f": {entry['error']}"
        except (ValueError, KeyError, TypeError):
            level = "fatal" if _PLAIN_FATAL.search(line) else "info"
            text = line.strip()
        last = text
        if level in {"fatal", "panic", "error"} or "failed to" in text:
            fatal = text
    return fatal or last


def restart_service_command(unit: str, *, wait: bool = True) -> Command:
    """Restart a unit; `wait` until it says that it is ready, which etcd does with a quorum.

    The wait has an end, with status 124: one whom the others let in no more waits for ever.
    """
    name = quote(unit)
    restart = (
        f"timeout {WAIT_SECONDS} systemctl restart" if wait else "systemctl restart --no-block"
    )
    return Command(f"restart {unit}", f"systemctl reset-failed {name} || :\n{restart} {name}")
