"""`make test-pythons`: the lock and the tests without hosts on every Python that is here.

Each interpreter gets a virtual environment of its own, thrown away afterwards, with all of
requirements.lock by its hashes. `PYTHONS="3.13 3.14"` names those to take.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
INSTALL = ("pip", "install", "--quiet", "--require-hashes", "-r", str(ROOT / "requirements.lock"))
TESTS = ("-q", "-n", "2", "-p", "no:cacheprovider", "-m", "not lab and not chaos")
PROBE = "import platform, ssl, venv; print(platform.python_version())"


def probe(program: Path) -> str:
    """Tell an interpreter's version; nothing when it does not run, or is not whole."""
    try:
        ended = subprocess.run(
            [program, "-c", PROBE], check=False, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.strip() if ended.returncode == 0 else ""


def find(version: str) -> tuple[Path, str] | None:
    """Find an interpreter of a version on PATH or among pyenv's; returns it and its full version.

    Pyenv's shims stand on PATH for versions that are not switched on: those do not run.
    """
    directories = [Path(one) for one in os.get_exec_path()]
    pyenv = Path.home() / ".pyenv" / "versions"
    directories += sorted(pyenv.glob(f"{version}.*/bin"), reverse=True)
    for directory in directories:
        program = directory / f"python{version}"
        if program.exists() and (found := probe(program)).startswith(f"{version}."):
            return program, found
    return None


def check(program: Path) -> str:
    """Install the lock and run the tests; returns what failed, or nothing."""
    uv = ROOT / ".venv" / "bin" / "uv"
    with tempfile.TemporaryDirectory(prefix="etcd-runbooks-python-") as home:
        python = f"{home}/bin/python"
        # No interpreter of uv's own: the one that was found, or none.
        make = [str(uv), "venv", "--quiet", "--no-python-downloads", "--python", str(program), home]
        for name, command in {
            "the virtual environment": make,
            "the installation of requirements.lock": [str(uv), *INSTALL, "--python", python],
            "a test": [python, "-m", "pytest", *TESTS],
        }.items():
            if subprocess.run(command, cwd=ROOT, check=False).returncode:
                return name
    return ""


def main() -> int:
    """Check one interpreter after the other, or those named; returns the exit status."""
    results = {}
    for version in sys.argv[1:] or VERSIONS:
        if (found := find(version)) is None:
            results[version] = "skipped: there is no such interpreter here that runs"
            continue
        program, full = found
        sys.stdout.write(f"Python {full}, {program}\n")
        sys.stdout.flush()
        began = time.monotonic()
        failed = check(program)
        seconds = round(time.monotonic() - began)
        results[full] = f"failed: {failed}" if failed else f"passed in {seconds} s"
    sys.stdout.write("".join(f"{version:8} {result}\n" for version, result in results.items()))
    bad = any(result.startswith("failed") for result in results.values())
    return 1 if bad or all(result.startswith("skipped") for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
