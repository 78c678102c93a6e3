"""What Kubernetes nodes run, by version: programs, container runtime, images; fetched once.

The cache holds, each complete or absent: a release's programs, built as Go modules with the sums
that are kept in `modules`; Debian's containerd and runc, downloaded and unpacked, not installed;
and containerd's own directory with a release's images in it, which hosts get a copy of.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import etcd_programs
from tests.lab.commands import run
from tests.lab.debian import Suites
from tests.lab.errors import CommandFailed, CommandTimedOut, LabError
from tests.lab.etcd_programs import ETCD_3_6, ETCD_3_7, get_programs
from tests.lab.go_modules import Go, lock
from tests.lab.kubernetes import images

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

CACHE = etcd_programs.CACHE.parent / "kubernetes"

MODULES = Path(__file__).parent / "modules"
"""One directory a pinned release, with its go.mod and go.sum; and crictl's."""

KUBERNETES_1_37 = "1.37.2"
KUBERNETES_1_34 = "1.34.4"

ETCD: Mapping[str, str] = {KUBERNETES_1_37: ETCD_3_7, KUBERNETES_1_34: ETCD_3_6}
"""The etcd in each release's image; kubeadm names images of 3.7.0 and 3.6.5."""

PROGRAMS = ("kubeadm", "kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
PACKAGES = "k8s.io/kubernetes/cmd"
CRICTL = "sigs.k8s.io/cri-tools/cmd"
"""A module of its own: beside Kubernetes it would raise what that depends on."""

SUITE = "bookworm"
"""Whose containerd 1.6 and runc 1.1 are enough for kubelets before 1.38."""

NICENESS = 15
"""A build takes a quarter of an hour of two idle cores, and tests run beside it."""

BUILD_SECONDS = 5400.0
"""How long one process waits for another that builds the same."""


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """A release: `programs`, `runtime`, `crictl` are directories of programs, `store` containerd's.

    `pause` is the name of the image of a pod's sandbox.
    """

    version: str
    etcd: str
    programs: Path
    runtime: Path
    crictl: Path
    store: Path
    pause: str


def is_built(version: str) -> bool:
    """Tell whether all of a release is in the cache."""
    return images.store_path(_home(version)).is_dir()


def get_kubernetes(version: str = KUBERNETES_1_37) -> Kubernetes:
    """Return a release, built when need be; LabError when it cannot be had, and why.

    Safe in several processes at once: one builds, the others wait for it. A build that is ended
    half-way goes on from there.
    """
    if version not in ETCD:
        raise LabError(f"Kubernetes {version} is not to be had: choose {' or '.join(ETCD)}")
    home, runtime, crictl = _home(version), CACHE / "containerd", CACHE / "crictl"
    if not is_built(version):
        with lock(CACHE / ".lock", BUILD_SECONDS):
            _make(home / "programs", lambda target: _build_release(version, target))
            _make(crictl, lambda target: _build("crictl", target, CRICTL, ["crictl"]))
            _make(runtime, _fetch_runtime)
            etcd = get_programs(ETCD[version]).directory
            wanted = images.list_wanted(version, home / "programs", etcd)
            _make(
                images.store_path(home), lambda target: images.fill_store(target, wanted, runtime)
            )
    names = images.list_names(version, home / "programs")
    store = images.store_path(home)
    return Kubernetes(
        version, ETCD[version], home / "programs", runtime, crictl, store, names["pause"]
    )


def _home(version: str) -> Path:
    return CACHE / version


def _make(directory: Path, fill: Callable[[Path], None]) -> None:
    """Fill a directory of the cache unless it is there; it appears whole or not at all."""
    if directory.is_dir():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=directory.parent) as name:
        made = Path(name) / "made"
        made.mkdir()
        fill(made)
        made.rename(directory)


def _build_release(version: str, target: Path) -> None:
    stamps = {
        "gitVersion": f"v{version}",
        "gitMajor": "1",
        "gitMinor": version.split(".")[1],
        "gitTreeState": "clean",
        "gitCommit": "0" * 40,
        "buildDate": "2026-01-01T00:00:00Z",
    }
    linking = " ".join(f"-X k8s.io/component-base/version.{k}={v}" for k, v in stamps.items())
    _build(version, target, PACKAGES, PROGRAMS, linking)


def _build(
    module: str, target: Path, packages: str, programs: Sequence[str], linking: str = ""
) -> None:
    """Build programs; Go's caches stay until all are built, and gigabytes are freed then."""
    cache = CACHE / f".building-{module}"
    directory = cache / "module"
    try:
        go = Go.find(CACHE.parent / "go", cache, NICENESS)
        directory.mkdir(parents=True, exist_ok=True)
        for file in ("go.mod", "go.sum"):
            shutil.copy(MODULES / module / file, directory / file)
        for program in programs:
            go.build(directory, f"{packages}/{program}", target / program, linking)
    except (CommandFailed, CommandTimedOut) as error:
        raise LabError(
            f"Kubernetes' {module} could not be built from its Go modules: {error}\n"
            f"it needs the Go module proxy (GOPROXY), or a cached build in {CACHE / module}"
        ) from error
    # The module cache is read-only to everyone but root, who runs this.
    shutil.rmtree(cache)


def _fetch_runtime(target: Path) -> None:
    """Download and unpack containerd and runc; nothing is installed on this machine."""
    suites = Suites(CACHE / ".apt", (SUITE,))
    suites.update()
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        directory = Path(name)
        for package in ("containerd", "runc"):
            version = suites.list_versions(package).get(SUITE)
            if version is None:
                raise LabError(f"Debian {SUITE} has no {package}: see {suites.home}")
            archive = suites.download(package, version, directory)
            run("dpkg-deb", "-x", str(archive), str(directory / "unpacked"))
        for found in ("usr/bin", "usr/sbin"):
            shutil.copytree(directory / "unpacked" / found, target, dirs_exist_ok=True)
