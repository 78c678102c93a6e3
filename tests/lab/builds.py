"""Programs that take minutes to build, built in a process of their own beside the first tests."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]

CODE = """
import importlib, sys
module, function, *versions = sys.argv[1:]
for version in versions:
    getattr(importlib.import_module(module), function)(version)
"""


class Builds:
    """One kind of program: `module` has a `function` that builds a version unless it is there."""

    def __init__(self, module: str, function: str) -> None:
        self._build = (module, function)
        self._key = pytest.StashKey[subprocess.Popen[bytes]]()

    def begin(self, session: pytest.Session, versions: Sequence[str]) -> None:
        """Begin to build `versions`, one after the other; nothing waits for it here."""
        if versions:
            session.config.stash[self._key] = subprocess.Popen(
                [sys.executable, "-c", CODE, *self._build, *versions],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def end(self, session: pytest.Session) -> None:
        """End a build that no test has waited for; it cleans up when it is interrupted."""
        build = session.config.stash.get(self._key, None)
        if build is not None and build.poll() is None:
            build.send_signal(signal.SIGINT)
            build.wait()
