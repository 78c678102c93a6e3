"""A snapshot restored into a directory of this machine, and etcd run on it where no client is.

Etcd listens on sockets in that directory alone, which only this account enters: neither a client
nor a member of the cluster can reach it, and it reaches nobody.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx

from tasks.etcd.client import POLL_SECONDS, EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.etcd.login import Login
from tasks.model.errors import EtcdUnavailable, RunbookError
from tasks.model.restores import UNLIMITED_BYTES

START_SECONDS = 120.0
END_SECONDS = 10.0
LAST_LINES = 5
_CLIENTS, _PEERS = "localhost:1", "localhost:2"
"""Socket files; 3.4 takes no name for one that is not written as host and port."""


_WITH_RUNNER = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
"""What is begun ends with this process, also when that is killed: it has a cluster's data."""


class Unrestorable(RunbookError):
    """A snapshot that etcd's own tool does not restore, or etcd does not start on."""


async def restore(programs: Path, snapshot: Path, data: Path) -> None:
    """Restore a snapshot into a data directory that is not there yet; raises Unrestorable.

    `programs` has etcdutl, or etcdctl where that is older than 3.5. Both verify the checksum.
    """
    tool = next(p for p in (programs / "etcdutl", programs / "etcdctl") if p.exists())
    process = await asyncio.create_subprocess_exec(
        *(*_WITH_RUNNER, tool, "snapshot", "restore", snapshot, "--data-dir", data),
        env=_environment() | {"ETCDCTL_API": "3"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        await _end(process)
        raise
    if process.returncode != 0:
        raise Unrestorable(f"{tool.name} does not restore it: {_last(said)}")


async def read_version(programs: Path) -> str:
    """Ask a directory's etcd for its version; empty where none runs."""
    try:
        process = await asyncio.create_subprocess_exec(
            programs / "etcd",
            "--version",
            env=_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return ""
    said, _ = await process.communicate()
    first = said.decode(errors="replace").partition("\n")[0]
    return first.removeprefix("etcd Version: ").strip()


@asynccontextmanager
async def running(
    programs: Path, directory: Path, data: Path, login: Login | None = None
) -> AsyncIterator[EtcdClient]:
    """Run etcd on restored data for as long as the block; gives a client of it.

    Raises Unrestorable with etcd's last words when it ends or does not serve in two minutes.
    """
    log = directory / "etcd.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(*_WITH_RUNNER, programs / "etcd", "--data-dir", data, "--logger=zap"),
            *(f"--listen-client-urls=unix://{_CLIENTS}", f"--listen-peer-urls=unix://{_PEERS}"),
            "--advertise-client-urls=http://localhost:2379",
            f"--quota-backend-bytes={UNLIMITED_BYTES}",
            cwd=directory,
            env=_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        transport = httpx.AsyncHTTPTransport(uds=str(directory / _CLIENTS))
        endpoint = Endpoint("the restored snapshot", "http://localhost:2379")
        async with EtcdClient(
            (endpoint,), ssl.create_default_context(), transport=transport, login=login
        ) as client:
            await _wait(client, process, log)
            yield client
    finally:
        await _end(process)


async def _wait(client: EtcdClient, process: asyncio.subprocess.Process, log: Path) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + START_SECONDS
    while process.returncode is None and clock() < deadline:
        with suppress(EtcdUnavailable):
            if (await client.get_status(client.endpoints[0])).leader:
                return
        await asyncio.sleep(POLL_SECONDS)
    said = await asyncio.to_thread(log.read_bytes)
    what = "does not serve" if process.returncode is None else "ends"
    raise Unrestorable(f"etcd {what} on what was restored: {_last(said)}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """End what was started here; its data is thrown away, so it need not end in order."""
    with suppress(ProcessLookupError):
        process.kill()
    async with asyncio.timeout(END_SECONDS):
        await process.wait()


def _environment() -> dict[str, str]:
    """Leave out what would set something of etcd's, and every secret of the runner's."""
    kept = ("HOME", "PATH", "TMPDIR", "ETCD_UNSUPPORTED_ARCH")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _last(said: bytes) -> str:
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-LAST_LINES:]) or "it says nothing"
