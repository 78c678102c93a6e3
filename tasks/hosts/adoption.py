"""Reading an etcd that somebody else has set up; nothing on the host is changed.

What runs is asked first: the process knows its flags and variables, whatever wrote them. Where
etcd does not run, the files of its unit say what would (`config/settings.py`).
"""

from __future__ import annotations

import base64
import re
from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.hosts.served import ask_command
from tasks.hosts.services import GROUPS, SystemdUnit
from tasks.model.adoption import FoundEtcd

_VERSION = re.compile(r"\b(\d+\.\d+\.\d+)\b")

PROCESS = r"""
echo "hostname=$(uname -n)"
systemctl show {unit} -p Id -p FragmentPath -p User -p LoadState -p WorkingDirectory
main=$(systemctl show {unit} -p MainPID | cut -d= -f2-)
{group}
# Where /proc shows the paths of an outer hierarchy, the first process stands in its init.scope.
{groups}pid=""
for candidate in $main $(pgrep '^etcd' || :); do
  case $(cat "/proc/$candidate/comm" 2>/dev/null) in
    etcd | etcd[0-9]* | etcd[-_.v][0-9]*) ;;
    *) continue ;;
  esac
  its=$(group_of "$candidate")
  if [ "$candidate" = "$main" ] || {{ [ -n "$own" ] && [ "$its" = "${{outer%/}}$own" ]; }}; then
    pid=${{pid:-$candidate}}
  else
    echo "other=${{its##*/}}"
    echo "process=$candidate ${{its##*/}}"
  fi
done
[ -n "$pid" ] || exit 0
echo "program=$(readlink "/proc/$pid/exe")"
echo "account=$(stat -c %U "/proc/$pid")"
echo "directory=$(readlink "/proc/$pid/cwd")"
echo "version=$("/proc/$pid/exe" --version 2>/dev/null | head -n 1)"
echo "arguments=$(base64 -w0 < "/proc/$pid/cmdline")"
echo "variables=$({{ grep -z '^ETCD_' "/proc/$pid/environ" || :; }} | base64 -w0)"
"""


def etcd_command(unit: str) -> Command:
    """Tell how a unit's etcd runs: program, account, flags, variables; and which others do.

    A process is the unit's when it is in its control group: a name alone tells nothing where two
    etcds run.
    """
    return Command(
        "read how etcd runs",
        PROCESS.format(unit=quote(unit), groups=GROUPS, group=SystemdUnit(unit).group).strip(),
    )


def parse_etcd(host: str, result: Result) -> FoundEtcd | None:
    """Read the answer of `etcd_command`, its settings left out; None where there is no unit."""
    pairs = [line.partition("=")[::2] for line in result.stdout.splitlines()]
    single = dict(reversed(pairs))
    is_running = "program" in single
    others = tuple(sorted({value for key, value in pairs if key == "other"}))
    if not is_running and single.get("LoadState") == "not-found" and not others:
        return None
    version = _VERSION.search(single.get("version", ""))
    fragment, unit = single.get("FragmentPath", ""), single.get("Id", "")
    environment = (text.partition("=")[::2] for text in _decode(single.get("variables", "")))
    return FoundEtcd(
        host=host,
        # An instance's file is its template's, and an alias is a link: the name is the unit's own.
        unit_path=str(PurePosixPath(fragment).with_name(unit)) if fragment and unit else fragment,
        environment_file=None,
        account=single.get("account") or single.get("User") or "root",
        program=single.get("program", "").removesuffix(" (deleted)"),
        version=version.group(1) if version else None,
        is_running=is_running,
        settings={},
        others=others,
        processes={
            group: int(pid)
            for pid, _, group in (value.partition(" ") for key, value in pairs if key == "process")
        },
        arguments=_decode(single.get("arguments", "")),
        variables=dict(environment),
        hostname=single.get("hostname", ""),
        directory=single.get("directory") or single.get("WorkingDirectory", "").lstrip("!-") or "/",
    )


def _decode(text: str) -> tuple[str, ...]:
    return tuple(base64.b64decode(text).decode(errors="replace").split("\0")[:-1])


def beside_command(trusted: PurePosixPath, certificate: PurePosixPath) -> Command:
    """Tell the trusted file's text, keys of authorities beside it, and the other certificates."""
    directory, others = quote(str(trusted.parent)), quote(str(certificate.parent))
    script = f"""
for key in {directory}/*ca*key* {directory}/ca.key; do [ -f "$key" ] && echo "key $key" || :; done
for file in {others}/*.pem; do [ -f "$file" ] && echo "file $file" || :; done
cat {quote(str(trusted))}
"""
    return Command(f"read {trusted} and what lies beside it", script.strip())


def parse_beside(result: Result) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Read the trusted file's text, the keys of authorities, and the files beside."""
    lines = result.stdout.splitlines()
    keys = tuple(sorted({line[4:] for line in lines if line.startswith("key ")}))
    files = tuple(line[5:] for line in lines if line.startswith("file "))
    text = [line for line in lines if not line.startswith(("key ", "file "))]
    return "\n".join(text) + "\n", keys, files


def members_command(
    certificate: PurePosixPath, key: PurePosixPath, trusted: PurePosixPath, address: str, port: int
) -> Command:
    """Ask the host's own member for the member list, with its own server pair as a client."""
    request = r"POST /v3/cluster/member/list HTTP/1.0\r\nHost: etcd\r\nContent-Length: 2\r\n\r\n{}"
    return ask_command(
        "list the members",
        certificate,
        key,
        trusted,
        (("members", address, port),),
        request,
        "{*",
        is_own=True,
    )


def parse_members(result: Result) -> bytes | None:
    """Cut the gateway's answer out of what was said; None when there was none."""
    start = result.stdout.find("{")
    return result.stdout[start:].strip().encode() if start >= 0 else None
