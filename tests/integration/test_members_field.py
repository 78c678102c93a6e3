"""Members of clusters that others have built come, go and move: the cluster's own layout stays."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tasks.config.settings import read_settings
from tasks.hosts.batch import Result
from tasks.hosts.settings import parse_settings, settings_command
from tasks.model.inventory_file import load_inventory
from tests.field.hosts import lay
from tests.field.layouts import Cluster, kubeasz, kubekey, kubespray
from tests.integration.adoptions import adopt, give_key
from tests.integration.runbooks import Ended, Prefect, run_runbook

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.model.member_settings import Settings
    from tests.lab.fixtures import StartLab
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures", "tests.integration.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.chaos, pytest.mark.timeout(900), pytest.mark.one_etcd]

NAMES = {kubespray: "etcd4", kubekey: "etcd-master04", kubeasz: "etcd-{address}"}


@dataclass(frozen=True, slots=True)
class Field:
    """An adopted cluster of three, a spare host, and what its builder would make of all four."""

    lab: Lab
    inventory: Path
    prefect: Prefect
    wanted: Cluster
    name: str

    def run(self, runbook: str, *words: str) -> Ended:
        """Run a runbook, which must end well."""
        ended = run_runbook(self.prefect, runbook, self.inventory, *words)
        assert ended.status == 0, ended.output
        return ended

    def check(self, *names: str) -> None:
        """See that these hosts' members are all there are, healthy, and known to everybody."""
        self.run("check_health")
        inventory = load_inventory(str(self.inventory))
        assert [host.name for host in inventory.hosts] == list(names)
        members = {
            f"{inventory.layout(name).member}=https://{self.lab[name].address}:2380"
            for name in names
        }
        for name in names:
            assert set(self.settings(name).split("initial-cluster")) == members, name

    def settings(self, name: str) -> Settings:
        """Read a member's settings."""
        command = settings_command("etcd.service").script
        said = self.lab[name].run(["bash", "-euo", "pipefail", "-c", command]).check().stdout
        return read_settings(parse_settings("etcd.service", Result("", 0, said, "", 0.0)))


def raise_field(
    builder: Callable[..., Cluster], start_lab: StartLab, prefect: Prefect, files: Path
) -> Field:
    """Lay a cluster on three of four hosts, and adopt it."""
    lab = start_lab(hosts=4, etcd="3.5.16", etcd_source="installed")
    addresses = {host.name: host.address for host in lab.hosts.values()}
    for name in ("wanted", "made"):
        (files / name).mkdir()
    wanted = builder(files / "wanted", addresses)
    first = dict(list(addresses.items())[:3])
    made = builder(files / "made", first)
    lay(lab, made)
    inventory = files / "adopted.yaml"
    ended = adopt(prefect, lab, inventory)
    assert ended.status == 0, ended.output
    give_key(inventory, made)
    name = NAMES[builder].format(address=addresses["master04"])
    return Field(lab, inventory, prefect, wanted, name)


def plain(text: str) -> str:
    """Leave out what differs in every member that has joined: whom it has found, and quotes."""
    text = re.sub(r"(initial-cluster(-state)?|INITIAL_CLUSTER(_STATE)?)=\S+", "", text)
    return text.replace('"', "")


def see_alike(field: Field, name: str) -> None:
    """See that a host has what its builder would have made; no key of another host is there."""
    host = field.lab[name]
    for path, file in field.wanted.hosts[name].files.items():
        if path.endswith((".env", ".service")):
            assert plain(host.run(["cat", path]).check().stdout) == plain(file.text)
    layout = load_inventory(str(field.inventory)).layout(name)
    others = [other for other in field.lab.hosts.values() if other is not host and other.is_running]
    for pair in layout.pairs:
        digest = host.run(f"sha256sum < {pair.key}").check().stdout
        for other in others:
            assert other.run(f"sha256sum < {pair.key} 2>/dev/null || :").stdout != digest


@pytest.mark.parametrize("builder", [kubespray, kubekey, kubeasz])
def test_an_adopted_cluster_keeps_its_own_layout(
    builder: Callable[..., Cluster], start_lab: StartLab, prefect: Prefect, tmp_path: Path
) -> None:
    """A dead member is replaced by a bare host, another in place, a third one moves.

    The new member's name and files are what the builder would have made; loopback listeners and
    metrics' URLs follow their host.
    """
    field = raise_field(builder, start_lab, prefect, tmp_path)
    lab, new = field.lab, field.lab["master04"]
    lab["master02"].power_cut()
    words = ("--member", "master02", "--replacement", f"master04={new.address}")
    field.run("replace_member", *words, "--write-inventory")
    field.check("master01", "master04", "master03")
    assert load_inventory(str(field.inventory)).layout("master04").member == field.name
    see_alike(field, "master04")

    lab["master03"].power_cut()
    lab["master03"].reinstall()
    field.run("replace_member", "--member", "master03")
    field.check("master01", "master04", "master03")
    see_alike(field, "master03")

    old = new.address
    prefix, _, last = old.rpartition(".")
    address = f"{prefix}.{int(last) + 100}"
    before = field.settings("master04")
    link = "$(ip -o address show scope global | awk '{print $2; exit}')"
    new.run(f"ip address add {address}/24 dev {link}").check()
    known = lab.known_hosts.read_text()
    added = [line.replace(old, address) for line in known.splitlines() if old in line]
    lab.known_hosts.write_text(known + "\n".join(added) + "\n")
    moving = ("--member", "master04", "--address", address)
    if builder is kubeasz:  # no DNS name is in its certificates
        refused = run_runbook(prefect, "update_member", field.inventory, *moving)
        assert refused.status == 2, refused.output
        assert f"reaches the other members from {old}" in refused.output
    new.run(f"ip route replace {prefix}.0/24 dev {link} src {address}").check()
    field.run("update_member", *moving, "--write-inventory")
    after = field.settings("master04")
    for name in ("listen-client-urls", "listen-metrics-urls", "listen-peer-urls"):
        assert after.value(name) == before.value(name).replace(old, address)
    assert {n for n in before if before.value(n) != after.value(n)} <= {
        *("listen-client-urls", "listen-metrics-urls", "listen-peer-urls", "initial-cluster"),
        *("advertise-client-urls", "initial-advertise-peer-urls"),
    }
    assert "127.0.0.1:2379" in after.value("listen-client-urls")
    field.run("check_health")
