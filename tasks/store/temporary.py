"""Directories of this machine for what a run needs of a cluster's data, and no longer.

Only this account enters them, and they go with the run. What a run that was killed has left goes
with the next one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "etcd-runbooks-"


@contextmanager
def temporary(purpose: str) -> Iterator[Path]:
    """Make a directory for as long as the block, in the place for temporary files (`TMPDIR`)."""
    _sweep()
    prefix = f"{PREFIX}{purpose}-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        yield Path(name)


def _sweep() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*-*"):
        owner = path.name.removeprefix(PREFIX).split("-")[1]
        if owner.isdecimal() and path.is_dir() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(path, ignore_errors=True)  # another account's stays
