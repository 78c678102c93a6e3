"""Directories for a cluster's data on the runner: they go with the run, or with the next one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tasks.store.temporary import temporary


def test_what_a_killed_run_has_left_goes_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A living one's stays, and so does what is not a run's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], check=True,
                          capture_output=True, text=True).stdout.strip()  # fmt: skip
    left = tmp_path / f"etcd-runbooks-restore-{dead}-abc"
    strange = [tmp_path / name for name in ("etcd-runbooks-x", "other", "etcd-runbooks-a-b-c")]
    for path in (left, *strange):
        (path / "data").mkdir(parents=True)
    with temporary("rehearsal") as living, temporary("restore") as own:
        assert living.stat().st_mode & 0o777 == 0o700
        assert living.is_dir()
        assert own.is_dir()
    assert sorted(tmp_path.iterdir()) == sorted(strange)
