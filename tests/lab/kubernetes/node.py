"""What makes a lab's host a Kubernetes node: what is on its disk, and how its container is started.

The programs are this machine's, bound read-only; units and paths are those of the packages that
kubernetes.io and Debian make. Containerd's directory is on this machine's disk, since it cannot lie
on an overlay, and holds the release's images as hard links: what a host does to its own files never
changes the cache, for containerd replaces files and does not write into them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import cgroups
from tests.lab.commands import run
from tests.lab.errors import LabError

if TYPE_CHECKING:
    from tests.lab.installation import Disk
    from tests.lab.kubernetes.programs import Kubernetes

SYSTEM_DISK_MB = 4096

PROGRAMS, RUNTIME, CRICTL = "/opt/kubernetes", "/opt/runtime", "/opt/crictl"
"""Where a host has this machine's programs; those in /usr/bin are links to them."""

CONTAINERD = "/var/lib/containerd"
COPY_SECONDS = 120.0

CONTROLLERS = ("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids")
"""cgroup v1's, each mounted at its name: how the nodes were seen to work."""

WATCHERS = Path("/proc/sys/fs/inotify/max_user_instances")
WATCHERS_NEEDED = 4096

FORBIDDEN = "CAP_SYS_TIME,CAP_SYS_MODULE,CAP_SYS_RAWIO"
"""What no container needs, and what would reach this machine."""

SYSCTLS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
"""What the kubelet wants to find; a host cannot set this machine's, so files lie over them."""

PREPARE = f"""\
#!/bin/bash
# What a machine of its own would have: control groups and settings that may be written.
set -e
for controller in {" ".join(CONTROLLERS)}; do
    mount -o remount,rw,bind "/sys/fs/cgroup/$controller"
done
[ -e /dev/kmsg ] || ln -s /dev/null /dev/kmsg
mkdir -p /run/node-settings
while read -r name value; do
    file=/run/node-settings/${{name//\\//.}}
    echo "$value" > "$file"
    mount --bind "$file" "/proc/sys/$name"
done <<'SETTINGS'
{chr(10).join(f"{name} {value}" for name, value in SYSCTLS.items())}
SETTINGS
mount --make-rshared /
"""

PREPARE_UNIT = """\
[Unit]
Description=Control groups and settings of a machine of its own

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/prepare-node

[Install]
WantedBy=multi-user.target
"""

CONTAINERD_UNIT = """\
[Unit]
Description=containerd container runtime
After=network.target local-fs.target prepare-node.service
Requires=prepare-node.service

[Service]
ExecStart=/usr/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=5

[Install]
WantedBy=multi-user.target
"""

KUBELET_UNIT = """\
[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target containerd.service

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
"""

KUBEADM_DROP_IN = """\
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
--kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS \
$KUBELET_EXTRA_ARGS
"""

CONTAINERD_CONFIGURATION = """\
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", \
"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def unavailable_reason() -> str | None:
    """Say why this machine's hosts cannot be Kubernetes nodes; None when they can."""
    mounted = {part for path in cgroups.list_own_groups(controllers=True) for part in path.parts}
    missing = [name for name in CONTROLLERS if name not in mounted]
    if missing:
        return (
            "the lab's Kubernetes nodes need cgroup v1's controllers, each mounted below "
            f"/sys/fs/cgroup; {', '.join(missing)} not found"
        )
    if not Path("/usr/bin/gcc").exists():
        return "the lab's Kubernetes nodes need a C compiler: apt-get install -y gcc libc6-dev"
    return None


def make_room() -> None:
    """Let root watch more files at once: with 128, which is usual, no more than six nodes start.

    A node's kubelet, API server and systemd take 20 of this machine's inotify instances, and a host
    whose systemd gets none ends while it boots, without a word. The limit stays when the lab goes.
    """
    if int(WATCHERS.read_text()) < WATCHERS_NEEDED:
        WATCHERS.write_text(f"{WATCHERS_NEEDED}\n")


def install_node(disk: Disk, release: Kubernetes, containerd: Path) -> None:
    """Write what a node has before `kubeadm` runs, and give it the images; starts nothing.

    `disk` is the host's, `containerd` the directory that it will have as /var/lib/containerd.
    """
    for program in ("kubeadm", "kubelet"):
        disk.link(f"usr/bin/{program}", f"{PROGRAMS}/{program}")
    disk.link("usr/bin/crictl", f"{CRICTL}/crictl")
    for path in sorted(release.runtime.iterdir()):
        where = "usr/sbin" if path.name == "runc" else "usr/bin"
        disk.link(f"{where}/{path.name}", f"{RUNTIME}/{path.name}")
    disk.write("usr/local/sbin/prepare-node", PREPARE, 0o755)
    system, packaged = "etc/systemd/system", "usr/lib/systemd/system"
    disk.write(f"{system}/prepare-node.service", PREPARE_UNIT)
    disk.write(f"{packaged}/containerd.service", CONTAINERD_UNIT)
    disk.write(f"{packaged}/kubelet.service", KUBELET_UNIT)
    disk.write(f"{packaged}/kubelet.service.d/10-kubeadm.conf", KUBEADM_DROP_IN)
    wants = f"{system}/multi-user.target.wants"
    disk.link(f"{wants}/prepare-node.service", "/etc/systemd/system/prepare-node.service")
    disk.link(f"{wants}/containerd.service", "/lib/systemd/system/containerd.service")
    disk.write("etc/containerd/config.toml", CONTAINERD_CONFIGURATION.format(pause=release.pause))
    disk.write("etc/crictl.yaml", "runtime-endpoint: unix:///run/containerd/containerd.sock\n")
    disk.directory("etc/kubernetes/manifests")
    _copy_store(release.store, containerd)


def _copy_store(store: Path, target: Path) -> None:
    """Copy containerd's directory: its databases, which are written into, and links to the rest."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    run("cp", "--archive", "--link", str(store), str(target), timeout=COPY_SECONDS)
    for database in target.glob("io.containerd.*/*.db"):
        copied = database.with_suffix(".copied")
        shutil.copy2(database, copied)
        copied.rename(database)


def nspawn_options(release: Kubernetes, containerd: Path) -> list[str]:
    """List what systemd-nspawn is told besides, for a host that runs containers."""
    if not containerd.is_dir():
        raise LabError(f"{containerd} is gone: install the host again (reinstall)")
    return [
        "--capability=all",
        f"--drop-capability={FORBIDDEN}",
        "--system-call-filter=@keyring bpf @mount",
        f"--bind-ro={release.programs}:{PROGRAMS}",
        f"--bind-ro={release.runtime}:{RUNTIME}",
        f"--bind-ro={release.crictl}:{CRICTL}",
        f"--bind={containerd}:{CONTAINERD}",
    ]
