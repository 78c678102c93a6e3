"""The embedded Prefect API: one process over PREFECT_HOME that lives as long as the runner.

Prefect starts one by itself when no server is configured, but that one outlives a runner that was
killed, and by its defaults loses task runs that had not been written yet. This one is told to end
by the kernel when the runner dies, and writes in batches. It is started before Prefect is
imported, so that both load at once. Imports no Prefect.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

START_SECONDS = 90.0
SETTINGS = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_UI_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


class EmbeddedApi:
    """A Prefect API that is starting; `url` is where it will answer.

    It ends with the interpreter, after what Prefect's own threads had still to send: exit handlers
    run last in, first out, and Prefect is not imported yet.
    """

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        # Ctrl-C is for the runner, which then still has to write how it ended: a session of its
        # own. The kernel ends it when the runner dies.
        die_with_runner = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        serve = ["-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
        options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
        self._process = subprocess.Popen(
            [*die_with_runner, sys.executable, *serve, *options, "--lifespan", "on"],
            env={**os.environ, **SETTINGS},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(self.stop)

    def wait_until_ready(self) -> None:
        """Wait for the API's first answer; raises RuntimeError when it does not come."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError, urllib.error.URLError),
                urllib.request.urlopen(f"{self.url}/health", timeout=2),  # noqa: S310 - loopback
            ):
                return
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"the embedded Prefect API ended with status {self._process.returncode}; "
                    "see what `prefect server start` says"
                )
            time.sleep(0.05)
        raise RuntimeError(f"the embedded Prefect API did not answer within {START_SECONDS:g} s")

    def stop(self) -> None:
        """End it, and wait until what it had queued is written."""
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
