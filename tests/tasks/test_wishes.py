"""Who joins, leaves or moves, in the operator's words: what goes with the host, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.model.certificates import Role
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.inventory_file import edit_hosts, load_inventory
from tasks.plans.member_names import find_unruled
from tasks.procedures.wishes import Wish, completed, joining_hosts, leaving_hosts

TEXT = """
name: c1
hosts:
  - {name: m1, member: etcd1, address: 10.0.0.1}
  - {name: m2, member: etcd2, address: 10.0.0.2}
  - name: m3
    member: etcd3
    address: 10.0.0.3
    ssh: {port: 2222}
    pairs: {server: {certificate: /s/odd.pem, key: /s/odd-key.pem}}
    certificates: {server: {access: {owner: root, key_mode: "0640"}}}
etcd: {version: 3.5.16}
authority: {certificate: ca.pem, key: ca-key.pem, passphrase: {env: CA}}
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    """Load it."""
    path = tmp_path / "c1.yaml"
    path.write_text(TEXT)
    return load_inventory(str(path))


def hosts_after(inventory: Inventory, wish: Wish) -> list[dict[str, object]]:
    """Edit the file as a run would, and read its hosts."""
    joining = joining_hosts(inventory, wish)
    gone = leaving_hosts(inventory, wish)
    text = edit_hosts(TEXT, gone, joining)
    return list(YAML(typ="safe").load(text)["hosts"])


@pytest.mark.parametrize("word", ["m3", "etcd3", "10.0.0.3"])
def test_a_member_that_moves_keeps_what_is_its_hosts(inventory: Inventory, word: str) -> None:
    """Its name, its files and how they are made; called by any of its names."""
    before = YAML(typ="safe").load(TEXT)["hosts"]
    after = hosts_after(inventory, Wish(moving=f"{word}=10.0.0.9"))
    assert after == [*before[:2], before[2] | {"address": "10.0.0.9"}]


def test_another_host_in_a_members_place_is_itself(inventory: Inventory) -> None:
    """It has the place's SSH options, nothing of the old host's files, and a name of its own."""
    after = hosts_after(inventory, Wish(leaving=("etcd3",), joining=("m4=10.0.0.4",)))
    m4 = {"name": "m4", "member": "etcd4", "address": "10.0.0.4"}
    assert after[2] == m4 | {"ssh": {"port": 2222}}


OWN = "/s/{0}/{0}.pem", "/s/10.0.0.{0}.pem", "/s/etcd{0}-m{0}.pem"


@pytest.mark.parametrize("path", OWN)
def test_a_new_hosts_pairs_lie_where_the_others_have_theirs(tmp_path: Path, path: str) -> None:
    """Where each host has files of its own: by host, member or address, if they follow a rule."""
    rows = [
        f"  - {{name: m{n}, member: etcd{n}, address: 10.0.0.{n}, pairs: {{server: "
        f"{{certificate: {path.format(n)}, key: {path.format(n)}.key}}}}}}"
        for n in (1, 2, 3)
    ]
    text = "\n".join(["", "name: c1", "hosts:", *rows, *TEXT.splitlines()[-2:], ""])
    file = tmp_path / "own.yaml"
    file.write_text(text)
    inventory = load_inventory(str(file))
    joining = joining_hosts(inventory, Wish(joining=("m4=10.0.0.4",)))
    after = inventory.model_copy(update={"hosts": (*inventory.hosts, joining["m4"][0])})
    told = find_unruled(after.hosts, frozenset({"m4"}))
    if path == OWN[0]:  # a number that is no name of theirs
        assert joining["m4"][0].pairs == {}
        assert "m4: the server's pair of each other host lies in a place of its own" in told[0]
        return
    assert told == ()
    pair = after.layout("m4").pair(Role.SERVER)
    assert str(pair.certificate) == path.format(4)
    made = YAML(typ="safe").load(edit_hosts(text, frozenset(), joining))["hosts"][3]
    assert made["pairs"] == {"server": {"certificate": path.format(4), "key": f"{pair.key}"}}
    assert find_unruled(inventory.hosts, frozenset()) == ()


@pytest.mark.parametrize(
    ("url", "name"), [("{0}.example.org", "m4.example.org"), ("x{1}y.example.org", None)]
)
def test_a_new_members_urls_have_a_name_where_the_others_have(
    tmp_path: Path, url: str, name: str | None
) -> None:
    """After the others' rule, or the host is to be said first; a host that moves keeps its name."""
    rows = [
        f"  - {{name: m{n}, address: 10.0.0.{n}, peer_address: {url.format(f'm{n}', n)}}}"
        for n in (1, 2, 3)
    ]
    file = tmp_path / "named.yaml"
    file.write_text("\n".join(["", "name: c1", "hosts:", *rows, *TEXT.splitlines()[-2:], ""]))
    inventory = load_inventory(str(file))
    if name is None:
        with pytest.raises(Refused, match=r"URLs have names \(x1y\.example\.org.*by no rule"):
            joining_hosts(inventory, Wish(joining=("m4=10.0.0.4",)))
    else:
        host, _ = joining_hosts(inventory, Wish(joining=("m4=10.0.0.4",)))["m4"]
        assert (host.peer_address, host.client_address) == (name, None)
    host, _ = joining_hosts(inventory, Wish(moving="m2=10.0.0.9"))["m2"]
    assert (host.address, host.peer_address) == ("10.0.0.9", url.format("m2", 2))
    file.write_text(file.read_text().replace("address: 10.0.0.2", "address: two.example.org"))
    with pytest.raises(Refused, match=r"m2: its URLs have a name \(.*`address` of m2"):
        joining_hosts(load_inventory(str(file)), Wish(moving="m2=10.0.0.9"))
    host, _ = joining_hosts(inventory, Wish(leaving=("m2",), joining=("m2=10.0.0.9",)))["m2"]
    assert (host.address, host.peer_address) == ("10.0.0.9", url.format("m2", 2))


def test_a_host_that_joins_again_is_found_by_its_members_name(inventory: Inventory) -> None:
    """And a stranger is told who there is."""
    found = completed(Wish(leaving=("etcd3", "m1"), returns=True), inventory)
    assert found.joining == ("m3", "m1")
    with pytest.raises(Refused, match="etcd9: no such member; the inventory has m1, m2, m3"):
        completed(Wish(leaving=("etcd9",), returns=True), inventory)
    assert completed(Wish(leaving=("m1",)), inventory).joining == ()
    assert inventory.hosts[2].member_name == "etcd3"
