"""What tests of the membership runbooks share: a running cluster, spare hosts, its member list."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.model.inventory_file import load_inventory
from tests.integration.runbooks import Ended, Prefect, etcdctl, run_runbook

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

SSL = "/etc/etcd/ssl"


@dataclass(frozen=True, slots=True)
class Scene:
    """A cluster on the lab's first hosts; the others are spare. `clients` has a client's files."""

    lab: Lab
    inventory: Path
    clients: Path
    spare: tuple[str, ...]

    def address(self, host: str) -> str:
        """Write a host as the runbooks want one that joins."""
        return f"{host}={self.lab[host].address}"

    @property
    def members(self) -> list[str]:
        """The hosts that the inventory names now."""
        return [host.name for host in load_inventory(str(self.inventory)).hosts]


def raise_cluster(
    start_lab: StartLab,
    prefect: Prefect,
    files: Path,
    *,
    members: int = 3,
    spare: int = 1,
    etcd: str | None = None,
    named: bool = False,
) -> Scene:
    """Bootstrap a cluster and leave some hosts bare; etcd is the test's version unless given.

    `named`: the members have names that are not their hosts', and that no certificate can have.
    """
    lab = start_lab(hosts=members + spare, **({"etcd": etcd} if etcd else {}))
    names = list(lab.hosts)
    lines = lab.inventory.read_text().splitlines(keepends=True)
    path = files / f"{lab.name}.yaml"
    text = "".join(x for x in lines if not any(f"name: {n}," in x for n in names[members:]))
    for name in names if named else ():
        text = text.replace(f"name: {name},", f"name: {name}, member: Etcd_{lab[name].address},")
    path.write_text(text)
    ended = run_runbook(prefect, "bootstrap_cluster", path)
    assert ended.status == 0, ended.output
    clients = files / "clients"
    clients.mkdir()
    for name in ("ca.pem", "client.pem", "client-key.pem"):
        shutil.copy(lab[names[0]].root / SSL.removeprefix("/") / name, clients)
    return Scene(lab, path, clients, tuple(names[members:]))


def fill(lab: Lab, host: str, megabytes: int) -> None:
    """Write so much data that cannot be compressed."""
    tls = f"--cacert={SSL}/ca.pem --cert={SSL}/client.pem --key={SSL}/client-key.pem"
    put = f"ETCDCTL_API=3 /usr/local/bin/etcdctl --endpoints=https://{lab[host].address}:2379 {tls}"
    script = (
        f"for n in $(seq {megabytes}); do head -c 786432 /dev/urandom | base64 -w0 | "
        f"{put} put fill/$n >/dev/null || exit 1; done"
    )
    lab[host].run(script, timeout=100).check()


def list_members(lab: Lab, on: str) -> dict[str, dict[str, Any]]:
    """List the members as etcdctl does on one host, by name; unstarted ones by peer URL."""
    found = json.loads(etcdctl(lab, "member", "list", "-w", "json", on=on))["members"]
    return {m.get("name") or m["peerURLs"][0]: m for m in found}


def find_leader(lab: Lab, hosts: list[str], ssl: str = SSL) -> str:
    """Name the host whose member leads; `ssl` is where a client's files are on each."""
    for host in hosts:
        (row,) = json.loads(etcdctl(lab, "endpoint", "status", "-w", "json", on=host, ssl=ssl))
        status = row["Status"]
        if status["leader"] == status["header"]["member_id"]:
            return host
    raise AssertionError("nobody leads")


def replace(prefect: Prefect, scene: Scene, dead: str, spare: str, *options: str) -> Ended:
    """Replace one member by a spare host, the inventory with it."""
    words = ("--member", dead, "--replacement", scene.address(spare), "--write-inventory")
    return run_runbook(prefect, "replace_member", scene.inventory, *words, *options)


def check_cluster(prefect: Prefect, scene: Scene, members: list[str]) -> None:
    """See that exactly these are members, healthy, with data that all agree on."""
    ended = run_runbook(prefect, "check_health", scene.inventory)
    assert ended.status == 0, ended.output
    assert scene.members == members
    inventory = load_inventory(str(scene.inventory))
    own = {inventory.layout(host).member for host in members}
    assert set(list_members(scene.lab, members[-1])) == own
    key = f"checked/{time.time_ns()}"
    etcdctl(scene.lab, "put", key, "x", on=members[-1])
    for host in members:
        assert etcdctl(scene.lab, "get", key, "--print-value-only", on=host).strip() == "x"
        configuration = (scene.lab[host].root / "etc/etcd/etcd.conf").read_text()
        line = next(x for x in configuration.splitlines() if "ETCD_INITIAL_CLUSTER=" in x)
        named = {part.split("=")[0] for part in line.split("=", 1)[1].strip('"').split(",")}
        assert named == own, host
