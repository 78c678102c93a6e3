"""PREFECT_HOMEs for tests, with the database's tables in them.

Prefect takes ten seconds of a processor to make those, for each new home; here they are made once
for each version of Prefect, by its own command, and copied. That a home without any works is what
`test_demo`, `test_worker` and `test_embedded` try.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.etcd_programs import CACHE
from tests.lab.go_modules import lock

UPGRADE = (sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes")
MAKING_SECONDS = 600.0
NAME = "prefect.db"


def home_environment(home: Path) -> dict[str, str]:
    """Say what a process gets to use a PREFECT_HOME: nothing else of Prefect's."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    return {**inherited, "PREFECT_HOME": str(home)}


def prepare_home(home: Path) -> Path:
    """Return the same directory, made when need be, with a database that no run has used.

    The copy is kept where the lab keeps its programs; who is not root has Prefect make the tables.
    """
    home.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return home
    directory = CACHE.parent / "prefect" / importlib.metadata.version("prefect")
    with lock(directory / ".lock", MAKING_SECONDS):
        if not (directory / NAME).exists():
            _make_database(directory)
    if not (home / NAME).exists():
        shutil.copyfile(directory / NAME, home / NAME)
    return home


def _make_database(directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as made:
        subprocess.run(
            UPGRADE,
            env=home_environment(Path(made)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=MAKING_SECONDS,
            check=True,
        )
        Path(made, NAME).rename(directory / NAME)
