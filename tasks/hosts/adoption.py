"""Reading an etcd that somebody else has set up; nothing on the host is changed.

What runs is asked first: the process knows its flags and variables, whatever wrote them. Where
etcd does not run, the unit is read.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from shlex import quote, split

from tasks.hosts.batch import Command, Result
from tasks.hosts.served import ask_command
from tasks.model.adoption import FoundEtcd

_ARGV = re.compile(r"argv\[\]=(.*?) ; ignore_errors=")
_VERSION = re.compile(r"\b(\d+\.\d+\.\d+)\b")


def etcd_command(unit: str) -> Command:
    """Tell how etcd runs: program, account, flags, its ETCD_ variables, and its unit."""
    name = quote(unit)
    script = f"""
systemctl show {name} -p FragmentPath -p User -p ExecStart -p EnvironmentFiles -p LoadState
main=$(systemctl show {name} -p MainPID --value)
pid=""
for candidate in $main $(pgrep -x etcd || :); do
  [ "$(cat "/proc/$candidate/comm" 2>/dev/null)" = etcd ] && {{ pid=$candidate; break; }}
done
if [ -n "$pid" ]; then
  program=$(readlink "/proc/$pid/exe")
  echo "program=$program"
  echo "account=$(stat -c %U "/proc/$pid")"
  echo "version=$("/proc/$pid/exe" --version 2>/dev/null | head -n 1)"
  tr '\\0' '\\n' < "/proc/$pid/cmdline" | sed 's/^/argument=/'
  tr '\\0' '\\n' < "/proc/$pid/environ" | sed -n 's/^ETCD_/variable=ETCD_/p'
else
  systemctl show {name} -p EnvironmentFiles --value | sed 's/ (ignore_errors=.*//' |
    while read -r file; do
      sed -n 's/^[[:space:]]*\\(ETCD_[A-Z0-9_]*=\\)/variable=\\1/p' "$file"
    done
fi
"""
    return Command("read how etcd runs", script.strip())


def parse_etcd(host: str, result: Result) -> FoundEtcd | None:
    """Read the answer of `etcd_command`; None when there is neither the unit nor a process."""
    single: dict[str, str] = {}
    arguments, variables = [], {}
    for line in result.stdout.splitlines():
        key, _, value = line.partition("=")
        if key == "argument":
            arguments.append(value)
        elif key == "variable":
            name, _, setting = value.partition("=")
            variables[name] = setting.strip().strip("\"'")
        else:
            single.setdefault(key, value)
    is_running = "program" in single
    if not is_running and single.get("LoadState") == "not-found":
        return None
    if not is_running and (argv := _ARGV.search(single.get("ExecStart", ""))):
        arguments = split(argv.group(1))
    version = _VERSION.search(single.get("version", ""))
    program = single.get("program") or (arguments[0] if arguments else "")
    return FoundEtcd(
        host=host,
        unit_path=single.get("FragmentPath", ""),
        environment_file=single.get("EnvironmentFiles", "").split(" (")[0] or None,
        account=single.get("account") or single.get("User") or "root",
        program=program.removesuffix(" (deleted)"),
        version=version.group(1) if version else None,
        is_running=is_running,
        settings={**variables, **flag_settings(arguments[1:])},
    )


def flag_settings(arguments: list[str]) -> dict[str, str]:
    """Turn etcd's flags into its variables; a flag without a value is true."""
    found: dict[str, str] = {}
    waiting: str | None = None
    for argument in arguments:
        if argument.startswith("-"):
            name, equals, value = argument.lstrip("-").partition("=")
            variable = f"ETCD_{name.upper().replace('-', '_')}"
            found[variable] = value if equals else "true"
            waiting = None if equals else variable
        elif waiting is not None:
            found[waiting], waiting = argument, None
    return found


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
        "list the members", certificate, key, trusted, (("members", address, port),), request, "{*"
    )


def parse_members(result: Result) -> bytes | None:
    """Cut the gateway's answer out of what was said; None when there was none."""
    start = result.stdout.find("{")
    return result.stdout[start:].strip().encode() if start >= 0 else None
