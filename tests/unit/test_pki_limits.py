"""What lies at the edges of what a certificate can hold is told, never a library's own error."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tasks.model.certificates import AuthorityPolicy
from tasks.model.errors import AuthorityRefused, InvalidInventory
from tasks.pki.authority import create_authority, open_authority
from tasks.pki.inspect import find_differences, read_certificate
from tasks.pki.keys import make_key, private_pem, public_pem
from tasks.pki.names import canonical_san
from tests.unit.pki_requests import NOW, P256, WANT, make_request, shared_authority

FOREVER = timedelta(hours=80_000_000)


def test_a_leaf_that_would_never_end_ends_with_its_authority() -> None:
    """Its end is never computed beyond the calendar."""
    want = dataclasses.replace(WANT, validity=FOREVER)
    leaf = read_certificate(shared_authority().sign(make_request(want), want, NOW))
    assert leaf.not_after == shared_authority().facts.not_after


def test_an_authority_that_would_never_end_is_the_inventorys_fault() -> None:
    """X.509 knows no year after 9999."""
    with pytest.raises(InvalidInventory, match=r"certificates\.authority: validity: .*9999"):
        create_authority(AuthorityPolicy(key=P256, validity=FOREVER), NOW)


def test_a_passphrase_too_long_is_refused() -> None:
    """The longest still seals and opens; a file of random bytes may be longer."""
    authority = shared_authority()
    longest = b"x" * 1023
    open_authority(authority.certificate_pem, authority.seal_key(longest), longest, NOW)
    with pytest.raises(AuthorityRefused, match="longer than 1023 bytes"):
        authority.seal_key(longest + b"x")


def test_an_authority_whose_name_cannot_be_read_is_refused() -> None:
    """Damaged in its issuer, which the refusal would otherwise quote."""
    authority = shared_authority()
    der = x509.load_pem_x509_certificate(authority.certificate_pem).public_bytes(
        serialization.Encoding.DER
    )
    damaged = der.replace(b"\x0c\x04etcd", b"\x0c\x04\xff\xff\xff\xff", 1)
    assert damaged != der
    pem = as_pem(damaged)
    with pytest.raises(AuthorityRefused, match="cannot be read"):
        open_authority(pem, private_pem(authority._key), None, NOW)


def as_pem(der: bytes) -> bytes:
    """Write a certificate as PEM, whatever is in it."""
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)


def test_an_answer_that_is_not_text_is_a_difference() -> None:
    """A host's bytes may come as surrogates."""
    leaf = shared_authority().sign(make_request(), WANT, NOW)
    authority, day = shared_authority().certificate_pem, timedelta(days=1)
    told = find_differences(leaf, WANT, authority, "\udcff", NOW, day)
    assert told == ("it does not match its key",)
    told = find_differences("\udcff", WANT, authority, None, NOW, day)
    assert told == ("it is not a certificate that can be read",)


def test_renewal_may_be_asked_for_at_any_time() -> None:
    """However long before the end."""
    want = dataclasses.replace(WANT, validity=timedelta(days=30))
    key = make_key(P256)
    leaf = shared_authority().sign(make_request(want, key), want, NOW)
    public, authority = public_pem(key.public_key()), shared_authority().certificate_pem
    told = find_differences(leaf, want, authority, public, NOW, timedelta.max)
    assert told == ("it expires on 2026-12-24 02:55 UTC",)


@pytest.mark.parametrize("name", ["-", "a.-", "a.b-", "-a", "x" * 64, "a." + "x" * 64])
def test_a_name_that_tls_never_matches_is_refused(name: str) -> None:
    """Its last label counts too: 63 characters, and no hyphen at either end (RFC 1123, 2.1)."""
    with pytest.raises(ValueError, match="neither an IP address nor a DNS name"):
        canonical_san(name)


@pytest.mark.parametrize("name", ["a", "x" * 63, "a." + "x" * 63, "_etcd._tcp.a", "*.a-b.c"])
def test_the_longest_and_the_shortest_names_pass(name: str) -> None:
    """The no-op case of the refusal."""
    assert canonical_san(name) == name


def test_a_leaf_points_at_its_authoritys_own_key_identifier() -> None:
    """An adopted authority's need not be the key's SHA-1; chains are built by it."""
    key = make_key(P256)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "adopted")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(b"their own"), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    authority = open_authority(pem, private_pem(key), None, NOW)
    leaf = read_certificate(authority.sign(make_request(), WANT, NOW))
    assert leaf.authority_key_id == b"their own".hex()
