"""A team's inventories and authorities, from git: any worker's machine has what any other's wrote.

Where ETCD_RUNBOOKS_CLUSTERS names a checkout of git, a worker's run brings it up to date before it
looks at anything, and what a run writes there (an inventory after a change of members, an
authority, whose key is encrypted) is committed and pushed: an authority before any host hears of
it. On the command line the checkout is the operator's to bring up to date.
`python -m tasks.engine.checkout` does it, by hand or by a timer. Elsewhere nothing happens here.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.model.errors import Refused
from tasks.model.inventory_file import CLUSTERS

GIT_SECONDS = 30
"""For one command of git's, and for waiting until another run has done its own."""
LEFT = "left by a run that ended before it could tell"
NOT_KEPT = (":!*.pem.*", ":!*.yaml.*")
"""Files that are being written, and those set aside."""


def is_shared(directory: Path = CLUSTERS) -> bool:
    """Whether the inventories are a checkout of their own."""
    return (directory / ".git").exists()


async def synchronize(why: str, directory: Path = CLUSTERS) -> None:
    """Commit what was written here, `why` being the commit's subject, fetch, and push.

    Raises Refused, with the way out, where git cannot.
    """
    if is_shared(directory):
        await asyncio.to_thread(_synchronize, directory, why)


def _synchronize(directory: Path, why: str) -> None:
    with _held(directory):
        _git(directory, "add", "--all", "--", ".", *NOT_KEPT)
        if _git(directory, "diff", "--cached", "--name-only"):
            _git(directory, *_author(), "commit", "--quiet", "--message", why)
        try:
            _git(directory, "pull", "--quiet", "--rebase")
        except Refused:
            # Left in the middle, the next run would commit the marks of a conflict.
            with suppress(Refused):
                _git(directory, "rebase", "--abort")
            raise
        if _git(directory, "log", "--oneline", "@{upstream}..HEAD"):
            _git(directory, "push", "--quiet")


def _author() -> tuple[str, ...]:
    host = socket.gethostname()
    return ("-c", f"user.name=etcd runbooks on {host}", "-c", f"user.email=etcd-runbooks@{host}")


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Keep the checkout from other runs of this machine."""
    deadline = time.monotonic() + GIT_SECONDS
    with (directory / ".git" / "etcd-runbooks.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise _refused(directory, "another run is at it") from error
                time.sleep(0.1)
        yield


def _git(directory: Path, *words: str) -> str:
    # Asks nobody for a password, and a machine that is away is waited for shortly.
    asking = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=10",
    }
    try:
        ended = subprocess.run(
            ["git", "-C", str(directory), *words],
            env=asking | dict(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _refused(directory, str(error)) from error
    if ended.returncode != 0:
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        raise _refused(directory, "; ".join(lines[:3]) or f"git {words[0]} failed")
    return ended.stdout


def _refused(directory: Path, why: str) -> Refused:
    return Refused(
        f"{directory} on {socket.gethostname()} is not what the team's repository has: {why}. Put "
        f"it right there, by hand: git -C {directory} status; git -C {directory} pull --rebase; "
        f"git -C {directory} push. A run on the command line takes inventories as they are"
    )


if __name__ == "__main__":
    try:
        asyncio.run(synchronize(LEFT))
    except Refused as error:
        sys.exit(f"refused: {error}")
