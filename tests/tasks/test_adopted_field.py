"""Adopting what kubespray, KubeKey and kubeasz leave: nothing is due, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tasks.model.adoption import FoundEtcd
from tasks.model.certificates import FileAccess, Role
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.observation import FileState, LeafFiles
from tasks.pki.inspect import read_bundle, read_certificate
from tasks.pki.policy import read_leaf
from tasks.pki.targets import member_targets
from tasks.plans.addresses import desired_member
from tasks.plans.adopted_files import name_hosts
from tasks.plans.adoption import adopt, find_pairs
from tasks.plans.adoption_remarks import find_remarks
from tasks.steps.certificates import pair_differences
from tests.field.layouts import Cluster, Laid, kubeasz, kubekey, kubespray
from tests.field.odd import named
from tests.field.openssl import make_pairs

HOSTS = {f"node{number}": f"10.0.0.{number}" for number in (1, 2, 3)}
BUILDERS = {"kubespray": kubespray, "kubekey": kubekey, "kubeasz": kubeasz, "named": named}


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Make each kind of cluster once."""
    return BUILDERS[request.param](tmp_path_factory.mktemp(request.param), HOSTS)


def seen(host: str, laid: Laid) -> FoundEtcd:
    """Make what adopt_cluster reads on such a host."""
    one = FoundEtcd(
        host=host,
        unit_path="/etc/systemd/system/etcd.service",
        environment_file="/etc/etcd.env" if "/etc/etcd.env" in laid.files else None,
        account="root",
        program="/usr/local/bin/etcd",
        version="3.5.16",
        is_running=True,
        settings=laid.settings,
        files_beside=tuple(laid.files),
        hostname=host,
    )
    trusted = laid.files[one.setting("TRUSTED_CA_FILE")].text
    peers = laid.files[one.setting("PEER_TRUSTED_CA_FILE")].text
    pairs = {}
    for role, pair in find_pairs(one).items():
        certificate, key = laid.files[str(pair.certificate)], laid.files[str(pair.key)]
        owner, _, group = key.owner.partition(":")
        access = FileAccess(
            owner=owner, group=group, certificate_mode=certificate.mode, key_mode=key.mode
        )
        pairs[role] = replace(pair, leaf=read_leaf(certificate.text), access=access)
    return replace(
        one,
        pairs=pairs,
        trusted_text=trusted,
        authorities=frozenset(f.fingerprint for f in read_bundle(trusted)),
        peer_authorities=frozenset(f.fingerprint for f in read_bundle(peers)),
    )


def found(cluster: Cluster) -> tuple[FoundEtcd, ...]:
    """See all hosts of a cluster."""
    return tuple(seen(host, laid) for host, laid in cluster.hosts.items())


def adopted(
    etcds: tuple[FoundEtcd, ...],
    given: frozenset[str] = frozenset(HOSTS),
    places: dict[str, str] = HOSTS,
) -> Inventory:
    """Adopt, with SSH to these places, and read the inventory back as it is written."""
    made = Inventory.model_validate(adopt("old", etcds, places, {"user": "root"}, given))
    return Inventory.model_validate(made.model_dump(mode="json", exclude_defaults=True))


def differences(inventory: Inventory, cluster: Cluster) -> dict[str, tuple[str, ...]]:
    """Say what a plain rotation would find due, by host and pair."""
    due = {}
    for host in inventory.hosts:
        laid = cluster.hosts[host.name]
        targets = member_targets(inventory, desired_member(inventory, host, None), "root")
        for label, target in targets.items():
            certificate = laid.files[str(target.pair.certificate)]
            key = laid.files[str(target.pair.key)]
            public = read_certificate(certificate.text).public_key_pem.decode()
            files = LeafFiles(
                FileState(certificate.mode, "x", "x", "x", certificate.text),
                FileState(key.mode, "x", "x", "x"),
                public,
            )
            authority = cluster.authority.certificate.encode()
            why = pair_differences(inventory, target, files, authority, early=True)
            if why:
                due[f"{host.name} {label}"] = why
    return due


def test_what_is_adopted_is_as_its_inventory_says(cluster: Cluster) -> None:
    """kubespray-sans: no pair is due for being unlike ours, and remarks fit on a screen."""
    etcds = found(cluster)
    inventory = adopted(etcds)
    assert [host.name for host in inventory.hosts] == list(HOSTS)
    assert differences(inventory, cluster) == {}
    remarks = find_remarks(name_hosts(etcds, frozenset(HOSTS)))
    assert len(remarks) < 10
    assert not any("client-cert-auth is off" in remark for remark in remarks)


