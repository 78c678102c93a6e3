"""The images of a node's static pods: made from the programs, not pulled, and unpacked once.

An image is one layer with the static programs in /usr/local/bin and no shell, under the name that
kubeadm's manifests have. Containerd runs on this machine for as long as it unpacks them, with
directories and a socket of its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.commands import execute, run
from tests.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CREATED = "2026-01-01T00:00:00Z"

PAUSE = """\
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/wait.h>

static void end(int signal) { exit(0); }
static void reap(int signal) { while (waitpid(-1, NULL, WNOHANG) > 0); }

int main(void) {
    signal(SIGINT, end);
    signal(SIGTERM, end);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
"""
"""What keeps a pod's namespaces, and collects its dead processes."""

CONFIGURATION = """\
version = 2
root = "{root}"
state = "{home}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", {unused}]
[grpc]
  address = "{home}/socket"
[ttrpc]
  address = "{home}/ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{home}/opt"
"""

UNUSED_SNAPSHOTTERS = ", ".join(
    f'"io.containerd.snapshotter.v1.{name}"' for name in ("aufs", "btrfs", "devmapper", "zfs")
)

IMPORT_SECONDS = 300.0
START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its name, what it runs, and which files are where in it."""

    name: str
    entrypoint: tuple[str, ...]
    files: Mapping[str, Path]


def store_path(home: Path) -> Path:
    """Tell where a release's images are, in containerd's own form."""
    return home / "store"


@cache
def list_names(version: str, programs: Path) -> dict[str, str]:
    """Ask kubeadm for the full names of the images, by their last word."""
    asked = [str(programs / "kubeadm"), "config", "images", "list"]
    listed = run(*asked, "--kubernetes-version", f"v{version}").split()
    return {name.rpartition("/")[2].partition(":")[0]: name for name in listed}


def list_wanted(version: str, programs: Path, etcd: Path) -> list[Image]:
    """List the images that a control plane needs; the pod's sandbox is compiled when it is made."""
    names = list_names(version, programs)
    etcd_files = {f"usr/local/bin/{path.name}": path for path in sorted(etcd.iterdir())}
    return [
        Image(names["pause"], ("/pause",), {}),
        Image(names["etcd"], (), etcd_files),
        *(
            Image(names[name], (), {f"usr/local/bin/{name}": programs / name})
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
        ),
    ]


def fill_store(store: Path, wanted: Sequence[Image], runtime: Path) -> None:
    """Make a directory of containerd's that has the images, unpacked."""
    with tempfile.TemporaryDirectory(prefix=".images-", dir=store.parent) as name:
        home = Path(name)
        (home / "pause.c").write_text(PAUSE)
        run("gcc", "-O2", "-static", "-o", str(home / "pause"), str(home / "pause.c"))
        configuration = home / "config.toml"
        configuration.write_text(
            CONFIGURATION.format(root=store, home=home, unused=UNUSED_SNAPSHOTTERS)
        )
        with (home / "log").open("wb") as log:
            daemon = subprocess.Popen(
                [str(runtime / "containerd"), "--config", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            client = [str(runtime / "ctr"), "--address", str(home / "socket")]
            _wait_for(client, daemon, home / "log")
            for image in wanted:
                archive = home / "image.tar"
                files = image.files or {"pause": home / "pause"}
                write_archive(archive, image.name, image.entrypoint, files)
                words = ["--namespace", "k8s.io", "images", "import", "--snapshotter", "overlayfs"]
                execute([*client, *words, str(archive)], timeout=IMPORT_SECONDS).check()
        finally:
            daemon.terminate()
            try:
                daemon.wait(START_SECONDS)
            finally:
                daemon.kill()


def write_archive(
    path: Path, name: str, entrypoint: Sequence[str], files: Mapping[str, Path]
) -> None:
    """Write an image of one layer as `docker save` does."""
    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w") as archive:
        for parent in sorted({p for file in files for p in Path(file).parents if p != Path()}):
            directory = tarfile.TarInfo(str(parent))
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
        for file, source in files.items():
            program = tarfile.TarInfo(file)
            program.size, program.mode = source.stat().st_size, 0o755
            with source.open("rb") as content:
                archive.addfile(program, content)
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    configuration = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": CREATED,
            "config": {"Env": ["PATH=/usr/local/bin"], "Entrypoint": list(entrypoint)},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created": CREATED}],
        }
    ).encode()
    described = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = [{"Config": described, "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        archive.add(layer, "layer.tar")
        for file, text in (
            (described, configuration),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(file)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    layer.unlink()


def _wait_for(client: Sequence[str], daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while execute([*client, "version"]).status != 0:
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"containerd does not start here: {log.read_text()[-2000:]}")
        time.sleep(0.1)
