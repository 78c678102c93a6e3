"""Edits of one thing in a file that works: a manifest, HAProxy, an inventory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.config.dependents import edit_backend, edit_etcd_servers
from tasks.model.dependents import Moves
from tasks.model.inventory_file import edit_hosts, parse_inventory
from tasks.model.machines import Host
from tasks.model.members import DesiredMember
from tasks.report.inventories import inventory_diff


def member(number: int) -> DesiredMember:
    """Make a member m1 or m2 and so on."""
    address = f"10.0.0.{number}"
    return DesiredMember(f"m{number}", f"https://{address}:2380", f"https://{address}:2379")


def url(number: int) -> str:
    """Get its client URL."""
    return member(number).client_url


REPLACED = Moves((url(3),), (member(4),), (member(1), member(2), member(4)))
ADDED = Moves((), (member(4), member(5)), tuple(map(member, range(1, 6))))
REMOVED = Moves((url(1),), (), (member(2), member(3)))

MANIFEST = """\
# kept
apiVersion: v1
kind: Pod
spec:
  containers:
  - command:
    - kube-apiserver
    - --etcd-cafile=/etc/etcd/ssl/ca.pem
    - --etcd-servers={urls}
    - --secure-port=6443
    name: kube-apiserver
"""


@pytest.mark.parametrize(
    ("before", "moves", "after"),
    [
        ([1, 2, 3], REPLACED, [1, 2, 4]),
        ([3, 2, 1], REPLACED, [4, 2, 1]),
        ([1, 2, 4], REPLACED, [1, 2, 4]),
        ([1, 2], REPLACED, [1, 2, 4]),
        ([1, 2, 3], ADDED, [1, 2, 3, 4, 5]),
        ([1, 2, 3], REMOVED, [2, 3]),
        ([9], REPLACED, [9]),
    ],
)
def test_etcd_servers_follow_the_members(before: list[int], moves: Moves, after: list[int]) -> None:
    """One line changes; who comes has the place of who went; another list stays."""
    text = MANIFEST.format(urls=",".join(map(url, before)))
    wanted = ",".join(map(url, after))
    assert edit_etcd_servers(text, moves) == (MANIFEST.format(urls=wanted), wanted)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MANIFEST.replace("    - --etcd-servers={urls}\n", ""), "0 lines"),
        (MANIFEST.format(urls=url(3)) + f"x:\n- --etcd-servers={url(1)}\n", "2 lines"),
        (MANIFEST.format(urls=url(3)) + "  : [", "not YAML"),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused(text: str, said: str) -> None:
    """None, two, or no YAML."""
    with pytest.raises(ValueError, match=said):
        edit_etcd_servers(text, REPLACED)


HAPROXY = """\
defaults
    mode tcp
    server not-this 10.0.0.3:2379

backend etcd
    balance roundrobin
    server m1 10.0.0.1:2379 check inter 1s
    # the old one
    server m2 10.0.0.2:2379 check
    server m3 10.0.0.3:2379 check backup
    option tcp-check

backend other
    server m3 10.0.0.3:2379 check
"""


def test_a_backend_follows_the_members() -> None:
    """Only this section's server lines; the options of the last are the new one's."""
    edited = edit_backend(HAPROXY, "etcd", REPLACED)
    assert "    server m1 10.0.0.1:2379 check inter 1s\n" in edited
    assert "    server m4 10.0.0.4:2379 check backup\n" in edited
    assert edited.count("10.0.0.3:2379") == 2
    assert "    # the old one\n" in edited
    assert edit_backend(edited, "etcd", REPLACED) == edited
    assert edit_backend(HAPROXY, "etcd", Moves((), (), tuple(map(member, (1, 2, 3))))) == HAPROXY


@pytest.mark.parametrize("name", ["none", "defaults"])
def test_a_backend_that_is_not_there_is_refused(name: str) -> None:
    """A section of another kind does not count."""
    with pytest.raises(ValueError, match="no backend or listen section"):
        edit_backend(HAPROXY, name, REPLACED)


INVENTORY = """\
# ours
name: c
hosts:
  - {name: a, address: 10.0.0.1}  # first
  - name: b
    address: 10.0.0.2
    ssh: {port: 2222}
  - {name: c, address: 10.0.0.3}
etcd:
  version: 3.5.16
authority:
  certificate: ca.pem
  key: ca-key.pem
  passphrase: {env: X}
"""


def test_an_inventory_keeps_all_else() -> None:
    """A replacement has the place and the SSH options; a diff shows only that."""
    edited = edit_hosts(
        INVENTORY, frozenset({"b"}), {"d": (Host(name="d", address="10.0.0.4"), "b")}
    )
    assert edited == INVENTORY.replace("name: b", "name: d").replace("10.0.0.2", "10.0.0.4")
    assert inventory_diff(INVENTORY, edited, "c.yaml").count("\n+") == 3
    gone = edit_hosts(INVENTORY, frozenset({"a"}), {})
    assert [h.name for h in parse_inventory(gone, Path("/x/c.yaml")).hosts] == ["b", "c"]
    added = edit_hosts(INVENTORY, frozenset(), {"d": (Host(name="d", address="10.0.0.4"), None)})
    hosts = parse_inventory(added, Path("/x/c.yaml")).hosts
    assert [h.name for h in hosts] == ["a", "b", "c", "d"]
    assert added.startswith(INVENTORY.partition("etcd:")[0])


def test_a_host_that_is_listed_already_can_take_anothers_place() -> None:
    """Its entry stays as it was, where it was; the other's goes."""
    edited = edit_hosts(
        INVENTORY, frozenset({"b"}), {"c": (Host(name="c", address="10.0.0.3"), "b")}
    )
    hosts = parse_inventory(edited, Path("/x/c.yaml")).hosts
    assert [h.name for h in hosts] == ["a", "c"]
    assert "  - {name: c, address: 10.0.0.3}\n" in edited


@pytest.mark.parametrize("address", ["fd77::4", "::4", "fd77::", "2001:db8:0:0:1:2:3:4"])
def test_an_ipv6_address_is_quoted(address: str) -> None:
    """Bare within braces it is a key to some readers of YAML."""
    host = Host(name="d", address=address, extra_sans=("d.example", address))
    edited = edit_hosts(INVENTORY, frozenset({"a"}), {"d": (host, "a")})
    assert f'{{name: d, address: "{address}", extra_sans: [d.example, "{address}"]}}' in edited
    assert parse_inventory(edited, Path("/x/c.yaml")).hosts[0] == host


CLIENTS = """\
clients:
- {name: api-b, host: b, certificate: /s/node-b.pem, key: /s/node-b-key.pem, trusted: /s/ca.pem}
- {name: api-a, host: a, certificate: /s/node-a.pem, key: /s/node-a-key.pem, trusted: /s/ca.pem}
"""


@pytest.mark.parametrize("added", [{}, {"d": (Host(name="d", address="10.0.0.4"), "b")}])
def test_a_client_on_a_host_that_leaves_stays_at_its_address(
    added: dict[str, tuple[Host, str | None]],
) -> None:
    """Its certificate is still about; the machine is reached as before."""
    edited = edit_hosts(INVENTORY + CLIENTS, frozenset({"b"}), added)
    there, other = parse_inventory(edited, Path("/x/c.yaml")).clients
    assert (there.host, there.address, there.ssh.port) == (None, "10.0.0.2", 2222)
    assert (other.host, other.address) == ("a", None)