@pytest.mark.parametrize("domain", ["", ".example.org", ".etcd.internal"])
def test_what_is_issued_is_made_as_before(cluster: Cluster, domain: str) -> None:
    """Key, subject, names, usages, life, owner and modes; also where SSH goes by a DNS name.

    Certificates that have the host's name and not that one are as they are to be.
    """
    places = {host: f"{host}{domain}" for host in HOSTS} if domain else HOSTS
    inventory = adopted(found(cluster), places=places)
    assert differences(inventory, cluster) == {}
    for host in inventory.hosts:
        targets = member_targets(inventory, desired_member(inventory, host, None), "root").values()
        for target in targets:
            file = cluster.hosts[host.name].files[str(target.pair.certificate)]
            key = cluster.hosts[host.name].files[str(target.pair.key)]
            leaf = read_leaf(file.text)
            assert leaf is not None
            assert set(target.want.sans) == set(leaf.sans)
            assert (target.want.key, target.want.validity) == (leaf.key, leaf.validity)
            assert target.want.common_name == leaf.common_name
            assert target.want.names == leaf.names
            assert set(target.want.usages) == set(leaf.usages)
            assert (target.certificate_mode, target.key_mode) == (file.mode, key.mode)
            assert f"{target.owner}:{target.group}" == key.owner


def test_kubespray_names(tmp_path: Path) -> None:
    """Members etcd1 and so on, on hosts of their own names; one rule for the files of all."""
    inventory = adopted(found(kubespray(tmp_path, HOSTS)))
    assert [host.member for host in inventory.hosts] == ["etcd1", "etcd2", "etcd3"]
    pairs = inventory.paths.pairs
    assert pairs[Role.SERVER].certificate == "/etc/ssl/etcd/ssl/member-{host}.pem"
    assert pairs[Role.CLIENT].key == "/etc/ssl/etcd/ssl/admin-{host}-key.pem"
    assert inventory.certificates.server.common_name == "etcd-member-{host}"
    assert [sorted(host.certificates) for host in inventory.hosts] == [
        [Role.CLIENT, Role.SERVER], [], []
    ]  # fmt: skip
    assert inventory.etcd.settings.listen_metrics_urls == (
        "http://{address}:2381",
        "http://127.0.0.1:2381",
    )


def test_hosts_without_a_given_name_are_called_as_their_files_are(tmp_path: Path) -> None:
    """By the system's name, where the files follow it and not the member's."""
    etcds = found(kubespray(tmp_path, HOSTS))
    assert [host.name for host in adopted(etcds, frozenset()).hosts] == list(HOSTS)
    anonymous = tuple(replace(one, hostname="") for one in etcds)
    inventory = adopted(anonymous, frozenset())
    assert [host.name for host in inventory.hosts] == ["etcd1", "etcd2", "etcd3"]
    assert [
        str(inventory.layout(host.name).pair(Role.PEER).certificate) for host in inventory.hosts
    ] == [f"/etc/ssl/etcd/ssl/member-{name}.pem" for name in HOSTS]


def test_names_in_urls_are_kept(tmp_path: Path) -> None:
    """And are in every certificate; where a member listens is its address all the same."""
    inventory = adopted(found(named(tmp_path, HOSTS)))
    host = inventory.host("node2")
    assert (host.address, host.peer_address, host.client_address) == (
        "10.0.0.2", "node2.etcd.internal", "node2.etcd.internal"
    )  # fmt: skip
    member = desired_member(inventory, host, None)
    assert member.peer_url == "https://node2.etcd.internal:2380"
    assert inventory.etcd.settings.listen_metrics_urls == ("http://{address}:2381",)
    for role in (Role.SERVER, Role.PEER):
        target = member_targets(inventory, member, "root")[role]
        assert {"node2.etcd.internal", "10.0.0.2"} <= set(target.want.sans)


def test_kubeasz_names(tmp_path: Path) -> None:
    """Members that no certificate can name; one pair for every role is one pair."""
    inventory = adopted(found(kubeasz(tmp_path, HOSTS)))
    assert [host.member for host in inventory.hosts] == [f"etcd-{a}" for a in HOSTS.values()]
    layout = inventory.layout("node2")
    assert [pair.label for pair in layout.pairs] == ["server+peer+client"]
    assert layout.wal is None
    targets = member_targets(
        inventory, desired_member(inventory, inventory.host("node2"), None), "root"
    )
    assert list(targets) == ["server+peer+client"]
    assert "localhost" not in next(iter(targets.values())).want.sans


