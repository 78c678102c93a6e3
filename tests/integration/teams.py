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
from typing import TYPE_CHECKING

from tests.integration.runbooks import ROOT, Prefect, end

if TYPE_CHECKING:
    from tests.lab.host import Host

CHECKOUT = Path("/opt/etcd-runbooks")
"""Where the units of deployments/ expect it."""
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
    log = (prefect.home / "worker.log").open("a")
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
    for name in ("prefect.yaml", "pyproject.toml", "Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, target)
    return target


@contextlib.contextmanager
def checkout_on(host: Host) -> Iterator[None]:
    """Put a checkout with its environment where the units expect them on a host; it is booted anew.

    The packages are those of this environment: nothing is downloaded.
    """
    host.stop()
    target = copy_checkout(host.root / CHECKOUT.relative_to("/"))
    venv = target / ".venv"
    python = Path(sys.executable).resolve()
    subprocess.run([python, "-m", "venv", "--without-pip", venv], check=True)
    program = (Path(sys.prefix) / "bin/prefect").read_text().split("\n", 1)[1]
    (venv / "bin/prefect").write_text(f"#!{CHECKOUT}/.venv/bin/python\n{program}")
    (venv / "bin/prefect").chmod(0o755)
    (venv / ".complete").touch()
    (packages,) = venv.glob("lib/python*/site-packages")
    own = Path(sys.prefix) / packages.relative_to(venv)
    subprocess.run(["mount", "--bind", own, packages], check=True)
    try:
        host.start()
        yield
    finally:
        host.power_cut()
        subprocess.run(["umount", "--lazy", packages], check=True)


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
