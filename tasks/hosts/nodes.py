"""Seeing a control-plane node: its pods' files, the etcd in a pod, the kubelet; looks only.

What the files mean is in `config/pods.py`. A pod's process is known by its control group and by the
name of its directory of logs, which has the pod's UID in it, whatever runs the containers.
"""

from __future__ import annotations

import base64
import re
from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.hosts.pods import PODS
from tasks.model.member_settings import TextFile
from tasks.model.nodes import EtcdProcess, Kubelet, NodeObservation
from tasks.model.pods import KEPT

_VERSION = re.compile(r"\bv?(\d+\.\d+\.\d+)\b")

LOOK = r"""
{pods}one() {{ printf '%s=' "$1"; base64 -w0; echo; }}
echo "hostname=$(uname -n)"
echo "node=$(node_name)"
for path in {directory}/*; do
  if [ ! -f "$path" ] || [ ! -r "$path" ]; then continue; fi
  echo "file=$path"
  one text < "$path"
done
for path in {kept}/*.yaml; do
  if [ ! -f "$path" ]; then continue; fi
  echo "kept=$path"
  one out < "$path"
done
for path in {directory}/../*.conf; do
  [ ! -r "$path" ] || sed -nE "s|^ *server: *\"?([^\" ]*).*|kubeconfig=${{path##*/}} \\1|p" "$path"
done
for pid in $(pod_etcds); do
  group=$(pod_group "$pid") || continue
  pod=$(pod_of "$pid")
  started=$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d ' ' -f 20) || continue
  echo "process=$pid $started ${{pod##*/}}"
  echo "group=$group"
  echo "account=$(stat -c %U "/proc/$pid")"
  timeout 10 "/proc/$pid/exe" --version 2>/dev/null | head -n 1 | one version || :
  one arguments < "/proc/$pid/cmdline"
  {{ grep -z '^ETCD_' "/proc/$pid/environ" || :; }} | one variables
done
main=$(systemctl show kubelet -p MainPID 2>/dev/null | cut -d= -f2- || :)
if [ "${{main:-0}}" != 0 ]; then
  words=$(tr '\0' '\n' < "/proc/$main/cmdline")
  file=$(sed -nE 's/^--config=//p' <<< "$words" | tail -n 1)
  directory=$(sed -nE 's/^--pod-manifest-path=//p' <<< "$words" | tail -n 1)
  [ -n "$directory" ] || [ ! -r "$file" ] ||
    directory=$(sed -nE 's/^staticPodPath:[[:space:]]*"?([^"#]*[^"# ])"?.*/\1/p' "$file")
  echo "directory=$directory"
  config=$(sed -nE 's/^--kubeconfig=//p' <<< "$words" | tail -n 1)
  api=$(sed -nE 's/^[[:space:]]*server:[[:space:]]*"?([^" ]*).*/\1/p' "$config" 2>/dev/null |
    tail -n 1) || :
  echo "api=$api"
  # Anonymous requests get 403 until the API server has read who may ask.
  [ -z "$api" ] || ! [ "$(curl --silent --insecure --max-time 3 --output /dev/null \
    --write-out '%{{http_code}}' "$api/readyz" 2>/dev/null)" = 200 ] || echo "ready=yes"
  invocation=$(systemctl show kubelet -p InvocationID | cut -d= -f2-)
  # What it says when it has met its API server, and what it says first of all.
  started="_SYSTEMD_INVOCATION_ID=$invocation"
  [ -n "$invocation" ] || started="--boot _PID=$main"  # systemd before 232
  journalctl --no-pager --quiet --output=cat $started 2>/dev/null |
    grep -oE 'Successfully registered node|[Nn]ode was previously registered|Kubelet version' |
    sort -u | sed 's/^/said=/' || :
fi
if command -v kubelet > /dev/null; then kubelet --version 2>/dev/null | one kubelet || :; fi
if command -v kubeadm > /dev/null; then kubeadm version -o short 2>/dev/null | one kubeadm || :; fi
for program in containerd crio; do
  for found in $(pgrep -x "$program" | head -n 1); do
    timeout 10 "/proc/$found/exe" --version 2>/dev/null | head -n 1 | one "$program" || :
  done
done
"""


def node_command(directory: PurePosixPath, data: PurePosixPath | None = None) -> Command:
    """Tell the files of the pods' directory, the etcds in pods, the kubelet, and versions.

    Of the directory of `data` it tells when etcd made its own in it, where the file system knows.
    """
    kept = quote(str(directory.parent / KEPT))
    script = LOOK.format(pods=PODS, directory=quote(str(directory)), kept=kept).strip()
    if data is not None:
        script += f'\necho "born=$(stat -c %W {quote(str(data))}/member 2>/dev/null || :)"'
    return Command("see the node's pods and its kubelet", script)


def parse_node(host: str, result: Result) -> NodeObservation:
    """Read the answer of `node_command`; what the files say is left to be read."""
    pairs = [line.partition("=")[::2] for line in result.stdout.splitlines()]
    single = dict(pairs)
    files: list[TextFile] = []
    kept: list[TextFile] = []
    processes: list[dict[str, str]] = []
    path = ""
    for key, value in pairs:
        if key in {"file", "kept"}:
            path = value
        elif key == "out":
            kept.append(TextFile(path, _decode(value)))
        elif key == "text":
            files.append(TextFile(path, _decode(value)))
        elif key == "process":
            processes.append({key: value})
        elif processes and key in {"group", "account", "version", "arguments", "variables"}:
            processes[-1][key] = value
    said = {value for key, value in pairs if key == "said"}
    is_ready = "ready" in single
    has_seen = True if is_ready or said - {"Kubelet version"} else None
    if has_seen is None and said:
        has_seen = False
    born = single.get("born", "")
    return NodeObservation(
        host=host,
        hostname=single.get("hostname", ""),
        node=single.get("node", ""),
        files=tuple(files),
        processes=tuple(map(_process, processes)),
        kubelet=Kubelet(
            "directory" in single,
            single.get("directory") or None,
            single.get("api", ""),
            is_ready,
            has_seen,
        ),
        kept=tuple(PurePosixPath(file.path) for file in kept),
        kept_files=tuple(kept),
        kubeconfigs=dict(
            value.split(" ", 1) for key, value in pairs if key == "kubeconfig" and " " in value
        ),
        versions={
            name: _version(single.get(name))
            for name in ("kubelet", "kubeadm", "containerd", "crio")
        },
        born=int(born) if born.isdigit() and int(born) else None,
    )


def _process(told: dict[str, str]) -> EtcdProcess:
    pid, started, *pod = told["process"].split(" ", 2)
    variables = (text.partition("=") for text in _words(told.get("variables", "")))
    return EtcdProcess(
        int(pid),
        "".join(pod),
        told.get("group", ""),
        int(started),
        told.get("account", ""),
        _version(told.get("version")),
        _words(told.get("arguments", "")),
        {name: value for name, _, value in variables},
    )


def _words(encoded: str) -> tuple[str, ...]:
    return tuple(_decode(encoded).split("\0")[:-1])


def _version(encoded: str | None) -> str | None:
    found = _VERSION.search(_decode(encoded or ""))
    return found[1] if found else None


def _decode(text: str) -> str:
    return base64.b64decode(text).decode(errors="replace")
