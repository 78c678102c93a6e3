"""Laying a cluster of the field onto hosts of the lab."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.field.layouts import Cluster, Laid
    from tests.lab.host import Host
    from tests.lab.lab import Lab


def lay(lab: Lab, cluster: Cluster) -> None:
    """Write what each host has, and start etcd everywhere."""
    for name, laid in cluster.hosts.items():
        lab[name].run(["bash", "-euo", "pipefail", "-c", _script(laid)], timeout=60).check()
    start([lab[name] for name in cluster.hosts])


def start(hosts: list[Host]) -> None:
    """Start etcd on all hosts at once and wait until each is ready."""
    for host in hosts:
        host.run(
            "systemctl daemon-reload; systemctl enable etcd; systemctl start --no-block etcd"
        ).check()
    for host in hosts:
        done = host.run("systemctl start etcd || journalctl -u etcd -n 15 --output=cat", timeout=60)
        assert "Job" not in done.stderr, done.stdout


def _script(laid: Laid) -> str:
    accounts = [f"id {a} 2>/dev/null || useradd --system --user-group {a}" for a in laid.accounts]
    lines = [*accounts, f"mkdir -p {' '.join(laid.directories)}", "chmod 0700 /var/lib/etcd"]
    for path, file in laid.files.items():
        lines += [
            f"printf %s {quote(file.text)} > {path}",
            f"chown {file.owner} {path}; chmod {file.mode} {path}",
        ]
    return "\n".join(lines)
