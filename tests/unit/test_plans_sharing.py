"""Who else uses a member's files: found, named, refused, and what the inventory declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.hosts.batch import Result
from tasks.hosts.sharing import parse_sharing
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.sharing import FileUser, Sharing, StrayCertificate
from tasks.plans.sharing import (
    adoption_rows,
    find_keys,
    find_lacking,
    find_strays,
    find_users,
    refuse_strays,
    refuse_users,
)

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
PUBLIC = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"
OLD, NEW = "a" * 64, "b" * 64
CA, SERVER = "/etc/etcd/ssl/ca.pem", "/etc/etcd/ssl/server.pem"


def user(path: str, process: str = "kube-apiserver") -> FileUser:
    """Make a process that names a file."""
    return FileUser(path, process, 812, f"{process}.service")


def inventory(**more: object) -> Inventory:
    """Make an inventory of one host."""
    found: dict[str, Any] = {
        "name": "c1",
        "hosts": [{"name": "m1", "address": "10.0.0.1"}],
        "etcd": {"version": "3.5.16"},
        "authority": {
            "certificate": Path("/a/ca.pem"),
            "key": Path("/a/ca-key.pem"),
            "passphrase": {"env": "P"},
        },
    }
    return Inventory.model_validate(found | more)


CLIENT = {
    "name": "apiserver",
    "host": "m1",
    "certificate": "/etc/ssl/node.pem",
    "key": "/etc/ssl/node-key.pem",
    "trusted": CA,
}


def test_a_new_host_lacks_what_the_models_host_has_beside_its_member() -> None:
    """Kubespray's node-HOST.pem, which kube-apiserver uses; of its own host alone."""
    names = ("node-m1", "node-m10", "admin-m2", "ca")
    strays = tuple(StrayCertificate(f"/s/{n}.pem", OLD, None) for n in names)
    layout = inventory().layout("m1")
    (told,) = find_lacking(Sharing("m1", (), (), strays), layout, ["m9"])
    assert told.startswith("m9 gets no /s/node-m9.pem: it would be a client's, as /s/node-m1.pem")
    assert find_lacking(Sharing("m1", (), (), strays), layout, ()) == ()


def test_the_answer_is_read_with_names_that_have_spaces() -> None:
    """A process's name is the last word of its line."""
    said = (
        f"linked\t{SERVER}\n"
        f"user\t{CA}\t812\tkubelet.service\tkube apiserver\n"
        f"stray\t/etc/ssl/node.pem\t9\tcrond.service\tcurl\n{PEM}"
        f"stray\t/etc/ssl/key.pem\t9\tcrond.service\tcurl\n"
        f"stray\t/etc/etcd/ssl/old.pem\t\t\t\n{PEM}"
        f"key\t/etc/etcd/ssl/ca-key.pem\n{PUBLIC}"
        "key\t/etc/etcd/ssl/sealed-ca-key.pem\n"
    )
    seen = parse_sharing(Result("", 0, said, "", 0.0))
    assert seen.users == (FileUser(CA, "kube apiserver", 812, "kubelet.service"),)
    assert seen.linked == (SERVER,)
    assert seen.keys == (("/etc/etcd/ssl/ca-key.pem", PUBLIC),)
    node = FileUser("/etc/ssl/node.pem", "curl", 9, "crond.service")
    assert seen.certificates == (
        ("/etc/ssl/node.pem", PEM, node),
        ("/etc/etcd/ssl/old.pem", PEM, None),
    )


def test_a_shared_trusted_file_is_refused_and_its_user_named() -> None:
    """The Kubernetes authority of a kubeasz cluster is kube-apiserver's client-ca-file, too."""
    seen = (Sharing("m1", (user(CA),), (), ()),)
    with pytest.raises(Refused, match=r"m1: /etc/etcd/ssl/ca\.pem is also used by kube-apiserver"):
        refuse_users(inventory(), seen, accepted=False, accept="--accept-shared")
    shown = refuse_users(inventory(), seen, accepted=True, accept="--accept-shared")
    assert len(shown) == 1


def test_a_user_that_the_inventory_declares_is_told_and_not_refused() -> None:
    """Its after_change makes it read the file again."""
    seen = (Sharing("m1", (user(CA),), (CA,), ()),)
    assert find_users(inventory(clients=[CLIENT]), seen) == ()
    elsewhere = CLIENT | {"host": None, "address": "10.0.0.9"}
    assert find_users(inventory(clients=[elsewhere]), seen), "another machine's file is another"


def test_a_rotation_of_leaves_tells_of_the_pairs_users_alone() -> None:
    """The trusted file stays as it is."""
    seen = (Sharing("m1", (user(CA), user(SERVER, "haproxy")), (SERVER,), ()),)
    told = find_users(inventory(), seen, pairs_only=True)
    assert len(told) == 2
    assert all(SERVER in line for line in told)


def test_a_certificate_in_use_keeps_its_authority() -> None:
    """Kubespray's node pair, by which kube-apiserver reaches etcd."""
    node = "/etc/ssl/node.pem"
    strays = (
        StrayCertificate(node, OLD, user(node)),
        StrayCertificate(node, OLD, None),
        StrayCertificate("/etc/ssl/backup.pem", OLD, None),
        StrayCertificate("/etc/ssl/other.pem", NEW, user("/etc/ssl/other.pem")),
    )
    seen = (Sharing("m1", (), (), strays),)
    with pytest.raises(Refused) as refused:
        refuse_strays(inventory(), seen, OLD)
    assert "m1: /etc/ssl/node.pem, which kube-apiserver" in refused.value.message
    assert "other.pem" not in refused.value.message
    assert find_strays(inventory(), seen, OLD, used=False) == ("m1: /etc/ssl/backup.pem",)
    refuse_strays(inventory(clients=[CLIENT]), seen, OLD)


def test_a_key_of_the_authority_that_goes_is_named() -> None:
    """Another tool would go on signing with it."""
    seen = (Sharing("m1", (), (), (), (("/etc/ssl/ca-key.pem", OLD), ("/etc/ssl/x.key", NEW))),)
    (told,) = find_keys(inventory(), seen, OLD)
    assert told.startswith("m1: /etc/ssl/ca-key.pem is the old authority's key")


def test_an_adoption_tells_who_shares_what_in_a_line_each() -> None:
    """Kubespray's first host has the certificates of all nodes."""
    names = ("m1", "m2", "m3", "m4")
    strays = tuple(StrayCertificate(f"/s/node-{n}.pem", OLD, None) for n in names)
    seen = Sharing("m1", (user(CA), user(CA, "kubelet")), (SERVER,), strays)
    used, linked, left = adoption_rows([seen])
    assert used == ("m1", f"{CA} is also used by kube-apiserver, kubelet")
    assert linked == ("m1", f"{SERVER} has another name (a hard link)")
    assert "4 certificate(s)" in left[1]
    assert "(/s/node-m2.pem, /s/node-m3.pem, /s/node-m4.pem, ...)" in left[1]
    assert adoption_rows([Sharing("m1", (), (), ())]) == ()
