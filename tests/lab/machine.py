"""One host's machine: its disk, its power, its console.

A machine is a systemd-nspawn container that boots systemd as PID 1 on an overlay of this machine's
own system. Its processes are those of its control group; whether it is on is read from there.
A disk lives on a tmpfs and survives power cuts whole: writes that were never synced are kept too,
which real disks do not promise.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import cgroups, mounts, network
from tests.lab.commands import Completed, execute, run
from tests.lab.credentials import read_public_key
from tests.lab.errors import HostError
from tests.lab.etcd_programs import get_programs
from tests.lab.installation import Disk, install
from tests.lab.kubernetes.node import SYSTEM_DISK_MB as NODE_DISK_MB
from tests.lab.kubernetes.node import install_node, nspawn_options
from tests.lab.kubernetes.programs import get_kubernetes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.state import LabRecord

BOOT_SECONDS = 60.0
"""A boot takes about one second; many at once on a busy machine take longer."""

STOP_SECONDS = 100.0
"""Above systemd's 90 s for a service that does not stop."""

SYSTEM_DISK_MB = 2048
"""The size of a host's disk; memory is only used for what is written (about 0.1 MB when bare)."""

CONSOLE_LINES = 25
"""How much of the console an error shows."""

REBOOT_STATUS = 133
"""systemd-nspawn ends with it (under --keep-unit) when the host asked for a reboot."""

BOOTS = shlex.quote(f'while "$@"; [ $? -eq {REBOOT_STATUS} ]; do :; done')
"""What is run with the words of a boot: again after each reboot, until the host is off."""

