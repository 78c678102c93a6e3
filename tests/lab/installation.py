"""What a freshly installed host has on its disk: the machine's own system, less what is not bare.

Everything is written into the upper layer of an overlay before it is mounted, so that a host
starts without etcd, without the machine's users, services, caches and top-level directories, and
with an identity of its own. Nothing here starts or mounts anything.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.commands import run

if TYPE_CHECKING:
    from collections.abc import Mapping

OPERATOR = "operator"
"""The account that the engine logs in with: passwordless sudo, no password."""

OPERATOR_UID = 1000
NOBODY_UID = 65534

SYSTEM_DIRECTORIES = frozenset(
    "bin boot dev etc home lib lib32 lib64 libx32 media mnt opt proc root run sbin srv sys tmp usr "
    "var".split()
)
"""What Debian has at the top; anything else there is this machine's business."""

EMPTY_DIRECTORIES = (
    "etc/init.d",
    *(f"etc/rc{level}.d" for level in "0123456S"),
    "etc/sudoers.d",
    "etc/systemd/system",
    "home",
    "media",
    "mnt",
    "opt",
    "root",
    "srv",
    "usr/local",
    "var/cache",
    "var/log",
    "var/mail",
    "var/spool",
    "var/tmp",
)
"""Directories whose content is this machine's and not a new host's."""

ETCD_FILES = (
    "etc/default/etcd",
    "usr/lib/systemd/system/etcd.service",
    "var/lib/etcd",
)
ETCD_PROGRAMS = ("usr/bin/etcd", "usr/bin/etcdctl", "usr/bin/etcdutl")

MASKED_UNITS = (
    # Consoles and passwords: nobody sits there.
    "getty.target systemd-ask-password-wall.path systemd-ask-password-console.path "
    # Seats and sessions: see _write_accounts.
    "systemd-logind.service "
    # The kernel and its devices are the machine's.
    "dev-hugepages.mount kmod-static-nodes.service proc-sys-fs-binfmt_misc.automount "
    "sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount "
    "sys-kernel-tracing.mount systemd-binfmt.service systemd-modules-load.service "
    "systemd-sysctl.service systemd-random-seed.service systemd-remount-fs.service "
    "systemd-journald-audit.socket systemd-udevd.service systemd-udev-trigger.service "
    # A new installation's questions, and records that nobody reads.
    "systemd-firstboot.service systemd-repart.service systemd-machine-id-commit.service "
    "systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-update-utmp.service "
    "systemd-update-utmp-runlevel.service systemd-journal-flush.service "
    "systemd-tmpfiles-clean.timer"
).split()

SSHD = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
UseDNS no
# A post-quantum exchange costs a client 0.1 s of CPU a login.
KexAlgorithms curve25519-sha256,ecdh-sha2-nistp256
MaxStartups 500:30:1000
MaxSessions 500
"""


class Disk:
    """The upper layer of a host's disk while it is written."""

    def __init__(self, upper: Path) -> None:
        self.upper = upper

    def directory(self, path: str) -> Path:
        """Make a directory with the mode and owner that the machine's own has."""
        target = self.upper / path
        if not target.exists():
            if path != ".":
                self.directory(str(Path(path).parent))
            target.mkdir()
            target.chmod(0o755)
            origin = Path("/") / path
            if origin.exists():
                status = origin.stat()
                os.chown(target, status.st_uid, status.st_gid)
                target.chmod(stat.S_IMODE(status.st_mode))
        return target

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        """Write a file of root's."""
        target = self.free(path)
        target.touch(mode=0o600)
        target.write_text(text)
        target.chmod(mode)
        return target

    def link(self, path: str, to: str) -> None:
        """Make a symbolic link."""
        self.free(path).symlink_to(to)

    def remove(self, path: str) -> None:
        """Hide what the machine has there (a whiteout); what it has not is no error."""
        origin = Path("/") / path
        if origin.exists() or origin.is_symlink():
            os.mknod(self.free(path), stat.S_IFCHR, os.makedev(0, 0))

    def empty(self, path: str) -> None:
        """Hide all that the machine has in a directory."""
        os.setxattr(self.directory(path), "trusted.overlay.opaque", b"y")

    def free(self, path: str) -> Path:
        """Make the directory of a path whose place must be free, and return the path."""
        target = self.directory(str(Path(path).parent)) / Path(path).name
        target.unlink(missing_ok=True)
        return target


def install(upper: Path, hostname: str, operator_key: str, etcd_programs: Path | None) -> str:
    """Write a new host's disk and return its public host key.

    `operator_key` is the operator's public key. `etcd_programs` is a directory with the etcd
    programs that shall be in /usr/local/bin; None leaves the host without any.
    """
    upper.mkdir(exist_ok=True)
    upper.chmod(0o755)
    disk = Disk(upper)
    for path in EMPTY_DIRECTORIES:
        disk.empty(path)
    for entry in Path("/").iterdir():
        if entry.name not in SYSTEM_DIRECTORIES:
            disk.remove(entry.name)
    for path in ETCD_FILES + ETCD_PROGRAMS:
        disk.remove(path)
    for path in ("bin", "sbin", "lib", "share", "etc"):
        disk.directory(f"usr/local/{path}")
    if etcd_programs is not None:
        for program in etcd_programs.iterdir():
            target = disk.free(f"usr/local/bin/{program.name}")
            shutil.copy(program, target)
            target.chmod(0o755)
    _write_identity(disk, hostname)
    _write_accounts(disk, operator_key)
    _write_services(disk)
    return _make_host_key(disk, hostname)


