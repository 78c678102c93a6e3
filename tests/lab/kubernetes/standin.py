"""A stand-in for the kubelet: static pods from files, as processes, by the laws of the real one.

    python -m tests.lab.kubernetes.standin --root DIRECTORY [--api https://127.0.0.1:6443]

It is for small tests of what procedures do to the manifests' directory, where real nodes would take
a minute. What it is not: there are no containers, images, volumes or namespaces (a pod's command
runs as a process with DIRECTORY below its paths only where the command says so), no probes, no
mirror pods, no resources. What it keeps is what `tests/contract/test_kubelet.py` sees on both:

- every file but those of a leading dot is a pod; directories, empty and broken files are not; of
  two files with one pod's name the one that sorts last counts;
- a pod's uid comes of what was parsed and of the file's path: a comment changes nothing, another
  word makes another pod;
- another pod of the same name waits until the old one's processes and directory are gone, and looks
  again only after 10 s; one of the same uid that comes back waits longer each time;
- a process that ends is started again at once, then after 10, 20, 40 s; that is kept in memory, and
  the processes outlive the stand-in;
- while it deletes a pod it calls its API server, and is deaf for as long as that hangs;
- started while its API server is away, it stops nothing and starts nothing at first.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

MANIFESTS, PODS = "etc/kubernetes/manifests", "var/lib/kubelet/pods"
KUBECONFIG = "etc/kubernetes/kubelet.conf"

LOOK_SECONDS = 0.1
RETRY_SECONDS = 10.0
"""How long a pod waits before it looks again whether the old one of its name is gone."""

SETTLE_SECONDS = 1.5
"""How long a pod that is gone still stands in the way of another of its name."""

BACK_OFF_SECONDS = 10.0
BACK_OFF_LIMIT = 300.0
GRACE_SECONDS = 30.0
API_SECONDS = 34.0
"""How long one call to an API server that hangs keeps the main loop."""

NONE = (0, 0)
"""A process that is not there."""

UNSURE_SECONDS = 40.0
"""How long a kubelet without its API server skips pods after its start."""


@dataclass(frozen=True, slots=True)
class Pod:
    """What a file says; `uid` is the same for the same words in the same file."""

    name: str
    uid: str
    commands: dict[str, list[str]]
    grace: float


@dataclass(slots=True)
class Running:
    """A pod that has a directory: its processes by container, and when it was told to end."""

    pod: Pod
    directory: Path
    processes: dict[str, tuple[int, int]] = field(default_factory=dict)
    ending: float | None = None

    def save(self) -> None:
        """Write what a stand-in that is started later must know."""
        described = {
            "name": self.pod.name,
            "commands": self.pod.commands,
            "grace": self.pod.grace,
            "processes": self.processes,
        }
        new = self.directory / "pod.new"
        new.write_text(json.dumps(described))
        new.rename(self.directory / "pod.json")

    def living(self) -> list[int]:
        """List its processes that run."""
        return [pid for pid, started in self.processes.values() if start_time(pid) == started]


class StandIn:
    """The main loop; one pass is `sync`, and whatever hangs in it makes the stand-in deaf."""

    def __init__(self, root: Path, api: str) -> None:
        self.root, self.api = root, api
        self.began = time.monotonic()
        self.api_seen = not (root / KUBECONFIG).exists()
        self.failures: dict[str, int] = {}
        self.not_before: dict[str, float] = {}
        self.gone: dict[str, float] = {}
        self.pods = {path.parent.name: read_running(path) for path in self._known()}

    def run(self) -> None:
        """Go on until a signal."""
        while True:
            # Its children are pods, which outlive it; the dead ones are collected.
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            self.sync()
            time.sleep(LOOK_SECONDS)

    def sync(self) -> None:
        """Bring what runs a step nearer to what the files say."""
        wanted = read_pods(self.root / MANIFESTS)
        if not self.api_seen:
            self.api_seen = self._call_api(1.0) == "answers"
        for uid, running in list(self.pods.items()):
            if uid not in wanted and self.api_seen:
                self._end(uid, running)
        for uid, pod in wanted.items():
            if uid in self.pods:
                self._keep(uid, self.pods[uid])
            else:
                self._begin(uid, pod)

    def _end(self, uid: str, running: Running) -> None:
        now = time.monotonic()
        if running.ending is None:
            running.ending = now
            send(running.living(), signal.SIGTERM)
        if running.living():
            if now - running.ending > running.pod.grace:
                send(running.living(), signal.SIGKILL)
            return
        # The mirror pod is deleted in the main loop: as long as this hangs, no file is read.
        self._call_api(API_SECONDS)
        shutil.rmtree(running.directory, ignore_errors=True)
        del self.pods[uid]
        self.gone[running.pod.name] = time.monotonic()
        self._failed(uid)

    def _begin(self, uid: str, pod: Pod) -> None:
        now = time.monotonic()
        if not self.api_seen and now - self.began < UNSURE_SECONDS:
            return
        if now < self.not_before.get(uid, 0.0):
            return
        there = any(running.pod.name == pod.name for running in self.pods.values())
        if there or now - self.gone.get(pod.name, -SETTLE_SECONDS) < SETTLE_SECONDS:
            self.not_before[uid] = now + RETRY_SECONDS
            return
        directory = self.root / PODS / uid
        directory.mkdir(parents=True)
        running = self.pods[uid] = Running(pod, directory)
        for name in pod.commands:
            self._start(running, name)

    def _keep(self, uid: str, running: Running) -> None:
        """Start what has ended again, each time later."""
        for name, (pid, started) in list(running.processes.items()):
            if start_time(pid) == started:
                continue
            key = f"{uid}/{name}"
            if (pid, started) != NONE:
                self._failed(key)
                running.processes[name] = NONE
            if time.monotonic() >= self.not_before.get(key, 0.0):
                self._start(running, name)

    def _failed(self, key: str) -> None:
        """Say from when on something that has ended may be started: at once, then 10, 20, 40 s."""
        before = self.failures.get(key, 0)
        self.failures[key] = before + 1
        wait = min(BACK_OFF_SECONDS * 2 ** (before - 1), BACK_OFF_LIMIT) if before else 0.0
        self.not_before[key] = time.monotonic() + wait

    def _start(self, running: Running, name: str) -> None:
        with (running.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                # By a shell: a program that is not there ends as others do.
                ["/bin/sh", "-c", 'exec "$@"', "sh", *running.pod.commands[name]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        running.processes[name] = (process.pid, start_time(process.pid) or 0)
        running.save()

    def _call_api(self, seconds: float) -> str:
        """Call the API server: it `answers`, `refuses`, or `hangs` for that long."""
        if not (self.root / KUBECONFIG).exists():
            return "refuses"
        context = ssl._create_unverified_context()  # noqa: S323 - whoever answers
        try:
            urllib.request.urlopen(  # noqa: S310 - the caller's own address
                f"{self.api}/api", timeout=seconds, context=context
            ).close()
        except urllib.error.HTTPError as error:
            return "answers" if error.code < 500 else "refuses"
        except OSError as error:
            reason = getattr(error, "reason", error)
            return "hangs" if isinstance(reason, TimeoutError) else "refuses"
        return "answers"

    def _known(self) -> list[Path]:
        return sorted((self.root / PODS).glob("*/pod.json"))


def read_pods(directory: Path) -> dict[str, Pod]:
    """Read the pods of a directory by uid; of one name the last file's counts."""
    found: dict[str, Pod] = {}
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        try:
            text = path.read_text()
            parsed = json.loads(text) if text.startswith("{") else YAML(typ="safe").load(text)
            pod = make_pod(path, parsed)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, YAMLError) as error:
            print(f"{path}: {error!r}", file=sys.stderr, flush=True)
            continue
        found[pod.name] = pod
    return {pod.uid: pod for pod in found.values()}


