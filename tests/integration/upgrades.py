"""What tests of upgrades share: inventories with programs of several versions, what really runs."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from tests.integration.runbooks import Ended, Prefect, etcdctl, run_runbook
from tests.lab.etcd_programs import get_programs
from tests.lab.inventory import inventory_text

if TYPE_CHECKING:
    from tests.integration.members import Scene
    from tests.lab.host import Host
    from tests.lab.lab import Lab

OLD, MIDDLE, LATER, NEWEST = "3.4.23", "3.5.30", "3.6.16", "3.7.3"


def aim_at(scene: Scene, goal: str, *further: str) -> Scene:
    """Let the inventory want a version, and know the programs of further ones; a new scene."""
    programs = get_programs(goal)
    lines = scene.inventory.read_text().splitlines(keepends=True)
    hosts = "".join(line for line in lines if line.startswith("  - {name: "))
    fresh = inventory_text(scene.lab.record, programs)
    head, _, rest = fresh.partition("hosts:\n")
    others = "".join(
        line for line in rest.splitlines(keepends=True) if not line.startswith("  - {name: ")
    )
    known = {
        version: {
            "source": "directory",
            "path": str(get_programs(version).directory),
            "sha256": dict(get_programs(version).sha256),
        }
        for version in further
        if version != goal
    }
    others = others.replace(
        "  settings: {}\n", f"  settings: {{}}\n  versions: {json.dumps(known)}\n"
    )
    path = scene.inventory.with_name(f"to-{goal}-{scene.inventory.name}")
    path.write_text(f"{head}hosts:\n{hosts}{others}")
    return dataclasses.replace(scene, inventory=path)


def upgrade(prefect: Prefect, scene: Scene, *options: str) -> Ended:
    """Bring a scene's cluster to its inventory's version."""
    return run_runbook(prefect, "upgrade_cluster", scene.inventory, *options)


def versions(lab: Lab, hosts: list[str]) -> dict[str, str]:
    """Ask each member for its version, as etcdctl does on its own host."""
    found = {}
    for host in hosts:
        (row,) = json.loads(etcdctl(lab, "endpoint", "status", "-w", "json", on=host))
        found[host] = row["Status"]["version"]
    return found


def put_replaced_back(host: Host, version: str) -> None:
    """Put the programs of a version that an upgrade has replaced under what runs."""
    kept = "/var/backups/etcd-runbooks/*/usr/local/bin"
    host.run(
        f"for one in {kept}/etcd {kept}/etcd.~*; do "
        f"if $one --version 2>/dev/null | grep -q 'Version: {version}'; then "
        "install -m 0755 $one /usr/local/bin/etcd; "
        "install -m 0755 ${one%/*}/etcdctl${one##*/etcd} /usr/local/bin/etcdctl; exit 0; fi; "
        "done; exit 1"
    ).check()


def leftovers(lab: Lab) -> str:
    """List what an upgrade must not leave on any host."""
    names = "ls -d /usr/local/bin/.etcd-* /usr/local/bin/*.???????? /var/lib/etcd-runbooks/forced*"
    return "".join(host.run(f"{names} 2>/dev/null").stdout for host in lab.hosts.values())
