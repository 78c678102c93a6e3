"""The life of a cluster all of whose addresses are IPv6, on hosts that have IPv4 as well."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

import pytest

from tasks.model.inventory_file import load_inventory
from tests.integration.odd import OddScene
from tests.integration.rotations import authority_digits
from tests.integration.runbooks import Prefect
from tests.lab.commands import run

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(900)]


@dataclass(frozen=True, slots=True)
class Scene(OddScene):
    """A lab with IPv6, and the runbooks on it."""

    def address(self, number: int) -> str:
        """Write an address of the lab's network."""
        return str(IPv6Address(f"fd77:0:0:{self.lab.record.slot:x}::{number:x}"))

    def members(self, host: str) -> str:
        """List the members by etcdctl on a host."""
        address = load_inventory(str(self.inventory)).host(host).address
        tls = "--cacert=ca.pem --cert=client.pem --key=client-key.pem"
        ask = f"etcdctl --endpoints=https://[{address}]:2379 {tls} member list"
        return self.lab[host].run(f"cd /etc/etcd/ssl; ETCDCTL_API=3 {ask}").check().stdout

    def give(self, host: str, number: int) -> str:
        """Give a host an address, known to SSH."""
        address = self.address(number)
        given = f"ip address add {address}/64 dev eth0 nodad"
        self.lab[host].run(f"sysctl -qw net.ipv6.conf.all.disable_ipv6=0 || :; {given}").check()
        with self.lab.known_hosts.open("a") as known:
            known.write(f"{address} {self.lab[host].host_key}\n")
        return address


@pytest.fixture(scope="module")
def scene(
    start_module_lab: StartLab, prefect: Prefect, tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    """Bootstrap three hosts; the fourth is spare."""
    lab = start_module_lab(hosts=4)
    scene = Scene(lab, tmp_path_factory.mktemp("ipv6") / "ipv6.yaml", prefect)
    run("ip", "address", "add", f"{scene.address(1)}/64", "dev", lab.record.bridge, "nodad")
    text = lab.inventory.read_text()
    names = "\n".join(f"{scene.give(n, h.number)} {n}" for n, h in lab.hosts.items())
    for name, host in lab.hosts.items():
        host.run(f"sed -i '/master/d' /etc/hosts; echo '{names}' >> /etc/hosts").check()
        own = f'address: "{scene.address(host.number)}"'
        text = text.replace(f"name: {name}, address: {host.address}", f"name: {name}, {own}")
    lines = text.splitlines(keepends=True)
    lines.append("even_members: true\n")
    scene.inventory.write_text("".join(x for x in lines if "name: master04" not in x))
    scene.run("bootstrap_cluster")
    return scene


def test_addresses_are_read_and_written_everywhere(scene: Scene) -> None:
    """Certificates name them, ports serve them, etcdctl shows them in brackets."""
    first = scene.address(scene.lab["master01"].number)
    assert f"https://[{first}]:2380" in scene.members("master01")
    scene.run("check_health")
    shown = scene.lab["master01"].run(
        "openssl x509 -in /etc/etcd/ssl/server.pem -noout -ext subjectAltName"
    )
    words = [word.rstrip(",") for word in shown.check().stdout.split()]
    named = [IPv6Address(word.removeprefix("Address:")) for word in words if word.count(":") > 2]
    assert IPv6Address(first) in named
    scene.run("check_certificates", named="--clusters")
    scene.run("rotate_certificates", "--which", "all")
    scene.run("move_leader")


def test_the_authority_is_exchanged(scene: Scene) -> None:
    """With a rolling restart, each member asked from each other."""
    old = authority_digits(scene.lab.inventory)
    scene.run("rotate_authority", "--replace", old)
    assert authority_digits(scene.lab.inventory) != old
    scene.run("check_health")


def test_members_join_and_leave(scene: Scene) -> None:
    """The inventory's addresses are quoted, for a colon ends a key."""
    new = scene.address(scene.lab["master04"].number)
    scene.run("add_member", "--member", f"master04={new}", "--write-inventory")
    assert f'address: "{new}"' in scene.inventory.read_text()
    assert f"https://[{new}]:2380" in scene.members("master01")
    scene.run("check_health")
    scene.run("remove_member", "--member", new, "--write-inventory")
    assert new not in scene.inventory.read_text()
    assert f"https://[{new}]:2380" not in scene.members("master01")
    scene.run("check_health")


def test_a_member_without_power_is_replaced(scene: Scene) -> None:
    """Nobody has closed its connections: ss finds them by an address in brackets alone."""
    lab = scene.lab
    dead = scene.address(lab["master02"].number)
    held = f"ss -Htn state established dst '[{dead}]'"
    lab["master02"].power_cut()
    assert lab["master01"].run(held).check().stdout
    new = scene.address(lab["master04"].number)
    words = ("--member", "master02", "--replacement", f"master04={new}", "--write-inventory")
    scene.run("replace_member", *words)
    assert not lab["master01"].run(held).check().stdout
    assert f'address: "{new}"' in scene.inventory.read_text()
    scene.run("check_health")


def test_a_member_moves_between_the_families(scene: Scene) -> None:
    """To IPv4, back, and to another address of IPv6; the others stay where they are.

    They come to it from an address of its own family, which their certificates lack at first:
    each of them is named, before anything is changed.
    """
    lab, member = scene.lab, ("--member", "master01", "--write-inventory")
    old, four = scene.members("master03"), lab["master01"].address
    refused = scene.run("update_member", *member, "--address", four, status=2).stderr
    for name in ("master03", "master04"):
        assert f"{name}: reaches master01 from {lab[name].address}, which its" in refused, refused
    assert scene.members("master03") == old
    text = scene.inventory.read_text()
    for name, host in lab.hosts.items():
        text = text.replace(f"name: {name},", f"name: {name}, extra_sans: [{host.address}],")
    scene.inventory.write_text(text)
    scene.run("rotate_certificates")
    for address in (four, scene.address(lab["master01"].number), scene.address(0x111)):
        if address.endswith("::111"):  # a host comes from the newest that it has
            scene.give("master01", 0x111)
        scene.run("update_member", *member, "--address", address)
        written = f"[{address}]" if ":" in address else address
        assert f"https://{written}:2380" in scene.members("master03")
        scene.run("check_health")
    scene.run("check_certificates", named="--clusters")


def test_a_member_whose_data_are_gone_is_replaced_in_place(scene: Scene) -> None:
    """Called by its address."""
    lab = scene.lab
    lab["master03"].run("systemctl stop etcd; rm -r /var/lib/etcd/*").check()
    scene.run("replace_member", "--member", scene.address(lab["master03"].number))
    scene.run("check_health")
    pairs = "cd /etc/etcd/ssl; echo broken > peer.pem; systemctl restart --no-block etcd"
    lab["master03"].run(pairs).check()
    scene.run("recover_certificates", "--consent")
    scene.run("check_health")
