"""A Prefect server over a PREFECT_HOME that stands still while others are measured."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tasks.engine.embedded import SETTINGS

START_SECONDS = 90.0
SETTLE_SECONDS = 3.0
"""After it goes on, its services do first what they missed."""


def runner_environment(home: Path, api: str | None = None) -> dict[str, str]:
    """List what a runner gets: a home, and the API of a server unless it embeds its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    address = {"PREFECT_API_URL": api} if api else {}
    return {**inherited, "PREFECT_HOME": str(home), **address}


class PrefectServer:
    """`prefect server start`, with the recorder's batches of the embedded API."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self.home = home
        self.api = f"http://127.0.0.1:{port}/api"
        recorder = {k: v for k, v in SETTINGS.items() if "_SERVICES_" in k}
        quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
        self._log = home / "server.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "server", "start", "--port", port],
                env={
                    **runner_environment(home),
                    **recorder,
                    **quiet,
                    "PREFECT_SERVER_API_PORT": port,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run for the length of the block."""
        self._signal(signal.SIGCONT)
        time.sleep(SETTLE_SECONDS)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def wait_until_ready(self) -> None:
        """Wait for its first answer; raises RuntimeError with its log when it does not come."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.api}/health", timeout=2),  # noqa: S310 - loopback
            ):
                return
            time.sleep(0.1)
        raise RuntimeError(f"the Prefect server did not start:\n{self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        """End it, also when it stands still."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[PrefectServer]:
    """Start a server and let it stand still; it is ended with the block."""
    home.mkdir(parents=True, exist_ok=True)
    server = PrefectServer(home)
    try:
        server.wait_until_ready()
        server._signal(signal.SIGSTOP)
        yield server
    finally:
        server.stop()