MACHINE_POWERS = "-sys_time,-sys_module,-sys_rawio"
"""What no host may do, on its console neither: set this machine's clock, load modules."""

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "linux",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """A host's hardware, by the lab's record and the number of its address."""

    lab: LabRecord = field(repr=False)
    name: str
    number: int

    @property
    def address(self) -> str:
        """Its address on the lab's bridge."""
        return str(self.lab.address(self.number))

    @property
    def directory(self) -> Path:
        """Where this machine keeps the host: disks, namespace, console."""
        return self.lab.directory / "hosts" / self.name

    @property
    def root(self) -> Path:
        """The host's file system as seen from here, running or not."""
        return self.directory / "root"

    @property
    def console(self) -> Path:
        """What systemd said, of all boots."""
        return self.directory / "console.log"

    @property
    def namespace(self) -> Path:
        """The host's network namespace; there only while it is on."""
        return self.directory / "net"

    @property
    def containerd(self) -> Path:
        """A Kubernetes node's images and containers."""
        return self.lab.disks / self.name / "containerd"

    @property
    def cgroup(self) -> list[Path]:
        """The directories of the host's control group."""
        return self.lab.cgroup(self.name)

    @property
    def host_key(self) -> str:
        """Its public SSH host key, without the comment."""
        text = (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        return " ".join(text.split()[:2])

    @property
    def is_running(self) -> bool:
        """Tell whether any process of it runs."""
        return bool(cgroups.list_processes(self.cgroup))

    @property
    def is_plugged(self) -> bool:
        """Tell whether its cable is plugged in; kept over stops and starts."""
        return not (self.directory / "unplugged").exists()

    def install(self) -> None:
        """Make its disks and install a bare system with a new identity; leaves it off."""
        self.directory.mkdir(parents=True, exist_ok=True)
        disk = self.directory / "disk"
        mounts.mount_tmpfs(disk, NODE_DISK_MB if self.lab.kubernetes else SYSTEM_DISK_MB)
        programs = None
        if self.lab.etcd_source == "installed":
            programs = get_programs(self.lab.etcd).directory
        install(disk / "upper", self.name, read_public_key(self.lab), programs)
        if self.lab.kubernetes:
            release = get_kubernetes(self.lab.kubernetes)
            install_node(Disk(disk / "upper"), release, self.containerd)
        mounts.mount_overlay(Path("/"), disk, self.root)
        if self.lab.data_disk_mb is not None:
            data = self.directory / "data"
            mounts.mount_tmpfs(data, self.lab.data_disk_mb)
            mounts.mount_overlay(self.root / "var/lib", data, self.root / "var/lib")

    def erase(self) -> None:
        """Cut the power and throw the disks away."""
        self.power_cut()
        mounts.unmount_below(self.directory)
        for disk in ("root", "disk", "data"):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.directory / disk)
        shutil.rmtree(self.containerd, ignore_errors=True)

    def start(self, timeout: float = BOOT_SECONDS) -> None:
        """Boot it and wait for sshd's banner (with a cut cable: for the service).

        HostError, with the console's tail, when it is on already or is not ready in `timeout` s.
        """
        if self.is_running:
            raise self.error("is running already")
        network.disconnect(self.lab, self.number, self.namespace)
        network.connect(self.lab, self.number, self.namespace, plugged=self.is_plugged)
        self._switch_on()
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if not self.is_running:
                raise self.error("stopped while it was booting")
            if time.monotonic() > deadline:
                raise self.error(f"does not answer on port 22 after {timeout:g} s")
            time.sleep(0.03)

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Shut it down in order: systemd stops every service. A host that is off stays off.

        HostError, with the console's tail, when it still runs after `timeout` seconds.
        """
        parent = self._container()
        if parent is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(parent, signal.SIGTERM)
            deadline = time.monotonic() + timeout
            while self.is_running:
                if time.monotonic() > deadline:
                    raise self.error(f"did not shut down within {timeout:g} s")
                time.sleep(0.03)
        network.disconnect(self.lab, self.number, self.namespace)

    def power_cut(self) -> None:
        """End everything in it at once; its peers hear nothing, not even closed connections."""
        if network.cable(self.lab, self.number) in network.list_links():
            network.set_plugged(self.lab, self.number, plugged=False)
        cgroups.kill(self.cgroup)
        network.disconnect(self.lab, self.number, self.namespace)

    def run(
        self, command: str | Sequence[str], *, timeout: float = 30.0, text: str | None = None
    ) -> Completed:
        """Run a command as root on the console: no sshd, no network. Any exit status is returned.

        A string is given to bash; `text` is its standard input. CommandTimedOut after `timeout`
        seconds, when it was killed; HostError when the host is off.
        """
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        entered = [*self.console_command(), *argv]
        return execute(entered, timeout=timeout, text=text, where=self.name, shown=argv)

    def console_command(self) -> list[str]:
        """List the words before a command that make it run in the host; HostError when off."""
        leader = self._leader()
        if leader is None:
            raise self.error("is off: start it first")
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        environment = [f"{key}={value}" for key, value in ENVIRONMENT.items()]
        enter = ["nsenter", "--target", str(leader), *spaces, "--root", "--wdns=/root", "--"]
        limit = ["setpriv", f"--bounding-set={MACHINE_POWERS}"]
        return [*enter, *limit, "env", "-i", *environment]

    def error(self, problem: str) -> HostError:
        """Make an error of this host that ends with the tail of its console."""
        lines = []
        if self.console.exists():
            lines = self.console.read_text(errors="replace").splitlines()[-CONSOLE_LINES:]
        tail = "\n  ".join(lines) or "(empty)"
        return HostError(
            f"{self.lab.name}: {self.name} ({self.address}) {problem}. {self.console}:\n  {tail}"
        )

    def _switch_on(self) -> None:
        """Start systemd-nspawn in the host's control group, as nobody's child."""
        nspawn = [
            # Not by --network-namespace-path: /sys/class/net would show this machine's links.
            "nsenter",
            f"--net={self.namespace}",
            "systemd-nspawn",
            "--boot",
            "--quiet",
            f"--directory={self.root}",
            f"--machine={self.lab.name}-{self.name}",
            f"--hostname={self.name}",
            *self._powers(),
            "--register=no",
            "--keep-unit",
            "--settings=no",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--console=pipe",
        ]
        join = "; ".join(
            f"echo $$ > {shlex.quote(str(directory / 'cgroup.procs'))} || exit 1"
            for directory in self.cgroup
        )
        # Containers leave groups of their own behind when the power is cut.
        cgroups.remove(self.cgroup)
        for directory in self.cgroup:
            cgroups.make(directory)
        log = shlex.quote(str(self.console))
        # The shell joins before setsid forks: when this returns, the group has a process.
        script = f'exec >>{log} 2>&1; {join}; cd /; exec setsid --fork sh -c {BOOTS} "$@"'
        environment = {**ENVIRONMENT, "SYSTEMD_NSPAWN_LOCK": "0"}
        execute(["sh", "-c", script, "sh", "sh", *nspawn], environment=environment).check()

    def _powers(self) -> list[str]:
        """List what systemd-nspawn lets the host do, and what of this machine it sees."""
        if self.lab.kubernetes:
            return nspawn_options(get_kubernetes(self.lab.kubernetes), self.containerd)
        # Taken away from hosts that do not get their network from nspawn itself.
        return ["--capability=CAP_NET_ADMIN"]

    def _is_ready(self) -> bool:
        if not self.is_plugged:
            booted = self._leader() is not None
            return booted and self.run(["systemctl", "is-active", "ssh"]).status == 0
        try:
            with socket.create_connection((self.address, 22), timeout=1.0) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _leader(self) -> int | None:
        """Find the process that is PID 1 in the host."""
        found: list[tuple[int, int]] = []
        for pid in cgroups.list_processes(self.cgroup):
            inner = _namespace_ids(pid)
            if len(inner) > 1 and inner[-1] == 1:
                found.append((len(inner), pid))
        return min(found)[1] if found else None

    def _container(self) -> int | None:
        """Find the nspawn process that watches over the host's PID 1."""
        leader = self._leader()
        if leader is None:
            return None
        return int(run("ps", "-o", "ppid=", "-p", str(leader)))


def _namespace_ids(pid: int) -> list[int]:
    """List a process's ids from this PID namespace inwards; empty when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    line = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
    return [int(word) for word in line.split()[1:]]