def make_pod(path: Path, parsed: Any) -> Pod:  # noqa: ANN401 - what the file holds
    """Make a pod of what a file holds; KeyError or TypeError when that is none."""
    metadata, spec = parsed["metadata"], parsed["spec"]
    words = f"{os.uname().nodename} {path} {json.dumps(parsed, sort_keys=True, default=str)}"
    return Pod(
        name=f"{metadata.get('namespace', 'default')}/{metadata['name']}",
        uid=hashlib.md5(words.encode(), usedforsecurity=False).hexdigest(),
        commands={
            container["name"]: [*container["command"], *container.get("args", [])]
            for container in spec["containers"]
        },
        grace=float(spec.get("terminationGracePeriodSeconds", GRACE_SECONDS)),
    )


def read_running(path: Path) -> Running:
    """Read a pod that an earlier stand-in started."""
    told = json.loads(path.read_text())
    pod = Pod(told["name"], path.parent.name, told["commands"], told["grace"])
    processes = {name: (pid, started) for name, (pid, started) in told["processes"].items()}
    return Running(pod, path.parent, processes)


def start_time(pid: int) -> int | None:
    """Read when a process started, in clock ticks; None when it runs no more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = stat[stat.rindex(")") + 2 :].split()
    return None if state in "ZX" else int(fields[18])


def send(pids: list[int], word: signal.Signals) -> None:
    """Send a signal to processes, some of which may be gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, word)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/"))
    parser.add_argument("--api", default="https://127.0.0.1:6443")
    options = parser.parse_args()
    StandIn(options.root, options.api).run()
