"""Packages of other Debian suites, downloaded without touching the machine's own apt.

Everything lies in one directory: sources, lists, cache, status. The mirror is the one that the
machine's own sources name, and signatures are checked against the installed Debian keyring.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.lab.commands import Completed, execute, run
from tests.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SUITES = ("trixie", "sid")
"""Those that have etcd of other versions."""

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

NETWORK_SECONDS = 300.0
"""How long apt may take; the lists of both suites are about 20 MB."""

CONFIGURATION = """\
Dir::Etc::sourcelist "{home}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "{home}/state";
Dir::State::status "{home}/state/status";
Dir::Cache "{home}/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
"""


class Suites:
    """The private apt of one directory. Not safe in two processes at once: hold a lock."""

    def __init__(self, home: Path, suites: Sequence[str] = SUITES) -> None:
        self.home = home
        self.suites = suites

    def update(self) -> None:
        """Fetch the suites' lists; CommandFailed with apt's words when the mirror is not there."""
        for directory in ("state/lists/partial", "cache/archives/partial"):
            (self.home / directory).mkdir(parents=True, exist_ok=True)
        (self.home / "state/status").touch()
        source = f"deb [signed-by={KEYRING}] {machine_mirror()}"
        lines = "".join(f"{source} {suite} main\n" for suite in self.suites)
        (self.home / "sources.list").write_text(lines)
        (self.home / "apt.conf").write_text(CONFIGURATION.format(home=self.home))
        self._apt("apt-get", "update", "--error-on=any")

    def list_versions(self, package: str) -> dict[str, str]:
        """Map each suite that has a package to its version there."""
        versions: dict[str, str] = {}
        for line in self._apt("apt-cache", "madison", package).stdout.splitlines():
            _, version, source = (part.strip() for part in line.split("|"))
            suite = source.split()[1].partition("/")[0]
            versions.setdefault(suite, version)
        return versions

    def download(self, package: str, version: str, directory: Path) -> Path:
        """Download one package file into a directory."""
        self._apt("apt-get", "download", f"{package}={version}", directory=directory)
        return next(directory.glob(f"{package}_*.deb"))

    def _apt(self, *argv: str, directory: Path | None = None) -> Completed:
        environment = {**os.environ, "APT_CONFIG": str(self.home / "apt.conf"), "LC_ALL": "C"}
        return execute(
            argv, timeout=NETWORK_SECONDS, environment=environment, directory=directory
        ).check()


def machine_mirror() -> str:
    """Tell the URI that the machine's own sources name for Debian's main archive."""
    fields = "$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)"
    targets = run("apt-get", "indextargets", "--format", fields, "Created-By: Packages")
    for line in targets.splitlines():
        uri, codename, component, origin = (*line.split(), "", "", "", "")[:4]
        if origin == "Debian" and component == "main" and "-" not in codename:
            return uri
    raise LabError("this machine's apt sources name no Debian mirror: run `apt-get update`")
