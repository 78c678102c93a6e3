"""What the pair of a client outside etcd shall be: what it is, but for what the inventory says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from tasks.model.inventory import Inventory
from tasks.model.observation import FileState, LeafFiles, PairsObservation
from tasks.pki.targets import LeafTarget, client_targets, member_targets
from tasks.plans.addresses import desired_member
from tests.field.openssl import CENTURY_DAYS, make_authority, make_pairs

NAMES = "subjectAltName=DNS:kubernetes,IP:10.68.0.1\n"


def target(tmp_path: Path, usages: str, *, days: int = 90, **said: object) -> LeafTarget:
    """See a kube-apiserver's pair, signed by the authority of Kubernetes, as a client."""
    make_authority(tmp_path, "/CN=kubernetes-ca")
    extensions = f"{NAMES}extendedKeyUsage={usages}\n"
    pair = make_pairs(tmp_path, {"k": "/O=system:masters/CN=kubernetes"}, extensions, days)["k"]
    client = {
        "name": "apiserver",
        "host": "m1",
        "certificate": "/etc/kubernetes/ssl/kubernetes.pem",
        "key": "/etc/kubernetes/ssl/kubernetes-key.pem",
        "trusted": "/etc/kubernetes/ssl/ca.pem",
    }
    content: dict[str, Any] = {
        "name": "c1",
        "hosts": [{"name": "m1", "address": "10.0.0.1"}],
        "etcd": {"version": "3.5.16"},
        "authority": {
            "certificate": tmp_path / "ca.pem",
            "key": tmp_path / "ca-key.pem",
            "passphrase": {"env": "P"},
        },
        "clients": [client | said],
    }
    inventory = Inventory.model_validate(content)
    files = LeafFiles(
        FileState("0640", "kube", "kube", "x", pair.certificate),
        FileState("0644", "kube", "etcd", "x"),
        None,
    )
    trusted = FileState("0644", "root", "root", "x", (tmp_path / "ca.pem").read_text())
    seen = PairsObservation("apiserver", 0.0, 0.0, None, trusted, None, {"client": files}, {})
    return client_targets(inventory, inventory.clients[0], seen)["client"]


def test_a_clients_certificate_is_renewed_as_it_is(tmp_path: Path) -> None:
    """Its groups are rights in Kubernetes, its names are what kubelets call it."""
    found = target(tmp_path, "serverAuth,clientAuth")
    assert found.want.common_name == "kubernetes"
    assert [name.O for name in found.want.names] == ["system:masters"]
    assert found.want.sans == ("kubernetes", "10.68.0.1")
    assert str(found.want.key) == "RSA 2048"
    assert set(map(str, found.want.usages)) == {"server auth", "client auth"}
    assert found.want.validity == timedelta(days=90)
    # A key that everybody can read is not kept so.
    assert (found.owner, found.group) == ("kube", "etcd")
    assert (found.certificate_mode, found.key_mode) == ("0640", "0640")


def test_what_the_inventory_says_of_a_client_is_so(tmp_path: Path) -> None:
    """And what etcd needs, it gets."""
    found = target(tmp_path, "serverAuth", common_name="worker", owner="root", group="root")
    assert found.want.common_name == "worker"
    assert (found.owner, found.group) == ("root", "root")
    assert "client auth" in map(str, found.want.usages)


def test_a_life_that_the_authority_cut_short_is_the_policys_again(tmp_path: Path) -> None:
    """Else each new authority would sign for as short as the old one had left."""
    found = target(tmp_path, "clientAuth", days=CENTURY_DAYS + 1)
    assert found.want.validity == timedelta(hours=43800)


def kubeadm(
    tmp_path: Path, extensions: str, *, address: str = "10.0.0.1", own: str = "node-1"
) -> dict[str, LeafTarget]:
    """See a stacked member's pairs, all of them one that kubeadm might have made."""
    make_authority(tmp_path, "/CN=etcd-ca")
    pair = make_pairs(tmp_path, {"k": "/CN=node-1"}, extensions, 365)["k"]
    content = {
        "name": "k1",
        "topology": "stacked",
        "hosts": [
            {"name": "m1", "member": own, "address": address},
            {"name": "m2", "member": "node-2" if own == "node-1" else "node-1"},
        ],
        "etcd": {"version": "3.7.3"},
    }
    inventory = Inventory.model_validate(content)
    files = LeafFiles(
        FileState("0644", "root", "root", "x", pair.certificate),
        FileState("0600", "root", "root", "x"),
        None,
    )
    pairs = {each.label: files for each in inventory.layout("m1").pairs}
    pairs["apiserver-etcd-client"] = LeafFiles(None, None, None)
    trusted = FileState("0644", "root", "root", "x", (tmp_path / "ca.pem").read_text())
    seen = PairsObservation("m1", 0.0, 0.0, None, trusted, None, pairs, {})
    member = desired_member(inventory, inventory.hosts[0], None)
    return member_targets(inventory, member, None, seen)


def test_what_kubeadm_made_is_renewed_as_it_is(tmp_path: Path) -> None:
    """Kind of key, life, subject and names; an address that is not named is added."""
    names = "subjectAltName=DNS:node-1,DNS:localhost,DNS:own,IP:10.0.0.9,IP:127.0.0.1"
    found = kubeadm(tmp_path, f"{names}\nextendedKeyUsage=serverAuth,clientAuth\n")
    server = found["etcd-server"]
    assert server.want.common_name == "node-1"
    assert server.want.names == ()
    assert str(server.want.key) == "RSA 2048"
    assert server.want.validity == timedelta(days=365)
    assert {"own", "10.0.0.9", "10.0.0.1", "::1"} <= set(server.want.sans)
    assert (server.owner, server.key_mode) == ("root", "0600")
    assert set(map(str, server.want.usages)) == {"server auth", "client auth"}


def test_a_pair_that_was_copied_from_another_member_is_made_anew(tmp_path: Path) -> None:
    """Nothing of what it is is kept: it is node-1's, and the node is node-0."""
    names = "subjectAltName=DNS:node-1,IP:10.0.0.9"
    found = kubeadm(tmp_path, f"{names}\nextendedKeyUsage=serverAuth,clientAuth\n", own="node-0")
    server = found["etcd-server"]
    assert server.want.common_name == "node-0"
    assert not {"node-1", "10.0.0.9"} & set(server.want.sans)


def test_what_cannot_be_read_is_made_as_kubeadm_would(tmp_path: Path) -> None:
    """A pair that is not there has a name of its own."""
    found = kubeadm(tmp_path, "extendedKeyUsage=clientAuth\n")["apiserver-etcd-client"]
    assert found.want.common_name == "kube-apiserver-etcd-client"
    assert found.want.sans == ()
    assert found.want.validity == timedelta(hours=8760)


def test_a_name_in_the_place_of_an_address_is_in_the_members_certificates() -> None:
    """Where the policy names the host itself; an address is there by the members' URLs."""
    for address, extra in {"Etcd1.Example.org": ["etcd1.example.org"], "10.0.0.1": []}.items():
        inventory = Inventory.model_validate(
            {
                "name": "c1",
                "hosts": [{"name": "m1", "address": address}],
                "etcd": {"version": "3.5.16"},
                "authority": {"certificate": "c", "key": "k", "passphrase": {"env": "P"}},
            }
        )
        member = desired_member(inventory, inventory.hosts[0], "10.0.0.1")
        targets = member_targets(inventory, member, None)
        assert [n for n in targets["server"].want.sans if "example" in n.lower()] == extra
        assert [n for n in targets["client"].want.sans if "example" in n.lower()] == []
