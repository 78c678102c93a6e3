"""A private PostgreSQL from Debian's packages: its own directory, port and unprivileged account."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ACCOUNT = "nobody"


def find_programs() -> Path:
    """Find the newest version's programs; raises ValueError where none is installed."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))


class Postgres:
    """A database server that can be stopped and started again; `url` is for Prefect."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"postgresql+asyncpg://prefect@127.0.0.1:{self._port}/postgres"
        shutil.chown(directory, ACCOUNT)
        self._run(
            "initdb", "--username=prefect", "--auth=trust", "--no-sync", "-D", str(self._data)
        )

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        options = (
            f"-c port={self._port} -c listen_addresses=127.0.0.1 -c fsync=off "
            f"-c unix_socket_directories={self._directory} -c max_connections=200"
        )
        log = str(self._directory / "log")
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", log, "-o", options)

    def stop(self) -> None:
        """Stop it as a power cut does: no session is ended in order."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self._data))

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            ["runuser", "-u", ACCOUNT, "--", str(find_programs() / program), *words],
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run one for the length of the block; its directory is open to its account on the way."""
    with tempfile.TemporaryDirectory(prefix="etcd-runbooks-postgres-") as name:
        database = Postgres(Path(name))
        database.start()
        try:
            yield database
        finally:
            database.stop()
