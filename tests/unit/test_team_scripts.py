"""The scripts and units of deployments/, which make a team's server."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
SCRIPTS = ("team.sh", "etcd-runbooks-team")
SECRET = re.compile(r"AUTH_STRING|ENCRYPTION_KEY|password", re.IGNORECASE)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script: str) -> None:
    """As in every other script."""
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    ended = subprocess.run(
        ["shellcheck", str(DEPLOYMENTS / script)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("path", sorted(DEPLOYMENTS.glob("*.service")), ids=lambda path: path.name)
def test_a_unit_has_an_account_and_no_secret(path: Path) -> None:
    """Secrets come from files that root alone reads; a worker's stop waits for its runs."""
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    service = unit["Service"]
    assert service["User"].startswith("etcd-runbooks")
    assert not SECRET.search(service["ExecStart"])
    lines = [line for line in path.read_text().splitlines() if line.startswith("Environment=")]
    assert not [line for line in lines if SECRET.search(line)]
    if "worker" in path.name:
        assert (service["KillMode"], service["TimeoutStopSec"]) == ("process", "1h")


def test_without_root_nothing_is_begun() -> None:
    """And it says so."""
    if shutil.which("runuser") is None or Path("/proc/self").stat().st_uid != 0:
        pytest.skip("it takes root to be somebody else")
    ended = subprocess.run(
        ["runuser", "-u", "nobody", "--", "bash", "-s", "server"],
        stdin=(DEPLOYMENTS / "team.sh").open(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr.startswith("refused: ")) == (2, True)
    assert "run it as root" in ended.stderr
