"""Tells whether this machine can hold a lab, and what to install when it cannot."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

PACKAGES = {
    "systemd-nspawn": "systemd-container",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "sudo": "sudo",
    "ip": "iproute2",
    "dbus-daemon": "dbus",
    "ps": "procps",
    "nsenter": "util-linux",
    "apt-get": "apt",
    "etcd": "etcd-server",
    "etcdctl": "etcd-client",
}
"""The programs that the lab runs, and the Debian packages that they are in."""

SEARCHED = "/usr/sbin:/usr/bin:/sbin:/bin"


def unavailable_reason() -> str | None:
    """Say in one sentence why no lab can be started here and what helps; None when it can."""
    if sys.platform != "linux":
        return "the lab needs Linux: its hosts are systemd-nspawn containers"
    if os.geteuid() != 0:
        return "the lab needs root, for mounts and network links: run it as root or with sudo"
    missing = sorted({pkg for program, pkg in PACKAGES.items() if not _has(program)})
    if missing:
        return f"the lab needs Debian packages: apt-get install -y {' '.join(missing)}"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the lab needs overlay mounts: modprobe overlay"
    return None


def _has(program: str) -> bool:
    return shutil.which(program, path=SEARCHED) is not None
