"""Running runbooks as an operator does: `python -m flows …` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tasks.engine.embedded import SETTINGS
from tests.integration.homes import home_environment, prepare_home
from tests.lab.lab import Lab

ROOT = Path(__file__).parents[2]
RUN_SECONDS = 400.0
HANG_SECONDS = 300.0
"""Whoever waits so long waits for nothing; a server, up in ten seconds, was seen to take ninety."""
HEARS_CTRL_C = ("env", "--default-signal=INT")
"""A shell's background jobs, CI's among them, are born deaf to it, and so are their children."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command line ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """All that it said."""
        return self.stdout + self.stderr


@dataclass(frozen=True, slots=True)
class Prefect:
    """A PREFECT_HOME, and the API of a server over it; without one, runs embed their own."""

    home: Path
    api: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a runner gets to use it."""
        api = {"PREFECT_API_URL": self.api} if self.api else {}
        return {**home_environment(self.home), **api}

    @property
    def journals(self) -> list[Path]:
        """All runs' journals, oldest first."""
        return sorted(
            (self.home / "etcd-runbooks" / "journal").glob("*/*.jsonl"),
            key=lambda path: path.stat().st_mtime,
        )

    def ask(
        self,
        path: str,
        body: dict[str, Any] | list[Any] | None,
        method: str = "POST",
    ) -> Any:  # noqa: ANN401 - JSON
        """Send a request to the API and return its answer; again while its database is busy."""
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.api}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - loopback
                    said = answer.read()
                return json.loads(said) if said else None
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """GET from the API."""
        return self.ask(path, None, "GET")

    def list_task_runs(self, flow_run_id: str) -> list[dict[str, Any]]:
        """List the task runs that the database has of one run."""
        body = {"flow_runs": {"id": {"any_": [flow_run_id]}}, "limit": 200}
        found: list[dict[str, Any]] = self.ask("/task_runs/filter", body)
        return found


def end(process: subprocess.Popen[Any]) -> None:
    """End a server or a worker in order; kills it when it takes too long."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def prefect_server(home: Path, **settings: str) -> Iterator[Prefect]:
    """Start a Prefect server over `home` for the length of the block; with more settings."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    recorder = {k: v for k, v in SETTINGS.items() if "_SERVICES_" in k}
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    log = (home / "server.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--port", port],
        env={
            **home_environment(prepare_home(home)),
            **recorder,
            **quiet,
            "PREFECT_SERVER_API_PORT": port,
        }
        | settings,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    prefect = Prefect(home, f"http://127.0.0.1:{port}/api")
    try:
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{prefect.api}/health", timeout=2),  # noqa: S310
            ):
                break
            assert process.poll() is None, (home / "server.log").read_text()
            assert time.monotonic() < deadline, "the Prefect server did not start"
            time.sleep(0.1)
        yield prefect
    finally:
        end(process)
        log.close()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + HANG_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def run_runbook(
    prefect: Prefect, runbook: str, lab: Lab | Path, *options: str, named: str = "--cluster"
) -> Ended:
    """Run a runbook on a lab's inventory, or on an inventory file, to its end."""
    return finish(start_runbook(prefect, runbook, lab, *options, named=named))


def start_runbook(
    prefect: Prefect,
    runbook: str,
    lab: Lab | Path | str,
    *options: str,
    launcher: tuple[str, ...] = ("-m", "flows"),
    named: str = "--cluster",
    names: Path | None = None,
) -> subprocess.Popen[str]:
    """Start a runbook; `finish` waits for it.

    `names` is an /etc/hosts that it alone has; a resolv.conf beside it is its own, too, without
    which no name server is asked but one of the loopback's, where there is none.
    """
    inventory = lab if isinstance(lab, Path | str) else lab.inventory
    command = [*HEARS_CTRL_C, sys.executable, *launcher, runbook, named, str(inventory), *options]
    if names is not None:
        servers = names.with_name("resolv.conf")
        script = (
            f"mount --bind {servers if servers.exists() else '/dev/null'} /etc/resolv.conf && "
            f'mount --bind {names} /etc/hosts && exec "$@"'
        )
        command = ["unshare", "--mount", "sh", "-c", script, "sh", *command]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=prefect.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> Ended:
    """Wait for a runbook's end; kills it when it takes too long."""
    try:
        stdout, stderr = process.communicate(timeout=RUN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
    return Ended(process.returncode, stdout, stderr)


def etcdctl(lab: Lab, *words: str, on: str | None = None, ssl: str = "/etc/etcd/ssl") -> str:
    """Run etcdctl on the first host with the client certificate there: an independent witness.

    `on` names another host, whose own member alone is asked then. `ssl` is where the client's files
    are.
    """
    host = lab[on] if on else next(iter(lab.hosts.values()))
    asked = [host] if on else lab.hosts.values()
    endpoints = ",".join(f"https://{h.address}:2379" for h in asked)
    tls = [f"--cacert={ssl}/ca.pem", f"--cert={ssl}/client.pem", f"--key={ssl}/client-key.pem"]
    environment = ["env", "ETCDCTL_API=3", "/usr/local/bin/etcdctl"]
    return host.run([*environment, f"--endpoints={endpoints}", *tls, *words]).check().stdout
