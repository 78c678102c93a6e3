"""What Prefect can lose in mid-run: its server, its database, the command line's own API."""

from __future__ import annotations

import math
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from tasks.engine.embedded import SETTINGS
from tasks.engine.journal import read_journal
from tasks.model.record import Event
from tests.integration.homes import prepare_home
from tests.integration.runbooks import HANG_SECONDS, Prefect

if TYPE_CHECKING:
    from tests.integration.runbooks import Ended


class Server:
    """A Prefect server that can be killed and started again on the same port."""

    def __init__(self, home: Path, database: str | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.prefect = Prefect(prepare_home(home), f"http://127.0.0.1:{self._port}/api")
        self._database = {"PREFECT_API_DATABASE_CONNECTION_URL": database} if database else {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, if it is not up; returns when it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        alone = {k: v for k, v in self.prefect.environment.items() if k != "PREFECT_API_URL"}
        settings = {k: v for k, v in SETTINGS.items() if k != "PREFECT__SERVER_EPHEMERAL"}
        app = ["-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
        with (self.prefect.home / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, *app, "--host", "127.0.0.1", "--port", str(self._port)],
                env={**alone, **settings, **self._database},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            with (
                suppress(OSError),
                urllib.request.urlopen(f"{self.prefect.api}/health", timeout=2),  # noqa: S310
            ):
                return
            assert time.monotonic() < deadline, "the Prefect server did not start"
            time.sleep(0.1)

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class SmallDisk:
    """A directory on a disk of its own, of so many megabytes; mounted for the length of a block."""

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path = path
        self._size = f"size={megabytes}m"
        self._ballast = path / "ballast"

    def __enter__(self) -> Self:
        self.path.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", self._size, "tmpfs", str(self.path)]
        subprocess.run(mount, check=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    def fill(self, left: int = 0) -> None:
        """Write until so many megabytes are left."""
        with self._ballast.open("wb", buffering=0) as ballast:
            with suppress(OSError):
                while True:
                    ballast.write(bytes(4096))
            ballast.truncate(max(0, ballast.tell() - (left << 20)))

    def free(self) -> None:
        """Delete what filled it."""
        self._ballast.unlink()


class SlowApi:
    """A way to a server on which the making of a flow run is held up.

    It is held before the server hears of it, or, where it is `made`, before the answer.
    """

    def __init__(self, server: Server, *, made: bool) -> None:
        self.asked, self.released = threading.Event(), threading.Event()
        self._server, self._made = urlsplit(server.prefect.api or "").port, made
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.prefect = Prefect(
            server.prefect.home, f"http://127.0.0.1:{self._listening.getsockname()[1]}/api"
        )
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listening.accept()
            server = socket.create_connection(("127.0.0.1", self._server))
            held = threading.Event()
            for pump in (self._ask, self._answer):
                threading.Thread(target=pump, args=(client, server, held), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, held: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if data.startswith(b"POST /api/flow_runs/ "):
                    self.asked.set()
                    held.set()
                    if not self._made:
                        data += self._read_body(client)
                        self.released.wait()
                server.sendall(data)

    def _read_body(self, client: socket.socket) -> bytes:
        client.settimeout(0.5)
        try:
            return client.recv(1 << 16)
        except TimeoutError:
            return b""
        finally:
            client.settimeout(None)

    def _answer(self, client: socket.socket, server: socket.socket, held: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if held.is_set():
                    self.released.wait()
                client.sendall(data)


def wait_for_step(prefect: Prefect, before: set[Path], number: int, runner: Any) -> None:  # noqa: ANN401 - a process
    """Wait until a run, whose journal is none of those before, has begun so many steps."""
    deadline = time.monotonic() + HANG_SECONDS
    while runner.poll() is None and time.monotonic() < deadline:
        for path in set(prefect.journals) - before:
            begun = [r for r in read_journal(path) if r.event is Event.STEP_STARTED]
            if len(begun) >= number:
                return
        time.sleep(0.05)


def kill_embedded_api(runner: int) -> None:
    """Kill the API that a command line has brought."""
    tasks = Path(f"/proc/{runner}/task")
    for child in " ".join(path.read_text() for path in tasks.glob("*/children")).split():
        if b"uvicorn" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)


def check_told(ended: Ended) -> None:
    """Check that the outcome is the last line, and that nothing of Prefect's is in the way."""
    assert ended.status == 0, ended.output
    assert ended.stdout.splitlines()[-1].startswith("done: "), ended.output
    assert "Traceback" not in ended.output
    assert not ended.stderr, ended.stderr


def read_end(prefect: Prefect) -> float:
    """Read when the latest run's body ended, in seconds of the epoch."""
    latest = max((prefect.home / "etcd-runbooks" / "runs").glob("*.jsonl"))
    return next(r.time for r in read_journal(latest) if r.event is Event.ENDED)


def share() -> float:
    """Tell how much longer a process takes than it would alone: runnable ones to a processor."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def see_whole_record(prefect: Prefect, run: Callable[[], object]) -> None:
    """Let the next run bring what is missing, and see that nothing is.

    What a run gives to the record is bounded in time, of which it has less on a busy machine.
    """
    for _ in range(1 + math.ceil(share())):
        run()
        missing = check_record(prefect)
        if missing == (0, 0, 0):
            return
    raise AssertionError(missing)


def read_record(prefect: Prefect) -> tuple[list[Any], list[Any], list[Any]]:
    """Read flow runs, task runs and artifacts: (id, state), (id, state), (run, key)."""
    if prefect.api is None:
        with sqlite3.connect(prefect.home / "prefect.db") as database:
            runs, tasks = (
                database.execute(f"select id, state_type from {table}").fetchall()  # noqa: S608
                for table in ("flow_run", "task_run")
            )
            kept = database.execute("select flow_run_id, key from artifact").fetchall()
        return runs, tasks, kept
    runs = [(r["id"], r["state_type"]) for r in read_pages(prefect, "/flow_runs/filter")]
    tasks = [(r["id"], r["state_type"]) for r in read_pages(prefect, "/task_runs/filter")]
    kept = [(r["flow_run_id"], r["key"]) for r in read_pages(prefect, "/artifacts/filter")]
    return runs, tasks, kept


def read_pages(prefect: Prefect, path: str) -> list[dict[str, Any]]:
    """Read all rows of a list of the API."""
    rows: list[dict[str, Any]] = []
    while page := prefect.ask(path, {"limit": 200, "offset": len(rows)}):
        rows += page
    return rows


def check_record(prefect: Prefect) -> tuple[int, int, int]:
    """Count what the record lacks: runs without an end, lost task runs, runs without one report.

    Returns the counts of unfinished runs, lost task runs and reports that are missing or doubled.
    """
    runs, tasks, artifacts = read_record(prefect)
    states = {str(row[0]): row[1] for row in tasks}
    ends = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    unfinished = sum(state not in ends for _, state in runs)
    wanted = {
        record.details["task_run"]
        for path in prefect.journals
        for record in read_journal(path)
        if record.event in (Event.STEP_FINISHED, Event.STEP_FAILED, Event.STEP_STARTED)
    }
    lost = sum(states.get(task) not in ends for task in wanted)
    reports = [str(run) for run, key in artifacts if str(key).endswith("report")]
    wrong = sum(reports.count(str(run)) != 1 for run, _ in runs)
    return unfinished, lost, wrong
