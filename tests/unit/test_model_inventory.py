"""Inventory files: what is wrong is told by field, with an example that is right."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from tasks.model.certificates import Role, Usage
from tasks.model.errors import InvalidInventory, Refused
from tasks.model.fields import is_same_host
from tasks.model.inventory import Inventory
from tasks.model.inventory_file import load_inventory
from tasks.model.settings import Settings

ROOT = Path(__file__).parents[2]
RIGHT = """
name: c1
hosts:
  - {name: m1, address: 10.0.0.1}
  - {name: m2, address: 10.0.0.2}
  - {name: m3, address: 10.0.0.3}
etcd: {version: 3.5.16}
authority: {certificate: ca.pem, key: ca-key.pem, passphrase: {env: CA}}
"""


def write(directory: Path, text: str) -> str:
    """Write an inventory and return its path."""
    path = directory / "c1.yaml"
    path.write_text(text)
    return str(path)


def problems(directory: Path, text: str) -> tuple[str, ...]:
    """Load a wrong inventory and return what is told of it."""
    with pytest.raises(InvalidInventory) as error:
        load_inventory(write(directory, text))
    assert str(directory / "c1.yaml") in str(error.value)
    return error.value.problems


def test_a_right_inventory_has_the_procedures_defaults(tmp_path: Path) -> None:
    """Paths, validity and keys as in the procedures; relative paths beside the file."""
    found = load_inventory(write(tmp_path, RIGHT))
    assert str(found.paths.certificates) == "/etc/etcd/ssl"
    assert str(found.layout("m1").data) == "/var/lib/etcd/default.etcd"
    assert found.certificates.authority.validity == timedelta(hours=43800)
    assert str(found.certificates.authority.key) == "RSA 2048"
    assert str(found.certificates.server.key) == "ECDSA 256"
    assert found.authority.certificate == tmp_path / "ca.pem"


def test_the_example_and_the_schema_are_up_to_date() -> None:
    """What an operator copies is right."""
    assert load_inventory("example").name == "example"
    schema = json.loads((ROOT / "deployments" / "inventory.schema.json").read_text())
    assert schema["properties"].keys() == Inventory.model_fields.keys()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("name: c1", "name: C1", "name: 'C1' is not a name"),
        ("10.0.0.1", "10.0.0.300", "hosts[0].address: '10.0.0.300' is neither"),
        ("{name: m1, address", "{name: m1, adress", "hosts[0].adress: no such field; known here:"),
        ("name: m2", "name: m1", "two hosts have the name m1"),
        ("10.0.0.2", "10.0.0.1", "two hosts have the address 10.0.0.1"),
        ("name: m2", "name: m2, member: m1", "two hosts have the member m1"),
        ("name: m2", "name: m2, member: 'a=b'", "hosts[1].member: 'a=b' is not a member's name"),
        ("3.5.16", "3.5", "etcd.version"),
        ("3.5.16", "2.3.8", "etcd 2.3.8 is not supported"),
        ("3.5.16", "3.5.16, run_as: 0x", "etcd.run_as"),
        ("etcd:", "foo: 1\netcd:", "foo: no such field"),
        ("{env: CA}", "{}", "exactly one of block, env and file"),
        ("authority:", "autority:", "authority: is missing"),
        (
            "3.5.16",
            "3.5.16, settings: {heartbeat_interval_ms: 500}",
            "less than five times heartbeat_interval_ms 500",
        ),
        (
            "3.5.16",
            "3.5.16, settings: {environment: {ETCD_NAME: x}}",
            "ETCD_NAME is set by the runbooks",
        ),
        (
            "3.5.16",
            "3.5.16, binaries: {source: directory, path: /x, sha256: {etcd: abc}}",
            "etcd.binaries.directory.sha256.etcd",
        ),
        ("name: c1", "name: c1\npaths: {certificates: etc/ssl}", "paths.certificates"),
        (
            "name: c1",
            "name: c1\ncertificates: {server: {usages: [server auth]}}",
            "need the usages 'server auth' and 'client auth'",
        ),
        (
            "name: c1",
            "name: c1\ncertificates: {peer: {validity: 5 years}}",
            "certificates.peer.validity",
        ),
    ],
)
def test_one_wrong_field_is_one_problem(tmp_path: Path, old: str, new: str, says: str) -> None:
    """It names the field and what is wrong."""
    found = problems(tmp_path, RIGHT.replace(old, new, 1))
    assert any(says in problem for problem in found), found


def test_a_member_is_called_otherwise_than_its_host(tmp_path: Path) -> None:
    """Its name need not be a DNS name; files follow either, and one host may differ."""
    text = RIGHT.replace("name: m1", "name: m1, member: etcd-10.0.0.1").replace(
        "name: m3", "name: m3, pairs: {server: {certificate: /s/odd.pem, key: /s/odd-key.pem}}"
    )
    pairs = "{server: {certificate: '/s/{host}.pem', key: '/s/{member}-key.pem'}}"
    found = load_inventory(write(tmp_path, f"{text}paths: {{pairs: {pairs}}}\n"))
    first, second, third = (found.layout(host.name) for host in found.hosts)
    assert [layout.member for layout in (first, second)] == ["etcd-10.0.0.1", "m2"]
    assert str(first.pair(Role.SERVER).certificate) == "/s/m1.pem"
    assert str(first.pair(Role.SERVER).key) == "/s/etcd-10.0.0.1-key.pem"
    assert str(third.pair(Role.SERVER).certificate) == "/s/odd.pem"
    assert {str(found.layout(h.name).pair(Role.PEER).certificate) for h in found.hosts} == {
        "/etc/etcd/ssl/peer.pem"
    }


def test_a_word_that_means_two_hosts_is_refused(tmp_path: Path) -> None:
    """A host's name, its member's and its address are words for it."""
    text = RIGHT.replace("name: m1", "name: m1, member: m2").replace(
        "name: m2, a", "name: m2, member: e2, a"
    )
    found = load_inventory(write(tmp_path, text))
    for word in ("m1", "10.0.0.1"):
        assert found.called(word) == found.hosts[0]
    assert found.called("e2") == found.hosts[1]
    assert found.called("m9") is None
    with pytest.raises(Refused, match="m2 may be meant of several hosts: m1 with the member m2"):
        found.called("m2")


def test_problems_show_an_example_that_is_right(tmp_path: Path) -> None:
    """The way out is in the message."""
    (found,) = problems(tmp_path, RIGHT.replace("3.5.16", "'3.5'"))
    assert found.endswith("right: version: 3.5.16")


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    """Not the first alone."""
    text = RIGHT.replace("name: c1", "name: C1").replace("3.5.16", "'3'").replace("env: CA", "x: 1")
    assert len(problems(tmp_path, text)) >= 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [", "not YAML"),
        ("name: a\nname: b\n", "duplicate key"),
        ("just text", "holds no mapping"),
        ("", "holds no mapping"),
    ],
)
def test_what_is_no_inventory_is_told(tmp_path: Path, text: str, says: str) -> None:
    """With the line where YAML has one."""
    (found,) = problems(tmp_path, text)
    assert says in found


def test_a_cluster_that_does_not_exist_is_answered_with_those_that_do() -> None:
    """The example is always there."""
    with pytest.raises(InvalidInventory, match="example"):
        load_inventory("no-such-cluster")


def test_cfssls_files_are_laid_over_the_policy(tmp_path: Path) -> None:
    """As cfssl reads them: profiles, requests, the authority's own expiry."""
    directory = tmp_path / "pki"
    directory.mkdir()
    profile = {"expiry": "8760h", "usages": ["signing", "server auth", "client auth"]}
    config = {"signing": {"default": {"expiry": "100h"}, "profiles": {"server": profile}}}
    (directory / "ca-config.json").write_text(json.dumps(config))
    request = {"CN": "my-ca", "key": {"algo": "ecdsa", "size": 384}, "ca": {"expiry": "87600h"}}
    (directory / "ca-csr.json").write_text(json.dumps(request))
    (directory / "client.json").write_text(json.dumps({"CN": "root", "names": [{"O": "Acme"}]}))
    policy = load_inventory(write(tmp_path, RIGHT + "cfssl_directory: pki\n")).certificates
    assert policy.authority.common_name == "my-ca"
    assert policy.authority.validity == timedelta(hours=87600)
    assert str(policy.authority.key) == "ECDSA 384"
    assert policy.server.validity == timedelta(hours=8760)
    assert Usage.KEY_ENCIPHERMENT not in policy.server.usages
    assert policy.leaf(Role.PEER).validity == timedelta(hours=100)
    assert policy.client.common_name == "root"
    assert policy.client.names[0].O == "Acme"


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("ca-csr.json", "{", "is not JSON"),
        ("ca-csr.json", "[]", "is not a JSON object"),
        ("ca-csr.json", '{"key": {"algo": "dsa", "size": 1}}', "cfssl_directory: authority.key"),
        ("other.json", "{}", "has no ca-config.json"),
    ],
)
def test_cfssl_files_that_are_no_use_are_told(
    tmp_path: Path, file: str, content: str, says: str
) -> None:
    """The file or the field is named."""
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / file).write_text(content)
    found = problems(tmp_path, RIGHT + "cfssl_directory: pki\n")
    assert any(says in problem for problem in found), found


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("Master01.example.org", "master01", True),
        ("master01", "MASTER01", True),
        ("master01.a.example", "master01.b.example", False),
        ("master01", "master011", False),
        ("10.0.0.1", "10", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("fd77::1", "fd77::2", False),
    ],
)
def test_case_and_a_domain_make_no_other_host(one: str, other: str, is_same: bool) -> None:
    """Two domains do."""
    assert is_same_host(one, other) is is_same
    assert is_same_host(other, one) is is_same


def test_an_election_is_given_as_long_as_its_timeout_needs() -> None:
    """Kubespray's and KubeKey's takes up to 10 s, and again where the votes were split."""
    assert Settings(election_timeout_ms=5000).election_seconds == 25
    assert Settings().election_seconds == 5