def write_hosts(etc: Path, hosts: Mapping[str, str]) -> None:
    """Write /etc/hosts: the names and addresses of all hosts of the lab."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{address} {name}" for name, address in hosts.items()]
    (etc / "hosts").write_text("\n".join(lines) + "\n")


def _write_identity(disk: Disk, hostname: str) -> None:
    disk.write("etc/machine-id", f"{secrets.token_hex(16)}\n", 0o444)
    disk.write("etc/hostname", f"{hostname}\n")
    # No name server: a lookup fails at once, and nothing outside the bridge is asked.
    disk.write("etc/resolv.conf", "")
    disk.remove("etc/fstab")
    disk.write("etc/motd", "")
    disk.empty("etc/update-motd.d")


def _write_accounts(disk: Disk, operator_key: str) -> None:
    """Write the account files: the machine's system accounts but etcd's, and the operator."""
    kept = []
    for line in Path("/etc/passwd").read_text().splitlines():
        name, _, uid, *_ = line.split(":")
        if name != "etcd" and (int(uid) < OPERATOR_UID or name == "nobody"):
            kept.append(line)
    home = f"/home/{OPERATOR}"
    groups = [
        line
        for line in Path("/etc/group").read_text().splitlines()
        if line.split(":")[0] != "etcd" and not OPERATOR_UID <= int(line.split(":")[2]) < NOBODY_UID
    ]
    gid = next(line.split(":")[2] for line in groups if line.startswith(f"{OPERATOR}:"))
    kept.append(f"{OPERATOR}:x:{OPERATOR_UID}:{gid}:an operator:{home}:/bin/bash")
    disk.write("etc/passwd", "\n".join(kept) + "\n")
    disk.write("etc/group", "\n".join(groups) + "\n")
    shadow = "".join(f"{line.split(':')[0]}:*:20000:0:99999:7:::\n" for line in kept)
    disk.write("etc/shadow", shadow, 0o640)
    disk.write("etc/gshadow", "".join(f"{line.split(':')[0]}:*::\n" for line in groups), 0o640)
    disk.write(f"etc/sudoers.d/{OPERATOR}", f"{OPERATOR} ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440)
    # Without logind, every login would first ask D-Bus for it in vain.
    session = Path("/etc/pam.d/common-session").read_text().splitlines()
    kept = [line for line in session if "pam_systemd.so" not in line]
    disk.write("etc/pam.d/common-session", "\n".join(kept) + "\n")
    keys = disk.write(f"home/{OPERATOR}/.ssh/authorized_keys", operator_key, 0o600)
    for path in (keys, keys.parent, keys.parent.parent):
        os.chown(path, OPERATOR_UID, int(gid))
    keys.parent.chmod(0o700)


def _write_services(disk: Disk) -> None:
    """Write what systemd starts: sshd, D-Bus, and whatever is enabled on the host later."""
    system = "etc/systemd/system"
    disk.link(f"{system}/default.target", "/lib/systemd/system/multi-user.target")
    disk.link(f"{system}/multi-user.target.wants/ssh.service", "/lib/systemd/system/ssh.service")
    disk.link(f"{system}/sshd.service", "/lib/systemd/system/ssh.service")
    for unit in MASKED_UNITS:
        disk.link(f"{system}/{unit}", "/dev/null")
    for generator in Path("/usr/lib/systemd/system-generators").iterdir():
        disk.link(f"etc/systemd/system-generators/{generator.name}", "/dev/null")
    # /run/nologin would refuse the operator between sshd's start and the end of the boot.
    disk.link("etc/tmpfiles.d/systemd-nologin.conf", "/dev/null")
    disk.write(
        "etc/systemd/journald.conf.d/lab.conf",
        "[Journal]\nStorage=volatile\nRuntimeMaxUse=64M\nReadKMsg=no\nAudit=no\n",
    )


def _make_host_key(disk: Disk, hostname: str) -> str:
    for key in Path("/etc/ssh").glob("ssh_host_*"):
        disk.remove(f"etc/ssh/{key.name}")
    disk.empty("etc/ssh/sshd_config.d")
    disk.write("etc/ssh/sshd_config.d/lab.conf", SSHD)
    key = disk.free("etc/ssh/ssh_host_ed25519_key")
    disk.free("etc/ssh/ssh_host_ed25519_key.pub")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{hostname}", "-f", str(key))
    return key.with_suffix(".pub").read_text()
