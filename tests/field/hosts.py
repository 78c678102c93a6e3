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
    start([lab[name] for name in cluster.hosts], cluster.unit)


def start(hosts: list[Host], unit: str = "etcd") -> None:
    """Start etcd on all hosts at once and wait until each is ready."""
    for host in hosts:
        host.run(
            f"systemctl daemon-reload; systemctl enable {unit}; systemctl start --no-block {unit}"
        ).check()
    for host in hosts:
        said = f"journalctl -u {unit} -n 15 --output=cat"
        done = host.run(f"systemctl start {unit} || {said}", timeout=60)
        assert "Job" not in done.stderr, done.stdout


def _script(laid: Laid) -> str:
    accounts = [f"id {a} 2>/dev/null || useradd --system --user-group {a}" for a in laid.accounts]
    lines = [
        *accounts,
        f"mkdir -p {' '.join(laid.directories)}",
        f"chmod 0700 {laid.data}; chown {laid.account}: {laid.data}",
    ]
    for path, file in laid.files.items():
        lines += [
            f"printf %s {quote(file.text)} > {path}",
            f"chown {file.owner} {path}; chmod {file.mode} {path}",
        ]
    return "\n".join(lines)
