"""Hosts that are called by names: in capitals, with a domain, and by a name that leads nowhere.

Only the runner resolves them, in an /etc/hosts of its own; the hosts know each other's short names.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.integration.members import list_members
from tests.integration.runbooks import Ended, Prefect, finish, start_runbook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.one_etcd, pytest.mark.timeout(600)]

MEMBERS = ("master01", "master02", "master03")
LOST = "master03"
"""Whose name leads nowhere after a while."""
LIMIT_SECONDS = 60.0
"""On a machine that many tests share; the runner itself gives a name four."""
CAPITALS = "Corp.Example.ORG"
PAIRS = "cd /etc/etcd/ssl; openssl x509 -in server.pem -noout -serial"


@dataclass(frozen=True, slots=True)
class Scene:
    """A lab whose hosts have names, and the runbooks on it."""

    lab: Lab
    inventory: Path
    prefect: Prefect
    names: Path

    def run(self, runbook: str, *words: str, status: int = 0, named: str = "--cluster") -> Ended:
        """Run a runbook, which must end so."""
        started = start_runbook(
            self.prefect, runbook, self.inventory, *words, named=named, names=self.names
        )
        ended = finish(started)
        assert ended.status == status, ended.output
        assert "Traceback" not in ended.output
        return ended

    def resolve(self, *but: str) -> None:
        """Let the runner resolve all names but some."""
        found = {n: h for n, h in self.lab.hosts.items() if n not in but}
        lines = [f"{host.address} {name}.{CAPITALS.lower()}\n" for name, host in found.items()]
        self.names.write_text("127.0.0.1 localhost\n" + "".join(lines))


@pytest.fixture(scope="module")
def scene(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    """Bootstrap three hosts that are named in capitals, here and there; the fourth is spare."""
    lab, files = start_module_lab(hosts=4), tmp_path_factory.mktemp("names")
    text, keys = lab.inventory.read_text(), lab.known_hosts.read_text()
    for name, host in lab.hosts.items():
        full = f"{name.upper()}.{CAPITALS.lower()}"
        host.run(f"hostname {full}; echo {full} > /etc/hostname").check()
        keys = keys.replace(f"{host.address} ", f"{name}.{CAPITALS.lower()} ")
        text = text.replace(f"address: {host.address}", f"address: {name.upper()}.{CAPITALS}")
    lab.known_hosts.write_text(keys)
    lines = text.splitlines(keepends=True)
    inventory = files / "names.yaml"
    inventory.write_text("".join(line for line in lines if "name: master04," not in line))
    scene = Scene(lab, inventory, prefect, files / "hosts")
    scene.resolve()
    said = scene.run("bootstrap_cluster").output
    assert "is this the right machine" not in said
    return scene


def test_a_name_in_capitals_or_with_a_domain_is_the_same_host(scene: Scene) -> None:
    """For SSH, for certificates, and for every parameter that names a host."""
    host = scene.lab["master01"]
    shown = host.run("openssl x509 -in /etc/etcd/ssl/server.pem -noout -ext subjectAltName")
    names = shown.check().stdout.lower()
    assert f"dns:master01.{CAPITALS.lower()}" in names
    assert f"ip address:{host.address}" in names
    assert "is this the right machine" not in scene.run("check_health").output
    scene.run("check_certificates", named="--clusters")
    assert "no pair is due" in scene.run("rotate_certificates").output
    scene.run("move_leader", "--to", "Master02")
    scene.run("move_leader", "--to", f"MASTER01.{CAPITALS.upper()}")
    said = scene.run("show_member", "--member", f"Master03.{CAPITALS}").output
    assert scene.lab["master03"].address in said
    assert "nothing to do" in scene.run("bootstrap_cluster").output


def test_a_name_that_leads_nowhere_stops_only_what_needs_it(scene: Scene) -> None:
    """The others are looked at and renewed; what needs that host says so in one sentence."""
    lab = scene.lab
    told = f"the runner does not resolve {LOST}.{CAPITALS.lower()}"
    others = [lab[name] for name in MEMBERS if name != LOST]
    scene.resolve(LOST)
    try:
        healthy = scene.run("check_health")  # as etcd's list of members says
        checked = scene.run("check_certificates", status=1, named="--clusters")
        for ended in (healthy, checked):
            assert told in ended.output
            assert all(name in ended.stdout for name in MEMBERS)
        scene.run("move_leader")
        scene.run("show_member", "--member", "master01")
        before = [host.run(PAIRS).check().stdout for host in others]
        ended = scene.run("rotate_certificates", "--which", "all", status=3)
        assert f"  - {LOST}: " in ended.stderr
        assert told in ended.stderr
        after = [host.run(PAIRS).check().stdout for host in others]
        assert not set(before) & set(after)
        scene.run("recover_certificates", "--dry-run", status=3)
        for runbook in ("bootstrap_cluster", "rotate_authority"):
            refused = scene.run(runbook, status=2).stderr
            assert refused.count(told) == 1, refused
        missing = scene.run("show_member", "--member", LOST, status=3)
        assert told in missing.output
    finally:
        scene.resolve()
    scene.run("rotate_certificates", "--which", "all")
    scene.run("check_health")


def test_a_name_server_that_is_silent_is_not_taken_for_the_host(scene: Scene) -> None:
    """And nobody waits for it at each turn."""
    servers = scene.names.with_name("resolv.conf")
    scene.resolve(LOST)
    servers.write_text(f"nameserver {scene.lab.gateway.rpartition('.')[0]}.250\n")
    began = time.monotonic()
    try:
        said = scene.run("rotate_certificates", "--dry-run", status=3).stderr
    finally:
        servers.unlink()
        scene.resolve()
    assert f"the runner does not resolve {LOST}.{CAPITALS.lower()}" in said
    assert time.monotonic() - began < LIMIT_SECONDS


def test_a_dead_host_whose_name_is_gone_is_replaced_by_a_name(scene: Scene) -> None:
    """As the machine's entry often goes from DNS with it."""
    lab = scene.lab
    lab[LOST].power_cut()
    scene.resolve(LOST)
    words = ("--member", f"{LOST.upper()}.{CAPITALS.lower()}", "--write-inventory")
    scene.run("replace_member", *words, "--replacement", f"master04=MASTER04.{CAPITALS}")
    assert set(list_members(lab, "master01")) == {"master01", "master02", "master04"}
    assert f"address: MASTER04.{CAPITALS}" in scene.inventory.read_text()
    scene.run("check_health")
    urls = json.dumps(list_members(lab, "master01"))
    assert CAPITALS.lower() not in urls.lower()
