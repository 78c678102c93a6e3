"""The places where a run writes on a host: what is there, whether it takes a file, and how much."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from tasks.hosts.batch import Command, Result
from tasks.hosts.retirement import ASIDE, IGNORED
from tasks.model.observation import Room

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import PurePosixPath


def rooms_command(paths: Iterable[PurePosixPath]) -> Command:
    """Tell of each file or directory where links lead, and what the file system there takes.

    Of what is not there yet, the directory counts in which it would be made. A small program is
    written there, run and removed: mount options do not tell all that may forbid it.
    """
    names = " ".join(quote(str(path)) for path in dict.fromkeys(paths))
    script = f"""
last() {{ printf %s "${{1##*: }}" | tr '\\n\\t' '  '; }}
try() {{  # a directory; prints its file system's row
  runs=no trouble=
  if file=$(mktemp "$1/.{ASIDE}XXXXXXXX" 2>&1); then
    if said=$( {{ printf '#!/bin/sh\\n' > "$file"; }} 2>&1 ); then
      chmod 0700 "$file"
      if "$file" 2>/dev/null; then runs=yes; fi
    else
      trouble=$(last "$said")
    fi
    rm -f "$file"
  else
    trouble=$(last "$file")
  fi
  read -r free system < <(df --output=avail,target -B1 "$1" | tail -n 1)
  printf '%s\\t' "$system" "$free" "$(stat -c 0%a "$1")" "$(stat -c %U "$1")" $runs
  printf '%s' "$trouble"
}}
declare -A tried
for path in {names}; do
  real=$(readlink -m "$path"); there=$real mounted=no empty=no
  if [ -d "$real" ]; then
    if mountpoint -q "$real"; then mounted=yes; fi
    [ -n "$(ls -A {IGNORED} "$real")" ] || empty=yes
  fi
  while [ ! -d "$there" ]; do there=${{there%/*}}; there=${{there:-/}}; done
  [ -n "${{tried[$there]:-}}" ] || tried[$there]=$(try "$there")
  printf '%s\\t' "$path" "$real" "$there" $mounted $empty
  printf '%s\\n' "${{tried[$there]}}"
done
"""
    return Command("see the file systems", script.strip())


def parse_rooms(result: Result) -> tuple[Room, ...]:
    """Read the answer of `rooms_command`."""
    found = []
    for line in result.stdout.splitlines():
        path, real, there, mount, empty, system, free, mode, owner, run, trouble = line.split("\t")
        runs, is_mount, is_empty = (each == "yes" for each in (run, mount, empty))
        found.append(
            Room(
                path, real, there, system, int(free), mode, owner, runs, is_mount, is_empty, trouble
            )
        )
    return tuple(found)
