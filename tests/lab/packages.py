"""Debian packages that are not installed on this machine, as files: for hosts, and unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import go_modules
from tests.lab.commands import execute, run
from tests.lab.debian import NETWORK_SECONDS
from tests.lab.etcd_programs import CACHE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.host import Host

HERE = CACHE.parent / "packages"
ARCHIVES = Path("/var/cache/apt/archives")
APT_WRITES = ("var/cache/debconf", "var/log/apt")
"""What a new host's empty directories lack, and apt does not make."""


def fetch_packages(*names: str) -> Path:
    """Download packages, with what they need beyond this machine's; returns their directory."""
    directory = HERE / "+".join(sorted(names))
    (directory / "partial").mkdir(parents=True, exist_ok=True)
    with go_modules.lock(directory / ".lock", NETWORK_SECONDS):
        get = ["apt-get", "install", "-qq", "-y", "--download-only", "--no-install-recommends"]
        cache = ["-o", f"Dir::Cache::archives={directory}"]
        execute([*get, *cache, *names], timeout=NETWORK_SECONDS).check()
    return directory


def offer_packages(host: Host, *names: str) -> None:
    """Put packages where a host's apt looks before it asks a mirror, to which hosts have no way."""
    target = host.root / ARCHIVES.relative_to("/")
    for directory in (target / "partial", *(host.root / one for one in APT_WRITES)):
        directory.mkdir(parents=True, exist_ok=True)
    for archive in fetch_packages(*names).glob("*.deb"):
        (target / archive.name).write_bytes(archive.read_bytes())


def unpack_packages(names: Sequence[str], directory: Path) -> Path:
    """Unpack packages into a directory, without installing them; returns it."""
    for archive in fetch_packages(*names).glob("*.deb"):
        run("dpkg-deb", "-x", str(archive), str(directory))
    return directory
