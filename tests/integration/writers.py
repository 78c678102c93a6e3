"""Clients that write without a pause, and what they were told was written: lost or there.

Independent of the runbooks' own probe. A writer is a process; it reads its TLS files again at each
new connection, as a careful client does, so that it lives through a rotation that brings it new
ones. Every key is written once.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx

from tests.integration.runbooks import HANG_SECONDS, ROOT, etcdctl

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from tests.lab.lab import Lab

DIRECTORY = "/etc/writer"
PAUSE_SECONDS = 0.02
ATTEMPT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What was acknowledged, which of it is not there, and the longest time without a write."""

    acknowledged: int
    lost: tuple[str, ...]
    longest_gap: float


class Writers:
    """Some writers over all the lab's endpoints, for as long as the block.

    `files` is a directory with a client's TLS files, by the names that `bootstrap_cluster` gives
    them; `witness` is how etcdctl is run there.
    """

    def __init__(
        self,
        lab: Lab,
        logs: Path,
        count: int = 2,
        files: Path | None = None,
        witness: Callable[..., str] = etcdctl,
    ) -> None:
        first = next(iter(lab.hosts.values()))
        self._lab = lab
        self._witness = witness
        self._files = files or first.root / DIRECTORY.removeprefix("/")
        self._logs = [logs / f"writer{number}.jsonl" for number in range(count)]
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        urls = [f"https://{host.address}:2379" for host in self._lab.hosts.values()]
        for number, log in enumerate(self._logs):
            arguments = [str(self._files), str(log), f"writer{number}-{time.time_ns()}", *urls]
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.integration.writers", *arguments],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                )
            )
        deadline = time.monotonic() + HANG_SECONDS
        while not all(log.exists() and log.stat().st_size for log in self._logs):
            assert time.monotonic() < deadline, "the writers do not begin"
            time.sleep(0.05)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def read(self) -> list[list[tuple[str, float]]]:
        """Read each writer's log: keys and times of acknowledgement; a cut last line is left."""
        rows = []
        for log in self._logs:
            lines = log.read_text().split("\n")[:-1]
            rows.append([(key, at) for key, at in map(json.loads, lines)])
        return rows

    def check(self, on: str | None = None) -> WriteReport:
        """Read everything back, from the member `on` that host alone; call it after the block."""
        logs = self.read()
        there: set[str] = set()
        for rows in logs:
            prefix = rows[0][0].rpartition("/")[0]
            read = ("get", "--prefix", "--keys-only")
            there |= set(self._witness(self._lab, *read, prefix, on=on).split())
        keys = [key for rows in logs for key, _ in rows]
        gaps = [b[1] - a[1] for rows in logs for a, b in pairwise(rows)]
        return WriteReport(
            len(keys), tuple(key for key in keys if key not in there), max(gaps, default=0.0)
        )


def write_without_a_pause(files: Path, log: Path, prefix: str, urls: list[str]) -> None:
    """Write key after key, each until it is acknowledged, going to the next endpoint at once.

    Ends with the process that began it, also when that is killed.
    """
    number, chosen, parent = 0, 0, os.getppid()
    with log.open("a", buffering=1) as acknowledged:
        while os.getppid() == parent:
            try:
                context = ssl.create_default_context(cafile=str(files / "ca.pem"))
                context.load_cert_chain(files / "client.pem", files / "client-key.pem")
                with httpx.Client(verify=context, timeout=ATTEMPT_SECONDS) as http:
                    while os.getppid() == parent:
                        key = f"{prefix}/{number}"
                        body = {"key": base64.b64encode(key.encode()).decode(), "value": "eA=="}
                        http.post(f"{urls[chosen]}/v3/kv/put", json=body).raise_for_status()
                        acknowledged.write(json.dumps([key, time.time()]) + "\n")
                        number += 1
                        time.sleep(PAUSE_SECONDS)
            except (httpx.HTTPError, OSError):
                chosen = (chosen + 1) % len(urls)


if __name__ == "__main__":
    write_without_a_pause(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
