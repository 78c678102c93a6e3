"""A team's server as README describes it: deployments, a process worker, PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.integration.runbooks import ROOT, Prefect, end

TOOL = (sys.executable, "-m", "prefect", "--no-prompt")
BOUNDED = (sys.executable, "-m", "tasks.engine.bounded")
"""Ours, which runs the checkout's runbooks and nothing else."""
PREFECTS = (*TOOL, "worker", "start", "--pool", "etcd", "--install-policy", "never")


def environment(prefect: Prefect) -> dict[str, str]:
    """No variable but the server's address, and a worker that looks for runs often."""
    return {**prefect.environment, "PREFECT_WORKER_QUERY_SECONDS": "2"}


def deploy(prefect: Prefect, *options: str, checkout: Path = ROOT) -> None:
    """Make the work pool and deploy from a checkout."""
    create = ("work-pool", "create", "etcd", "--type", "process", "--overwrite")
    for command in (create, ("deploy", *options)):
        ended = subprocess.run(
            [*TOOL, *command],
            cwd=checkout,
            env=environment(prefect),
            check=False,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr


@contextlib.contextmanager
def worker(
    prefect: Prefect, checkout: Path = ROOT, command: Sequence[str] = BOUNDED
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process worker in a checkout, in a process group of its own."""
    log = (prefect.home / "worker.log").open("w")
    process = subprocess.Popen(
        command,
        cwd=checkout,
        env=environment(prefect),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)
        log.close()


def copy_checkout(target: Path) -> Path:
    """Copy what a worker needs of the checkout, as another machine would have it."""
    for name in ("flows", "tasks", "templates", "deployments"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", target)
    shutil.copy(ROOT / "pyproject.toml", target)
    return target


def children(process: int) -> list[int]:
    """List a process and all its descendants."""
    found = [process]
    for one in found:
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(word) for word in path.read_text().split()]
    return found


def kill_all(process: int) -> None:
    """End a worker and its runs as a power cut does."""
    for one in children(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
