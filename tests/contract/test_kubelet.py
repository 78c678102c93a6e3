"""The kubelet's laws, kept by the stand-in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.contract.kubelet_laws import (
    KubeletLaws,
    begin,
    eventually,
    process,
    put,
    running,
    stays,
    take,
)
from tests.lab.commands import execute, run
from tests.lab.kubernetes.standin import KUBECONFIG, MANIFESTS, PODS, start_time

ROOT = Path(__file__).parents[2]

POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: probe, namespace: kube-system}}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: probe
    command: [python3, -c, "import time; time.sleep(600)", "--name=probe-{name}", "{root}"]
"""


class ApiServer(ThreadingHTTPServer):
    """Answers, or lets whoever asks wait while its `answers` is not set."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.answers = threading.Event()
        self.answers.set()
        super().__init__(("127.0.0.1", port), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: ApiServer

    def do_GET(self) -> None:
        """Answer when the server does."""
        self.server.answers.wait()
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class StandInKubelet:
    """The stand-in in a directory of its own, on this machine."""

    quiet = 2.0

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifests, self.aside = str(root / MANIFESTS), str(root / "etc/kubernetes/aside")
        self.pods = str(root / PODS)
        for directory in (self.manifests, self.aside, self.pods):
            Path(directory).mkdir(parents=True)
        (root / KUBECONFIG).touch()
        self.api = ApiServer()
        self.port = self.api.server_port
        self.start()

    def sh(self, script: str, text: str | None = None) -> str:
        """Run a script."""
        return run("bash", "-c", script, text=text)

    def pod(self, name: str) -> str:
        """Render a pod of one process that does nothing."""
        return POD.format(name=name, root=self.root)

    def processes(self) -> dict[int, str]:
        """Find the processes whose last word is this directory."""
        found = execute(["pgrep", "--list-full", "--full", f"{self.root}$"]).stdout.splitlines()
        names = [(int(line.split()[0]), line.split("--name=probe-")) for line in found]
        return {pid: parts[1].split()[0] for pid, parts in names if len(parts) > 1}

    def start(self) -> None:
        """Start the stand-in."""
        words = ["--root", str(self.root), "--api", f"http://127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.kubernetes.standin", *words],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        """Stop the stand-in alone."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Restart the stand-in alone."""
        self.stop()
        self.start()

    def api_away(self) -> None:
        """Close the port."""
        self.api.shutdown()
        self.api.server_close()

    def api_back(self) -> None:
        """Listen at the same port again."""
        self.api = ApiServer(self.port)

    def end(self) -> None:
        """Leave no process."""
        self.stop()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.api.answers.set()
        self.api_away()


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[StandInKubelet]:
    """Give each test a stand-in."""
    stand_in = StandInKubelet(tmp_path)
    yield stand_in
    stand_in.end()


class TestStandIn(KubeletLaws):
    """The laws."""


def test_while_its_api_server_hangs_it_is_deaf(kubelet: StandInKubelet) -> None:
    """A pod's end is a call to its API server; until that is answered no file is read."""
    begin(kubelet)
    kubelet.api.answers.clear()
    take(kubelet, "probe.yaml")
    eventually(lambda: process(kubelet) is None)
    put(kubelet, "other.yaml", kubelet.pod("b").replace("name: probe,", "name: other,"))
    stays(lambda: running(kubelet) == [], 4)
    kubelet.api.answers.set()
    eventually(lambda: running(kubelet) == ["b"])


def test_another_pod_at_once_waits_for_the_next_look(kubelet: StandInKubelet) -> None:
    """A manifest that is changed in place takes 10 s longer than its pod's end."""
    begin(kubelet)
    put(kubelet, "probe.yaml", kubelet.pod("b"))
    assert eventually(lambda: running(kubelet) == ["b"]) > 9


def test_its_start_time_tells_a_process_from_a_later_one() -> None:
    """A process that runs has one, and one that has ended has none."""
    assert start_time(os.getpid())
    ended = subprocess.Popen(["true"])
    eventually(lambda: start_time(ended.pid) is None)
    ended.wait()