def test_a_name_that_is_missing_or_about_to_end_is_still_due(cluster: Cluster) -> None:
    """What the inventory says is what is judged by."""
    inventory = adopted(found(cluster))
    moved = inventory.model_copy(
        update={
            "hosts": tuple(
                h.model_copy(update={"address": h.address.replace("10.0.0.", "10.0.9.")})
                for h in inventory.hosts
                if h.address
            )
        }
    )
    assert "it lacks the SAN 10.0.9.1" in str(differences(moved, cluster))


def test_two_ca_files(tmp_path: Path) -> None:
    """Two files with the same authority are one; with another they are refused, both named."""
    laid = kubespray(tmp_path, HOSTS)
    split = {"ETCD_PEER_TRUSTED_CA_FILE": "/etc/ssl/peer-ca.crt"}
    etcds = tuple(replace(one, settings=one.settings | split) for one in found(laid))
    inventory = adopted(etcds)
    assert [str(f) for f in inventory.layout("node1").trusted_files] == [
        "/etc/ssl/etcd/ssl/ca.pem",
        "/etc/ssl/peer-ca.crt",
    ]
    other = tuple(replace(one, peer_authorities=frozenset({"x"})) for one in etcds)
    with pytest.raises(Refused, match=r"different authorities.*/etc/ssl/peer-ca\.crt"):
        adopted(other)


def test_metrics_first_host(tmp_path: Path) -> None:
    """Of settings that differ none is taken from the first in silence."""
    etcds = found(kubespray(tmp_path, HOSTS))
    quotas = ("8589934592", "4294967296", "2147483648")
    differing = tuple(
        replace(one, settings=one.settings | {"ETCD_QUOTA_BACKEND_BYTES": quota})
        for one, quota in zip(etcds, quotas, strict=True)
    )
    assert adopted(differing).etcd.settings.quota_backend_bytes is None
    (told,) = [r for r in find_remarks(name_hosts(differing, frozenset())) if "QUOTA" in r]
    assert "node2: 4294967296" in told
    most = (*differing[:1], *(replace(differing[1], host=one.host, settings=one.settings | {
        "ETCD_QUOTA_BACKEND_BYTES": "4294967296"}) for one in etcds[1:]))  # fmt: skip
    assert adopted(most).etcd.settings.quota_backend_bytes == 4294967296


def test_wal_dir(tmp_path: Path) -> None:
    """Data per host and a log of its own are kept, by a rule or not; a log on some is refused."""
    etcds = found(kubespray(tmp_path, HOSTS))
    own = tuple(
        replace(
            one,
            settings=one.settings
            | {
                "ETCD_DATA_DIR": f"/var/lib/etcd/{one.setting('NAME')}.etcd",
                "ETCD_WAL_DIR": "/var/lib/etcd-wal/wal",
            },
        )
        for one in etcds
    )
    layout = adopted(own).layout("node2")
    assert str(layout.data) == "/var/lib/etcd/etcd2.etcd"
    assert [str(d) for d in layout.data_directories] == [
        "/var/lib/etcd-wal/wal",
        "/var/lib/etcd/etcd2.etcd",
    ]

    def changed(**settings: str) -> Inventory:
        return adopted((*own[:2], replace(own[2], settings=own[2].settings | settings)))

    disks = changed(ETCD_DATA_DIR="/mnt/ssd/etcd", ETCD_WAL_DIR="/mnt/nvme/wal")
    assert [str(d) for d in disks.layout("node3").data_directories] == [
        "/mnt/nvme/wal",
        "/mnt/ssd/etcd",
    ]
    assert str(disks.layout("node3").state) == "/mnt/ssd/etcd"
    assert disks.layout("node2") == layout
    with pytest.raises(Refused, match=r"some hosts have a --wal-dir .*node3 none"):
        changed(ETCD_WAL_DIR="")


def test_what_no_policy_can_say_is_told_before_anything_is_written(tmp_path: Path) -> None:
    """A certificate's parts that a rotation would lose."""
    etcds = found(kubeasz(tmp_path, HOSTS))
    leaf = etcds[0].pairs[Role.SERVER].leaf
    assert leaf is not None
    odd = replace(leaf, unkept=("the usage 1.3.6.1.5.5.7.3.3",))
    pairs = {role: replace(pair, leaf=odd) for role, pair in etcds[0].pairs.items()}
    remarks = find_remarks(name_hosts((replace(etcds[0], pairs=pairs),), frozenset(HOSTS)))
    assert "node1: etcd.pem: the usage 1.3.6.1.5.5.7.3.3 cannot be kept by a rotation" in remarks


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (("ec", "-pkeyopt", "ec_paramgen_curve:P-384"), "ECDSA 384"),
        (("ed25519",), "Ed25519"),
        (("rsa:4096",), "RSA 4096"),
    ],
)
def test_keys_of_other_kinds_are_kept(tmp_path: Path, key: tuple[str, ...], kind: str) -> None:
    """Whatever their files look like: PKCS #8, SEC 1, PKCS #1."""
    cluster = kubeasz(tmp_path, HOSTS, key=key)
    inventory = adopted(found(cluster))
    assert str(inventory.certificates.server.key) == kind
    assert differences(inventory, cluster) == {}


