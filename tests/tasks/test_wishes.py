"""Who joins, leaves or moves, in the operator's words: what goes with the host, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.inventory_file import edit_hosts, load_inventory
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


def test_a_host_that_joins_again_is_found_by_its_members_name(inventory: Inventory) -> None:
    """And a stranger is told who there is."""
    found = completed(Wish(leaving=("etcd3", "m1"), returns=True), inventory)
    assert found.joining == ("m3", "m1")
    with pytest.raises(Refused, match="etcd9: no such member; the inventory has m1, m2, m3"):
        completed(Wish(leaving=("etcd9",), returns=True), inventory)
    assert completed(Wish(leaving=("m1",)), inventory).joining == ()
    assert inventory.hosts[2].member_name == "etcd3"
