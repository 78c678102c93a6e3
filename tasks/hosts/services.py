"""A systemd unit as a member's supervisor: seeing and starting it, and what it logged."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.hosts.files import CHANGED, UNCHANGED
from tasks.hosts.restarts import NextCommand, next_command, parse_next
from tasks.hosts.settings import parse_settings, settings_command
from tasks.model.member_settings import SettingsFiles
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


@dataclass(frozen=True, slots=True)
class SystemdUnit:
    """A unit by its name; commands to be run on its host, and parsers of what they answer."""

    name: str

    @property
    def keeper(self) -> str:
        """Who starts it."""
        return "systemd"

    @property
    def group(self) -> str:
        """Shell that puts the control group of the unit's processes into `own`, empty if none."""
        return f"own=$(systemctl show {quote(self.name)} -p ControlGroup | cut -d= -f2-)"

    @property
    def restart_words(self) -> str:
        """What an operator types on the host to start the member anew."""
        return f"systemctl restart {self.name}"

    def status_command(self) -> Command:
        """Tell the unit's state, also when it does not exist."""
        properties = "LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload"
        script = f"systemctl show {quote(self.name)} -p {properties}"
        return Command(f"status of {self.name}", script)

    def parse_status(self, result: Result) -> ServiceStatus | None:
        """Read the answer of `status_command`; None when systemd knows no such unit."""
        return parse_service_status(result)

    def start_command(self) -> Command:
        """Enable it and start it without waiting; Type=notify is only ready with quorum."""
        name = quote(self.name)
        script = (
            f"changed={UNCHANGED}\n"
            f"systemctl is-enabled --quiet {name} || {{ systemctl enable --quiet {name}; "
            f"changed={CHANGED}; }}\n"
            f"systemctl is-active --quiet {name} || {{ systemctl reset-failed {name} || :; "
            f"systemctl start --no-block {name}; changed={CHANGED}; }}\n"
            "echo $changed"
        )
        return Command(f"enable and start {self.name}", script)

    def stop_command(self) -> Command:
        """Stop it and keep it from starting again, also after a reboot."""
        name = quote(self.name)
        script = (
            f'[ "$(systemctl show {name} -p LoadState | cut -d= -f2-)" = loaded ] || '
            f"{{ echo {UNCHANGED}; exit 0; }}\n"
            f"changed={UNCHANGED}\n"
            f"if systemctl is-enabled --quiet {name}; then systemctl disable --quiet {name}; "
            f"changed={CHANGED}; fi\n"
            f'case "$(systemctl show {name} -p ActiveState | cut -d= -f2-)" in\n'
            f"  inactive|failed) ;;\n  *) systemctl stop {name}; changed={CHANGED} ;;\nesac\n"
            f"systemctl reset-failed {name} 2>/dev/null || :\necho $changed"
        )
        return Command(f"stop and disable {self.name}", script)

    def restart_command(self, *, wait: bool = True) -> Command:
        """Restart it; `wait` until it says that it is ready, which etcd does with a quorum.

        The wait has an end, with status 124: one whom the others let in no more waits for ever.
        """
        name = quote(self.name)
        restart = (
            f"timeout {WAIT_SECONDS} systemctl restart" if wait else "systemctl restart --no-block"
        )
        script = f"systemctl reset-failed {name} || :\n{restart} {name}"
        return Command(f"restart {self.name}", script)

    def revive_apiserver_commands(self, *, restarts: bool) -> tuple[Command, ...]:
        """Do nothing: no API server lives on this member alone."""
        del restarts
        return ()

    def restart_apiserver_commands(self) -> tuple[Command, ...]:
        """Do nothing: what lives on a unit's member is a client of the inventory's."""
        return ()

    def reload_command(self) -> Command:
        """Let systemd read the units again, if this one changed on disk."""
        script = (
            f"seen=$(systemctl show {quote(self.name)} -p NeedDaemonReload -p LoadState"
            " | sort | xargs)\n"
            '[ "$seen" = "LoadState=loaded NeedDaemonReload=no" ] && '
            f"{{ echo {UNCHANGED}; exit 0; }}\nsystemctl daemon-reload\necho {CHANGED}"
        )
        return Command("reload systemd's units", script)

    def last_lines_command(self, lines: int = 20) -> Command:
        """Tell the last lines that it logged, and how its main process ended."""
        script = (
            f"systemctl show {quote(self.name)} -p ActiveState -p SubState -p ExecMainStatus"
            " | xargs\n"
            f"journalctl --no-pager --output=cat --lines={lines} --unit={quote(self.name)}"
        )
        return Command(f"last journal lines of {self.name}", script)

    def last_words_command(self) -> Command:
        """Tell what it logged during its last start, without systemd's own lines."""
        name = quote(self.name)
        script = (
            f"started=$(systemctl show {name} -p InvocationID | cut -d= -f2-)\n"
            'started="${started:+_SYSTEMD_INVOCATION_ID=$started}"\n'
            # Before systemd 232 a start has no name of its own, but its process has a number.
            f'[ -n "$started" ] || started=$(systemctl show {name} -p ExecMainPID | '
            "sed -n 's/.*=\\([1-9]\\)/--boot _PID=\\1/p')\n"
            'words=; [ -n "$started" ] && words=$(journalctl --quiet --no-pager --output=cat '
            "--lines=200 $started)\n"
            '[ -n "$words" ] && { printf "%s\\n" "$words"; exit 0; }\n'
            # What a process says that ends at once is not always known for its start's.
            f"journalctl --quiet --no-pager --output=short-iso --lines=200 --unit={name} | "
            "awk '/ systemd\\[1\\]: Start(ing|ed) / { n = 0; next } / systemd\\[1\\]: / { next } "
            '{ sub(/^[^ ]* [^ ]* [^ ]*: /, ""); line[n++] = $0 } '
            "END { for (i = 0; i < n; i++) print line[i] }'"
        )
        return Command(f"last words of {self.name}", script)

    def next_command(self) -> Command:
        """Tell the unit's process and what would be started in its place."""
        return next_command(self.name)

    def parse_next(self, result: Result) -> NextCommand | None:
        """Read the answer of `next_command`; None when systemd knows no such unit."""
        return parse_next(result)

    def settings_command(self) -> Command:
        """Tell the texts of all files that say how the member starts."""
        return settings_command(self.name)

    def parse_settings(self, result: Result) -> SettingsFiles:
        """Read the answer of `settings_command`; no units where there is no such unit."""
        return parse_settings(self.name, result)

    def verification(self, path: PurePosixPath) -> str | None:
        """Write the shell that fails for a bad "$new" of a file; None where none can tell.

        Of the unit's own file systemd-analyze can; one that was refused before may be again.
        """
        if path.name != self.name:
            return None
        return (
            f"if [ ! -e {quote(str(path))} ] || "
            f"systemd-analyze verify --man=no {quote(str(path))} > /dev/null 2>&1; then\n"
            f"{VERIFY_UNIT.format(unit=self.name).strip()}\nfi"
        )


def parse_service_status(result: Result) -> ServiceStatus | None:
    """Read systemd's properties of a unit; None when it knows no such unit."""
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
