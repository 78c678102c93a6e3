"""SELinux's labels on hosts whose kernel has no SELinux: Debian's own policy says what they are.

A label is an extended attribute, which any kernel keeps; nothing is enforced, no process has one,
and a new file does not get its directory's. So a file that nobody has labelled is seen at once.
"""

from __future__ import annotations

import bz2
import fcntl
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.commands import run
from tests.lab.debian import Suites
from tests.lab.errors import LabError
from tests.lab.etcd_programs import CACHE

if TYPE_CHECKING:
    from tests.lab.host import Host

SUITE = "bookworm"
PACKAGES = ("selinux-policy-default", "selinux-utils", "semodule-utils")
HERE = CACHE.parent / "selinux"
THERE = Path("/opt/selinux")
CONTEXTS, MATCHER = "file_contexts", "matchpathcon"
ATTRIBUTE = "security.selinux"
RESTORECON = f"""#!/usr/bin/python3
import os, subprocess, sys
for path in sys.argv[1:]:
    asked = ["{THERE / MATCHER}", "-n", "-f", "{THERE / CONTEXTS}", os.path.abspath(path)]
    context = subprocess.run(asked, check=True, capture_output=True).stdout.strip()
    os.setxattr(path, "{ATTRIBUTE}", context + b"\\0")
"""
"""What restorecon does where there is SELinux, but for a tree: this one takes no -R."""
SHOW = f"""
import os, subprocess, sys
for path in sys.argv[1:]:
    asked = ["{THERE / MATCHER}", "-n", "-f", "{THERE / CONTEXTS}", path]
    wanted = subprocess.run(asked, check=True, capture_output=True).stdout.strip()
    try:
        has = os.getxattr(path, "{ATTRIBUTE}").rstrip(b"\\0")
    except OSError:
        has = b"none"
    if has != wanted:
        print(path, "is", has.decode(), "and its place's is", wanted.decode())
"""


def label_files(host: Host) -> None:
    """Give a host a restorecon that writes the labels of Debian's policy."""
    _fetch()
    target = host.root / THERE.relative_to("/")
    target.mkdir(parents=True)
    for name in (CONTEXTS, MATCHER):
        shutil.copy(HERE / name, target)
    tool = host.root / "usr/local/sbin/restorecon"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(RESTORECON)
    tool.chmod(0o755)


def find_mislabelled(host: Host, paths: list[str]) -> list[str]:
    """Tell which files do not have their place's label, with both."""
    return host.run(["python3", "-c", SHOW, *paths]).check().stdout.splitlines()


def _fetch() -> None:
    HERE.mkdir(parents=True, exist_ok=True)
    with (HERE / ".lock").open("w") as lock, tempfile.TemporaryDirectory(dir=HERE) as name:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (HERE / CONTEXTS).exists():
            return
        directory, suites = Path(name), Suites(HERE / ".apt", (SUITE,))
        suites.update()
        for package in PACKAGES:
            version = suites.list_versions(package).get(SUITE)
            if version is None:
                raise LabError(f"Debian {SUITE} has no {package}: see {suites.home}")
            archive = suites.download(package, version, directory)
            run("dpkg-deb", "-x", str(archive), str(directory))
        lines: dict[str, str] = {}
        for module in (directory / "usr/share/selinux/default").glob("*.pp.bz2"):
            for line in _contexts(directory, module).splitlines():
                if not re.search(r"^#|^\s*$|HOME_DIR|HOME_ROOT|%\{", line):
                    *place, context = line.split()
                    lines.setdefault(" ".join(place), context)
        shutil.copy(directory / "usr/sbin" / MATCHER, HERE)
        written = directory / CONTEXTS
        written.write_text("".join(f"{place} {context}\n" for place, context in lines.items()))
        written.rename(HERE / CONTEXTS)


def _contexts(directory: Path, module: Path) -> str:
    """Take a policy module's list of contexts out of its package."""
    opened, listed = directory / "module", directory / "contexts"
    opened.write_bytes(bz2.decompress(module.read_bytes()))
    tool = directory / "usr/bin/semodule_unpackage"
    listed.unlink(missing_ok=True)
    run(str(tool), str(opened), str(directory / "rest"), str(listed))
    return listed.read_text() if listed.exists() else ""
