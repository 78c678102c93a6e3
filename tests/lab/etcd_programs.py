"""etcd's programs by version: this machine's own, another Debian suite's, or built from Go modules.

The cache holds one directory a version, complete or absent. A private apt configuration downloads
packages of other suites from the mirror that this machine's apt uses; nothing is installed. 3.6
and 3.7, which Debian lacks, are built (`go_modules`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import go_modules
from tests.lab.commands import execute, run
from tests.lab.debian import Suites
from tests.lab.errors import CommandFailed, LabError

if TYPE_CHECKING:
    from collections.abc import Mapping

CACHE = Path("/var/cache/etcd-runbooks-lab/etcd")

INSTALLED = "installed"
"""The version of the machine's own packages (3.4.23 on bookworm): no network is needed."""

DEFAULT = "3.5.16"
"""trixie's."""

NEWEST = "newest"
"""Whatever Debian's sid has; looked up once, then the cached version is meant."""

ETCD_3_6 = "3.6.16"
ETCD_3_7 = "3.7.3"
"""Built from Go modules."""

FETCH_SECONDS = 1800.0
"""How long one process waits for another that fetches or builds the same version."""

PROGRAMS = ("etcd", "etcdctl", "etcdutl")
"""etcdutl exists from 3.5 on."""

MACHINE_PROGRAMS = Path("/usr/bin")

VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True, slots=True)
class EtcdPrograms:
    """A directory with etcd and etcdctl (and etcdutl) of one version, and their SHA-256 sums."""

    version: str
    directory: Path
    sha256: Mapping[str, str]


def get_programs(version: str = DEFAULT) -> EtcdPrograms:
    """Return the programs of a version (`3.5.16`, INSTALLED or NEWEST), fetched when need be.

    LabError says which versions can be had when that one cannot. Safe in several processes at
    once: one fetches a version, the others that want the same wait for it.
    """
    if version == INSTALLED:
        version = _machine_version()
    if version != NEWEST and not VERSION.fullmatch(version):
        raise LabError(
            f"{version!r} is no version of etcd: give one such as {DEFAULT}, "
            f"{INSTALLED} or {NEWEST}"
        )
    directory = _find(version)
    if directory is None:
        kind = "modules" if go_modules.RELEASES.fullmatch(version) else "debian"
        with go_modules.lock(CACHE / f".{kind}.lock", FETCH_SECONDS):
            # Another process may have fetched it while this one waited.
            directory = _find(version) or _fetch(version)
    sums = {path.name: _sha256(path) for path in sorted(directory.iterdir())}
    return EtcdPrograms(directory.name, directory, sums)


def program_version(etcd: Path) -> str:
    """Ask an etcd binary for its version; LabError when it does not run here."""
    try:
        answer = execute([str(etcd), "--version"]).check().stdout
    except (CommandFailed, OSError) as error:
        raise LabError(f"{etcd} does not run on this machine: {error}") from error
    return answer.split()[2]


def _find(version: str) -> Path | None:
    """Find a version in the cache; NEWEST is a link there."""
    directory = CACHE / version
    return directory.resolve() if directory.is_dir() else None


def _fetch(version: str) -> Path:
    """Put a version into the cache and return its directory; the lock is held."""
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=CACHE) as name:
        temporary = Path(name)
        programs = temporary / "programs"
        programs.mkdir()
        if go_modules.RELEASES.fullmatch(version):
            go_modules.build(version, CACHE.parent / "go", programs)
        else:
            if version == _machine_version_or_none():
                found = MACHINE_PROGRAMS
            else:
                found = _download(version, temporary) / "usr/bin"
            for program in PROGRAMS:
                if (found / program).exists():
                    shutil.copy2(found / program, programs / program)
        true_version = program_version(programs / "etcd")
        execute([str(programs / "etcdctl"), "version"], environment={"ETCDCTL_API": "3"}).check()
        target = CACHE / true_version
        if not target.exists():
            programs.chmod(0o755)
            programs.rename(target)
    if version == NEWEST:
        temporary_link = CACHE / f".{NEWEST}.{os.getpid()}"
        temporary_link.symlink_to(true_version)
        temporary_link.rename(CACHE / NEWEST)
    elif true_version != version:
        raise LabError(f"the package of etcd {version} holds etcd {true_version}: ask for that")
    return target


def _download(version: str, directory: Path) -> Path:
    """Download and unpack the packages of a version that another suite has."""
    suites = Suites(CACHE.parent / "apt")
    suites.update()
    versions = suites.list_versions("etcd-server")
    if version == NEWEST:
        package = versions.get("sid")
    else:
        matching = (found for found in versions.values() if _upstream(found) == version)
        package = next(matching, None)
    if package is None:
        have = [f"{_upstream(found)} ({suite})" for suite, found in versions.items()]
        own = _machine_version_or_none()
        have += [f"{own} (this machine's packages)"] if own else []
        raise LabError(
            f"etcd {version} is not to be had: Debian has {', '.join(have) or 'none'}. "
            f"sid moves; `--etcd {NEWEST}` takes what it has now. Any 3.6 and 3.7 is built from "
            f"Go modules; pinned are {', '.join(go_modules.list_pinned())}"
        )
    for name in ("etcd-server", "etcd-client"):
        archive = suites.download(name, package, directory)
        run("dpkg-deb", "-x", str(archive), str(directory / "unpacked"))
    return directory / "unpacked"


def _upstream(package_version: str) -> str:
    """Take etcd's own version out of a package's (`3.5.16-4`)."""
    found = VERSION.match(package_version)
    return found[0] if found else package_version


def _machine_version() -> str:
    version = _machine_version_or_none()
    if version is None:
        raise LabError(
            "this machine has no etcd of its own: apt-get install etcd-server etcd-client, "
            f"or choose a version such as {DEFAULT}"
        )
    return version


def _machine_version_or_none() -> str | None:
    programs = [MACHINE_PROGRAMS / "etcd", MACHINE_PROGRAMS / "etcdctl"]
    if not all(program.exists() for program in programs):
        return None
    return program_version(programs[0])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