def test_the_next_authority_is_made_as_the_present_one(tmp_path: Path) -> None:
    """Else certificates of a century would end with one of five years; its name is its own."""
    etcds = found(kubeasz(tmp_path, HOSTS))
    leaf = read_leaf(etcds[0].trusted_text)
    assert leaf is not None
    policy = adopted((replace(etcds[0], authority=leaf), *etcds[1:])).certificates.authority
    assert (policy.common_name, policy.key, policy.validity) == ("etcd", leaf.key, leaf.validity)
    assert policy.names == leaf.names
    ours = replace(leaf, common_name="etcd")
    policy = adopted((replace(etcds[0], authority=ours), *etcds[1:])).certificates.authority
    assert policy.common_name == "etcd-ca"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"intermediate": "issuing"}, "etcd.pem is signed by 'issuing', which is no root"),
        ({"key": PurePosixPath("/etc/kubernetes/ssl/etcd.pem")}, "etcd.pem holds the key, too"),
    ],
)
def test_pairs_that_no_runbook_could_renew_are_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    """An intermediate authority, and one file for both halves."""
    etcds = found(kubeasz(tmp_path, HOSTS))
    pairs = {role: replace(pair, **change) for role, pair in etcds[0].pairs.items()}
    with pytest.raises(Refused, match=words):
        adopted((replace(etcds[0], pairs=pairs), *etcds[1:]))


USAGES = "extendedKeyUsage=serverAuth,clientAuth\n"
SANS = "subjectAltName=IP:10.0.0.1,IP:10.0.0.2,IP:10.0.0.3"
MADE_BY_HAND = {
    "a wildcard, an IPv6 address": ("/CN=etcd", f"{USAGES}{SANS},DNS:*.etcd.local,IP:fd00::1\n"),
    "names that no inventory has": ("/CN=etcd", f"{USAGES}{SANS},URI:spiffe://a/b,email:a@b.c\n"),
    "a further usage": ("/CN=etcd", f"extendedKeyUsage=serverAuth,clientAuth,codeSigning\n{SANS}"),
    "no usages, which allows all": ("/CN=etcd", f"{SANS}\n"),
    "no common name": ("/O=Example/OU=Ops", f"{USAGES}{SANS}\n"),
    "no subject at all": ("/", f"{USAGES}{SANS}\n"),
    "further parts of the subject": ("/emailAddress=a@b.c/DC=org/CN=etcd", f"{USAGES}{SANS}\n"),
    "several units": ("/O=A/OU=B/OU=C/CN=etcd", f"{USAGES}{SANS}\n"),
}


@pytest.mark.parametrize("name", MADE_BY_HAND)
def test_certificates_made_by_hand_are_not_due(tmp_path: Path, name: str) -> None:
    """What the inventory has no word for is remarked, and is no reason to replace them."""
    cluster = kubeasz(tmp_path, HOSTS)
    subject, extensions = MADE_BY_HAND[name]
    pair = make_pairs(tmp_path, {"hand": subject}, extensions, 700)["hand"]
    for laid in cluster.hosts.values():
        for end, text in (("etcd.pem", pair.certificate), ("etcd-key.pem", pair.key)):
            path = f"/etc/kubernetes/ssl/{end}"
            laid.files[path] = replace(laid.files[path], text=text)
    assert differences(adopted(found(cluster)), cluster) == {}


@pytest.mark.parametrize(
    "key", [("rsa:1024",), ("ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"), ("ed448",)]
)
def test_a_kind_of_key_that_is_not_made_here_is_told_and_not_due(
    tmp_path: Path, key: tuple[str, ...]
) -> None:
    """A rotation that is asked for gives it one of ours."""
    cluster = kubeasz(tmp_path, HOSTS, key=key)
    etcds = found(cluster)
    assert differences(adopted(etcds), cluster) == {}
    assert "the kind of key" in str(find_remarks(name_hosts(etcds, frozenset(HOSTS))))
