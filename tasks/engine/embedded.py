"""The embedded Prefect API: one process over PREFECT_HOME that lives as long as the runner.

It is watched, and started again on the same port when it dies, a few times at most.

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
import threading
import time
import urllib.error
import urllib.request

from tasks.model.errors import RecordUnreachable

START_SECONDS = 180.0
"""An idle machine needs six of them; a busy one was seen to need ninety."""
WATCH_SECONDS = 0.2
RESTARTS = 5
FIRST_STARTS = 3
"""Two that make the database of a new PREFECT_HOME at once stop each other."""
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
        self._port = port
        self._is_stopping = False
        self._is_ready = False
        self._has_given_up = False
        self._process = self._start()
        # The kernel's signal comes when the thread ends that started a process: this one lives as
        # long as the interpreter.
        threading.Thread(target=self._watch, daemon=True).start()
        atexit.register(self.stop)

    def _start(self) -> subprocess.Popen[bytes]:
        # Ctrl-C is for the runner, which then still has to write how it ended: a session of its
        # own. The kernel ends it when the runner dies.
        die_with_runner = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        serve = ["-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
        options = ["--host", "127.0.0.1", "--port", str(self._port), "--log-level", "error"]
        return subprocess.Popen(
            [*die_with_runner, sys.executable, *serve, *options, "--lifespan", "on"],
            env={**os.environ, **SETTINGS},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _watch(self) -> None:
        for starts in range(1, RESTARTS + 1):
            while self._process.poll() is None:
                time.sleep(WATCH_SECONDS)
            if self._is_stopping or (starts >= FIRST_STARTS and not self._is_ready):
                break
            self._process = self._start()
        self._has_given_up = True

    def wait_until_ready(self) -> None:
        """Wait for the API's first answer; raises RecordUnreachable when it does not come."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError, urllib.error.URLError),
                urllib.request.urlopen(f"{self.url}/health", timeout=2),  # noqa: S310 - loopback
            ):
                self._is_ready = True
                return
            if self._has_given_up:
                raise RecordUnreachable(
                    f"the embedded Prefect API ended {FIRST_STARTS} times, with status "
                    f"{self._process.returncode}. Nothing was changed. Is there room in "
                    "PREFECT_HOME, and can it be written? `prefect server start` says more"
                )
            time.sleep(0.05)
        raise RecordUnreachable(
            f"the embedded Prefect API did not answer within {START_SECONDS:g} s. Nothing was "
            "changed. See what `prefect server start` says"
        )

    def stop(self) -> None:
        """End it, and wait until what it had queued is written."""
        self._is_stopping = True
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
