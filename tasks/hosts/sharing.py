"""Who else uses a member's files, and what of its authority lies about; only looking."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import join, quote

from tasks.hosts.batch import Command, Result
from tasks.hosts.served import CERTIFICATE
from tasks.hosts.services import GROUPS
from tasks.hosts.supervisors import Supervisor
from tasks.model.sharing import FileUser

# A file is recognised by its inode, whatever it is called in the other process's file system. A
# process is told of files by its arguments, its environment, and by the files of settings that its
# arguments name; of these texts nothing but paths leaves this script. Passed over are what this
# session itself runs, etcdctl and its variables, which are read anew each time, and, but for its
# arguments, what a person runs: a shell or an editor uses no certificate.
SHARING = r"""
{groups}{group}
mine=$(group_of $$)
pairs='pem|crt|cert|cer|key' settings='ya?ml|conf|cfg|config|json|toml|env'
block() {{
  sed -n '/BEGIN CERTIFICATE/,/END CERTIFICATE/{{p;/END CERTIFICATE/q}}' "$1" 2>/dev/null || :
}}
paths() {{ tr '\0\t ,:;="\047' '\n' | {{ grep -aE "^/.+\.($1)$" || :; }} | sort -u; }}
told() {{
  cat "/proc/$1/cmdline" 2>/dev/null || :
  case "$2/" in */user.slice/*) return 0 ;; esac
  grep -azv ^ETCDCTL_ "/proc/$1/environ" 2>/dev/null || :
  while read -r file; do
    [ -f "/proc/$1/root$file" ] || continue
    echo; head -c 262144 "/proc/$1/root$file" 2>/dev/null || :
  done < <(paths "$settings" 2>/dev/null < "/proc/$1/cmdline")
}}
declare -A names
for file in {files}; do
  [ -e "$file" ] || continue
  names[$(stat -L -c %d:%i "$file")]=$file
  [ "$(stat -L -c %h "$file")" = 1 ] || printf 'linked\t%s\n' "$file"
done
for pid in $({{ grep -slaE "\.($pairs|$settings)" /proc/[0-9]*/cmdline || :
    grep -slaE "\.($pairs)" /proc/[0-9]*/environ || :; }} | cut -d / -f 3 | sort -u); do
  its=$(group_of "$pid")
  [ "$its" != "$mine" ] || continue
  [ -z "$own" ] || case "$its/" in "${{outer%/}}$own/"*) continue ;; esac
  name=$(cat "/proc/$pid/comm" 2>/dev/null || :)
  [ -n "$name" ] && [ "$name" != etcdctl ] || continue
  while read -r path; do
    case $path in */ca-certificates.crt | */ca-bundle.crt) continue ;; esac
    there=/proc/$pid/root$path
    inode=$(stat -L -c %d:%i "$there" 2>/dev/null) || continue
    file=${{names[$inode]:-}}
    if [ -n "$file" ]; then
      printf 'user\t%s\t%s\t%s\t%s\n' "$file" "$pid" "${{its##*/}}" "$name"
    else
      printf 'stray\t%s\t%s\t%s\t%s\n' "$path" "$pid" "${{its##*/}}" "$name"
      block "$there"
    fi
  done < <(told "$pid" "$its" | paths "$pairs")
done
for file in {beside}; do
  inode=$(stat -L -c %d:%i "$file" 2>/dev/null) || continue
  [ -z "${{names[$inode]:-}}" ] || continue
  printf 'stray\t%s\t\t\t\n' "$file"
  block "$file"
done
for key in {keys}; do
  [ -f "$key" ] || continue
  printf 'key\t%s\n' "$key"
  openssl pkey -in "$key" -passin pass: -pubout 2>/dev/null || :
done
""".strip()

_PUBLIC_KEY = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\n?", re.DOTALL)


def sharing_command(supervisor: Supervisor, files: Iterable[PurePosixPath]) -> Command:
    """Tell who besides the member's processes names the files, and which certificates are about.

    Those are what other processes name, and what lies in the files' directories. Of a file only
    its certificates are read, never a key; of an authority's key only the public half is told.
    """
    credentials = tuple(files)
    directories = dict.fromkeys(path.parent for path in credentials)
    beside = " ".join(
        f"{quote(str(each))}/*.{end}" for each in directories for end in ("pem", "crt")
    )
    keys = " ".join(f"{quote(str(each))}/*ca*key*" for each in directories)
    keys += " ".join(f" {quote(str(each))}/ca.key" for each in directories)
    script = SHARING.format(
        groups=GROUPS,
        group=supervisor.group,
        files=join(map(str, credentials)),
        beside=beside,
        keys=keys,
    )
    return Command("see who else uses the member's files", script)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one host answered: certificates with who names them, keys' public halves."""

    users: tuple[FileUser, ...]
    linked: tuple[str, ...]
    certificates: tuple[tuple[str, str, FileUser | None], ...]
    keys: tuple[tuple[str, str], ...]


def parse_sharing(result: Result) -> Seen:
    """Read the answer of `sharing_command`."""
    users: list[FileUser] = []
    linked: list[str] = []
    certificates: list[tuple[str, str, FileUser | None]] = []
    keys: list[tuple[str, str]] = []
    blocks = re.split(r"^(?=(?:user|linked|stray|key)\t)", result.stdout, flags=re.MULTILINE)
    for block in blocks:
        head, _, text = block.partition("\n")
        kind, *words = head.split("\t")
        if kind == "linked":
            linked.append(words[0])
        elif kind == "key" and (public := _PUBLIC_KEY.search(text)):
            keys.append((words[0], public.group()))
        elif kind in ("user", "stray"):
            path, pid, unit, process = words
            user = FileUser(path, process, int(pid), unit or "no unit") if pid else None
            if kind == "user" and user is not None:
                users.append(user)
            elif found := CERTIFICATE.search(text):
                certificates.append((path, found.group(), user))
    return Seen(tuple(users), tuple(linked), tuple(certificates), tuple(keys))
