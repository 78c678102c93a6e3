"""Which authorities a running etcd has loaded, and what its trusted files hold now; only looking.

A server that asks for a client's certificate names the authorities that it takes: those that it
read at its start. Where the names are the same, that a file was changed since is all that is seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.hosts.served import SECONDS
from tasks.hosts.services import GROUPS
from tasks.model.layout import Pair
from tasks.model.restarts import Trust

PRECISION_SECONDS = 0.1
"""The kernel tells a start in hundredths of a second, and a file's time by its last tick."""

_LOOK = r"""
{groups}{group}
[ -n "$own" ] || exit 0
pid=""
for candidate in $(pgrep '^etcd' || :); do
  case "$(group_of "$candidate")/" in "${{outer%/}}$own/"*) pid=$candidate ;; esac
done
[ -n "$pid" ] || exit 0
ticks=$(sed 's/.*) //' "/proc/$pid/stat" | cut -d ' ' -f 20)
read -r up _ < /proc/uptime
printf 'started\t%s\n' "$(awk -v now="$(date +%s.%N)" -v up="$up" -v ticks="$ticks" \
  -v hertz="$(getconf CLK_TCK)" 'BEGIN {{ printf "%.2f", now - up + ticks / hertz }}')"
# OpenSSL before 1.1.1 shows what a server asks for in its own way only.
names="-nameopt RFC2253"
[[ $(openssl s_client -help 2>&1) == *-nameopt* ]] || names=""
for file in {files}; do
  [ -r "$file" ] || continue
  printf 'changed\t%s\t%s\n' "$file" "$(stat -L -c %.Z "$file")"
  block=""
  while IFS= read -r line || [ -n "$line" ]; do
    block+="$line"$'\n'
    case $line in *"END CERTIFICATE"*) ;; *) continue ;; esac
    name=$(printf %s "$block" | openssl x509 -noout -subject $names 2>/dev/null || :)
    [ -z "$name" ] || printf 'file\t%s\t%s\n' "$file" "$(sed 's/^subject= *//' <<< "$name")"
    block=""
  done < "$file"
done
for at in $(ss -ltnp | grep -E "[=,]$pid," | awk '{{ print $4 }}'); do
  case ${{at%:*}} in '*' | 0.0.0.0) to=127.0.0.1:${{at##*:}} ;; '[::]') to="[::1]:${{at##*:}}" ;;
    *) to=${{at%%%*}}; [ "$to" = "$at" ] || to=$to:${{at##*:}} ;; esac
  # With a pair of its own it is let in, and etcd logs nothing.
  timeout {seconds} openssl s_client -connect "$to" $names {pair} </dev/null 2>/dev/null |
    sed -n '/^Acceptable client certificate CA names/,/^\(Requested Sig\|Client Cert\|---\)/p' |
    sed '1d;$d' | while IFS= read -r name; do printf 'loaded\t%s\t%s\n' "$at" "$name"; done || :
done
""".strip()


def trust_command(group: str, files: Iterable[PurePosixPath], own: Pair) -> Command:
    """Tell the authorities that a member's process takes and those in its trusted files.

    `group` is a supervisor's shell; `own` is what the process is asked with.
    """
    script = _LOOK.format(
        groups=GROUPS,
        group=group,
        files=" ".join(quote(str(file)) for file in files),
        seconds=SECONDS,
        pair=f"-cert {quote(str(own.certificate))} -key {quote(str(own.key))}",
    )
    return Command("tell which authorities etcd has loaded", script)


def parse_trust(result: Result) -> Trust | None:
    """Read the answer of `trust_command`; None where no process was found."""
    started, changed = None, {}
    held: dict[str, list[str]] = {}
    loaded: dict[str, list[str]] = {}
    for line in result.stdout.splitlines():
        kind, _, rest = line.partition("\t")
        where, _, what = rest.partition("\t")
        if kind == "started":
            started = float(where)
        elif kind == "changed":
            changed[where] = float(what)
            held[where] = []
        elif kind == "file":
            held.setdefault(where, []).append(what)
        elif kind == "loaded":
            loaded.setdefault(where, []).append(what)
    if started is None:
        return None
    return Trust(
        {path: tuple(sorted(names)) for path, names in held.items()},
        tuple(dict.fromkeys(tuple(sorted(names)) for names in loaded.values())),
        tuple(path for path, at in changed.items() if at > started + PRECISION_SECONDS),
    )
