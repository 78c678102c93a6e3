"""What a certificate shall be: names in a stable order, each once and each valid."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from tasks.model.certificates import CertificatePolicy, LeafPolicy, Role, SubjectName
from tasks.model.errors import InvalidInventory
from tasks.pki.leaf import wanted_leaf
from tasks.pki.names import canonical_san, distinguished_name, general_name, read_sans

POLICY = CertificatePolicy()


@pytest.mark.parametrize("role", [Role.SERVER, Role.PEER])
def test_a_members_certificate_names_its_host_in_a_stable_order(role: Role) -> None:
    """Host name, this machine, addresses, extra names, the policy's hosts; each once."""
    policy = LeafPolicy(hosts=("*.example.org", "localhost"))
    want = wanted_leaf(
        policy,
        role,
        "master01",
        ("192.168.100.200", "192.168.100.200", "FD00:0::1"),
        ("etcd.example.org", "master01", "fd00::1"),
    )
    assert want.sans == (
        "master01",
        "127.0.0.1",
        "localhost",
        "192.168.100.200",
        "fd00::1",
        "etcd.example.org",
        "*.example.org",
    )
    assert want.common_name == "master01"


def test_a_clients_certificate_names_no_host() -> None:
    """It is the same wherever it is used; only the policy's own hosts are in it."""
    want = wanted_leaf(POLICY.client, Role.CLIENT, "master01", ("10.0.0.1",), ("a.example.org",))
    assert (want.common_name, want.sans) == ("client", ())
    policy = LeafPolicy(hosts=("operator.example.org",))
    assert wanted_leaf(policy, Role.CLIENT, "a", ("10.0.0.1",), ()).sans == policy.hosts


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        (LeafPolicy(hosts=("a b",)), "'a b' is neither an IP address nor a DNS name"),
        (LeafPolicy(hosts=("",)), "'' is neither"),
        (LeafPolicy(hosts=("a\nIP.9 = 10.0.0.9",)), "is neither"),
        (LeafPolicy(hosts=("10.0.0.256",)), "'10.0.0.256' is neither"),
        (LeafPolicy(hosts=("münchen.example",)), "is neither"),
        (LeafPolicy(hosts=("a.*.example.org",)), "is neither"),
        (LeafPolicy(hosts=("fe80::1%eth0",)), "has a zone"),
        (LeafPolicy(hosts=(".".join(["a" * 60] * 5),)), "is neither"),
        (LeafPolicy(common_name="a" * 65), "is longer than 64 bytes"),
        (LeafPolicy(common_name="ü" * 33), "is longer than 64 bytes"),
        (LeafPolicy(common_name=" a"), "has blanks around it"),
        (LeafPolicy(common_name="a\nO = b"), "characters that do not print"),
        (LeafPolicy(names=(SubjectName(C="D"),)), "is not a country's two letters"),
        (LeafPolicy(names=(SubjectName(O="a" * 65),)), "is longer than 64 bytes"),
        (LeafPolicy(names=(SubjectName(OU="a\0"),)), "characters that do not print"),
    ],
)
def test_what_cannot_stand_in_a_certificate_is_the_inventorys_fault(
    policy: LeafPolicy, problem: str
) -> None:
    """It is refused before anything is done, with the role and the host."""
    with pytest.raises(InvalidInventory, match=r"certificates\.peer of master01") as caught:
        wanted_leaf(policy, Role.PEER, "master01", (), ())
    assert problem in str(caught.value)


def test_all_bad_names_are_told_at_once() -> None:
    """The operator mends the inventory once."""
    policy = LeafPolicy(common_name="a" * 65, hosts=("a b", "c d"))
    with pytest.raises(InvalidInventory) as caught:
        wanted_leaf(policy, Role.PEER, "master01", (), ())
    assert len(caught.value.problems) == 3


def test_a_subject_is_ordered_as_cfssl_orders_it() -> None:
    """C, ST, L, O, OU, CN; values of one part share a set; empty and repeated ones are left out."""
    names = (
        SubjectName(OU="x", C="DE", O="b"),
        SubjectName(O="a", L="", ST="s"),
        SubjectName(O="b"),
    )
    name = distinguished_name("cn", names)
    assert [len(each) for each in name.rdns] == [1, 1, 2, 1, 1]
    assert [a.rfc4514_attribute_name for a in name] == ["C", "ST", "O", "O", "OU", "CN"]


LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
DNS_NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
ADDRESSES = st.one_of(st.builds(IPv4Address, st.integers(0, 2**32 - 1)), st.ip_addresses(v=6))


@given(st.lists(st.one_of(DNS_NAMES, ADDRESSES.map(str)), min_size=1, max_size=8))
def test_names_come_back_from_x509_as_they_went_in(texts: list[str]) -> None:
    """Canonical text to X.509 and back changes nothing."""
    sans = [canonical_san(text) for text in texts]
    extension = x509.SubjectAlternativeName(map(general_name, sans))
    assert read_sans(x509.Extensions([x509.Extension(extension.oid, False, extension)])) == set(
        sans
    )


@given(st.builds(IPv6Address, st.integers(0, 2**128 - 1)))
def test_an_address_has_one_form(address: IPv6Address) -> None:
    """However it is written, it is the same name."""
    assert canonical_san(address.exploded.upper()) == canonical_san(str(address)) == str(address)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (x509.DNSName("10.0.0.1"), "DNS:10.0.0.1"),
        (x509.DNSName("fd00::1"), "DNS:fd00::1"),
        (x509.DNSName("email:a@b"), "DNS:email:a@b"),
        (x509.RFC822Name("a@example.org"), "email:a@example.org"),
        (x509.UniformResourceIdentifier("spiffe://a"), "URI:spiffe://a"),
    ],
)
def test_no_other_kind_of_name_passes_for_an_address_or_a_host(
    name: x509.GeneralName, text: str
) -> None:
    """TLS would not match it, so the comparison must not either."""
    extension = x509.SubjectAlternativeName([name])
    found = read_sans(x509.Extensions([x509.Extension(extension.oid, False, extension)]))
    assert found == {text}
