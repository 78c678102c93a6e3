"""Collecting the files that say how a member starts: its unit, and whatever that names.

Looks only. What the files mean is in `config/settings.py`.
"""

from __future__ import annotations

import base64
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.model.member_settings import SettingsFiles, TextFile

# The paths are those that systemd has loaded, and those that the files name now; one that is named
# in another way (with a specifier of a unit that systemd has not read) is missed, and then missing.
COLLECT = r"""
one() {{
  if [ ! -f "$2" ] || [ ! -r "$2" ]; then return 0; fi
  printf '%s=%s\nabout=%s\ntext=' "$1" "$2" "$(stat -L -c '0%a %U %G' "$2")"
  base64 -w0 < "$2"
  echo
}}
echo "host=$(uname -n)"
unit=$(systemctl show {unit} -p FragmentPath | cut -d= -f2-)
one unit "$unit"
directories="/etc/systemd/system/{unit}.d /run/systemd/system/{unit}.d"
drops=$({{ systemctl show {unit} -p DropInPaths | cut -d= -f2- | tr ' ' '\n'
  find $directories -maxdepth 1 -name '*.conf' 2>/dev/null || :; }} |
  awk -F/ 'NF && !seen[$NF]++ {{ print $NF "\t" $0 }}' | LC_ALL=C sort | cut -f2)
for file in $drops; do one unit "$file"; done
named=$({{ systemctl show {unit} -p EnvironmentFiles | cut -d= -f2- | sed 's/ (ignore_errors=.*//'
  [ -z "$unit$drops" ] || cat $unit $drops |
    sed -nE 's/^[[:space:]]*EnvironmentFile[[:space:]]*=[[:space:]]*-?(\/.*)$/\1/p'; }} | sort -u)
settings='s/.*(config-file[= ]|CONFIG_FILE=)["'\'']?(\/[^ "'\'';\\]+).*/\2/p'
for file in $named; do
  one file "$file"
  if [ -r "$file" ]; then sed -nE "$settings" "$file"; fi | while read -r path; do
    one file "$path"
  done
done
{{ systemctl show {unit} -p ExecStart | cut -d= -f2-; [ -z "$unit$drops" ] || cat $unit $drops; }} |
  sed -nE "$settings" | sort -u | while read -r path; do one file "$path"; done
"""


def settings_command(unit: str) -> Command:
    """Tell the texts of a unit's file and drop-ins, its EnvironmentFiles and --config-file."""
    script = COLLECT.format(unit=quote(unit)).strip()
    return Command(f"what says how {unit} starts", script)


def parse_settings(unit: str, result: Result) -> SettingsFiles:
    """Read the answer of `settings_command`; no units where there is no such unit."""
    host_name, kind, path, about = "", "", "", "0644 root root"
    found: dict[str, dict[str, TextFile]] = {"unit": {}, "file": {}}
    for line in result.stdout.splitlines():
        key, _, value = line.partition("=")
        if key == "host":
            host_name = value
        elif key == "about":
            about = value
        elif key == "text":
            text = base64.b64decode(value).decode(errors="replace")
            found[kind][path] = TextFile(path, text, *about.split())
        elif key in found:
            kind, path = key, value
    units, files = (tuple(each.values()) for each in found.values())
    return SettingsFiles(unit, host_name, units, files)
