"""The authority: what it makes, what it opens, and what it refuses to sign."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from tasks.model.certificates import (
    AuthorityPolicy,
    CertificatePolicy,
    KeySpec,
    LeafPolicy,
    Role,
    SubjectName,
    Usage,
)
from tasks.model.errors import AuthorityRefused, CertificateRefused, InvalidInventory
from tasks.pki.authority import create_authority, is_encrypted, open_authority
from tasks.pki.inspect import read_certificate
from tasks.pki.keys import PrivateKey, make_key, private_pem
from tasks.pki.leaf import wanted_leaf
from tests.unit.pki_requests import NOW, P256, WANT, YEARS, make_request, shared_authority

PASSPHRASE = b"correct horse"
RSA = KeySpec(algo="rsa", size=2048)
SERVER_AND_CLIENT = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


def load(pem: bytes) -> x509.Certificate:
    """Read a certificate as cryptography does."""
    return x509.load_pem_x509_certificate(pem)


def extension(pem: bytes, oid: x509.ObjectIdentifier) -> x509.Extension[x509.ExtensionType]:
    """Get one extension with its criticality."""
    return load(pem).extensions.get_extension_for_oid(oid)


@pytest.mark.parametrize(
    "spec", [RSA, P256, KeySpec(algo="ecdsa", size=521), KeySpec(algo="ed25519")], ids=str
)
def test_a_new_authority_can_do_nothing_but_sign(spec: KeySpec) -> None:
    """CA:TRUE and cert sign, both critical; valid from five minutes ago, to the minute."""
    names = (SubjectName(C="DE", O="Example"),)
    authority = create_authority(AuthorityPolicy(key=spec, names=names), NOW)
    facts = authority.facts
    assert facts.key == str(spec)
    assert facts.usages == {"key_cert_sign", "crl_sign"}
    assert facts.is_authority
    assert (facts.common_name, facts.issuer_common_name) == ("etcd", "etcd")
    assert facts.not_before == datetime.fromisoformat("2026-11-24T02:55Z")
    assert facts.not_after - facts.not_before == YEARS
    for oid in (ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE):
        assert extension(authority.certificate_pem, oid).critical
    open_authority(authority.certificate_pem, authority.seal_key(b"x"), b"x", NOW)


def test_no_two_authorities_are_alike() -> None:
    """Serial numbers are random, of 20 bytes at most and above zero."""
    policy = AuthorityPolicy(key=P256)
    serials = {create_authority(policy, NOW).facts.serial for _ in range(8)}
    assert len(serials) == 8
    assert all(0 < serial < 1 << 159 for serial in serials)


def test_an_authority_with_an_impossible_name_is_the_inventorys_fault() -> None:
    """Told before a key is made."""
    with pytest.raises(InvalidInventory, match=r"certificates\.authority: subject: CN"):
        create_authority(AuthorityPolicy(common_name="a" * 65), NOW)


@pytest.mark.parametrize("role", list(Role))
def test_a_leaf_is_what_the_policy_says(role: Role) -> None:
    """Usages, names, identifiers and criticality, as cfssl's profiles of the procedures."""
    want = wanted_leaf(CertificatePolicy().leaf(role), role, "master01", ("10.0.0.1",), ())
    pem = shared_authority().sign(make_request(want), want, NOW)
    facts = read_certificate(pem)
    assert facts.sans == set(want.sans)
    assert facts.not_after - facts.not_before == YEARS
    assert not facts.is_authority
    found = {e.oid: e for e in load(pem).extensions}
    assert {oid for oid, each in found.items() if each.critical} == {
        ExtensionOID.KEY_USAGE,
        ExtensionOID.BASIC_CONSTRAINTS,
    }
    extended = found[ExtensionOID.EXTENDED_KEY_USAGE].value
    assert isinstance(extended, x509.ExtendedKeyUsage)
    assert list(extended) == (SERVER_AND_CLIENT if role.is_for_members else SERVER_AND_CLIENT[1:])
    usage = found[ExtensionOID.KEY_USAGE].value
    assert isinstance(usage, x509.KeyUsage)
    assert usage.digital_signature
    assert usage.key_encipherment
    assert not usage.key_cert_sign
    assert (ExtensionOID.SUBJECT_ALTERNATIVE_NAME in found) is role.is_for_members
    own = extension(shared_authority().certificate_pem, ExtensionOID.SUBJECT_KEY_IDENTIFIER).value
    assert isinstance(own, x509.SubjectKeyIdentifier)
    assert facts.authority_key_id == own.digest.hex()


def test_nothing_is_signed_that_was_not_planned() -> None:
    """The check of the request is in the way of every signature."""
    with pytest.raises(CertificateRefused, match="it lacks the name"):
        shared_authority().sign(make_request(sans=[]), WANT, NOW)


def test_a_leaf_ends_with_its_authority() -> None:
    """After that day nobody would trust it anyway."""
    late = NOW + YEARS - timedelta(days=1)
    facts = read_certificate(shared_authority().sign(make_request(), WANT, late))
    assert facts.not_after == shared_authority().facts.not_after


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (NOW + YEARS, "authority.certificate expired on 2031-11-23"),
        (NOW - timedelta(minutes=6), "is not valid before 2026-11-24 02:55:00 UTC"),
    ],
)
def test_an_opened_authority_does_not_sign_out_of_its_time(now: datetime, told: str) -> None:
    """Also when it was opened in time."""
    with pytest.raises(AuthorityRefused, match=told):
        shared_authority().sign(make_request(), WANT, now)
    with pytest.raises(AuthorityRefused, match=told):
        shared_authority().issue_client("me", timedelta(hours=1), now)


def test_a_validity_within_the_backdating_is_refused() -> None:
    """Such a certificate would have expired before it was installed."""
    want = dataclasses.replace(WANT, validity=timedelta(minutes=5))
    with pytest.raises(AuthorityRefused, match="would be over at once"):
        shared_authority().sign(make_request(), want, NOW)


def test_the_engines_client_certificate_is_for_clients_alone() -> None:
    """Short-lived, with its own key and without names."""
    certificate, key = shared_authority().issue_client("etcd-runbooks", timedelta(hours=24), NOW)
    facts = read_certificate(certificate)
    assert facts.usages == {Usage.SIGNING, Usage.CLIENT_AUTH}
    assert (facts.common_name, facts.sans) == ("etcd-runbooks", frozenset())
    assert facts.not_after == NOW.replace(second=0) + timedelta(hours=23, minutes=55)
    opened = serialization.load_pem_private_key(key, None)
    assert opened.public_key() == load(certificate).public_key()


def test_an_authority_keeps_its_key_to_itself() -> None:
    """Neither printed nor copied, so that no log, result or cache can hold it."""
    authority = shared_authority()
    assert repr(authority) == str(authority) == "<Authority CN=etcd>"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither copied nor pickled"):
            leak(authority)
    assert not hasattr(authority, "__dict__")


def test_a_sealed_key_opens_with_its_passphrase_alone() -> None:
    """PKCS #8, encrypted; an empty passphrase seals nothing."""
    sealed = shared_authority().seal_key(PASSPHRASE)
    assert sealed.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    opened = open_authority(shared_authority().certificate_pem, sealed, PASSPHRASE, NOW)
    assert opened.certificate_pem == shared_authority().certificate_pem
    assert private_pem(opened._key) == private_pem(shared_authority()._key)
    with pytest.raises(AuthorityRefused, match="is empty"):
        shared_authority().seal_key(b"")


def test_an_encrypted_key_is_told_from_a_bare_one() -> None:
    """In both of openssl's forms."""
    key = make_key(P256)
    traditional = serialization.PrivateFormat.TraditionalOpenSSL
    older = key.private_bytes(
        serialization.Encoding.PEM, traditional, serialization.BestAvailableEncryption(b"x")
    )
    bare = key.private_bytes(serialization.Encoding.PEM, traditional, serialization.NoEncryption())
    assert is_encrypted(older)
    assert is_encrypted(private_pem(key, b"x"))
    assert not is_encrypted(bare)
    assert not is_encrypted(private_pem(key))
    assert not is_encrypted(b"# ENCRYPTED")


@pytest.mark.parametrize("passphrase", [None, b"", PASSPHRASE])
def test_a_bare_key_opens_whatever_the_passphrase(passphrase: bytes | None) -> None:
    """It is adopted, to be sealed by the caller."""
    key = private_pem(shared_authority()._key)
    open_authority(shared_authority().certificate_pem, key, passphrase, NOW)


def certify(
    key: PrivateKey | ed448.Ed448PrivateKey,
    *extensions: x509.ExtensionType,
    issuer: str = "adopted",
    signer: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """Make a certificate named "adopted" with just these extensions, PEM."""
    names = [
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, n)]) for n in ("adopted", issuer)
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[1])
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
    )
    for each in extensions:
        builder = builder.add_extension(each, critical=True)
    algorithm = None if isinstance(key, ed448.Ed448PrivateKey) else hashes.SHA256()
    return builder.sign(signer or key, algorithm).public_bytes(serialization.Encoding.PEM)


CA = x509.BasicConstraints(ca=True, path_length=None)
NO_CERT_SIGN = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - to be refused
KOBLITZ = ec.generate_private_key(ec.SECP256K1())
EDWARDS = ed448.Ed448PrivateKey.generate()
EDWARDS_PEM = EDWARDS.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)
GOOD = certify(KEY, CA)
SEALED = private_pem(KEY, PASSPHRASE)


@pytest.mark.parametrize(
    ("certificate", "key", "passphrase", "told"),
    [
        (GOOD, SEALED, b"wrong", "the passphrase does not open authority.key"),
        (GOOD, SEALED, None, "is encrypted and there is no passphrase"),
        (GOOD, SEALED, b"", "is encrypted and there is no passphrase"),
        (GOOD, SEALED[:60] + SEALED[90:], PASSPHRASE, "or the file is damaged"),
        (GOOD, b"nonsense", None, "authority.key is not a PEM private key"),
        (GOOD, GOOD, None, "authority.key is not a PEM private key"),
        (b"nonsense", SEALED, PASSPHRASE, "authority.certificate is not a PEM certificate"),
        (b"", SEALED, PASSPHRASE, "authority.certificate is not a PEM certificate"),
        (GOOD + GOOD, SEALED, PASSPHRASE, "holds 2 certificates"),
        (GOOD, private_pem(OTHER), None, "does not belong to authority.certificate"),
        (certify(KEY), SEALED, PASSPHRASE, "lack CA:TRUE"),
        (
            certify(KEY, x509.BasicConstraints(ca=False, path_length=None)),
            SEALED,
            PASSPHRASE,
            "lack CA:TRUE",
        ),
        (certify(KEY, CA, NO_CERT_SIGN), SEALED, PASSPHRASE, "its key usage lacks cert sign"),
        (
            certify(KEY, CA, issuer="root", signer=OTHER),
            SEALED,
            PASSPHRASE,
            "was issued by CN=root, not by itself",
        ),
        (certify(KEY, CA, signer=OTHER), SEALED, PASSPHRASE, "not by itself"),
        (certify(WEAK, CA), private_pem(WEAK), None, "authority.key is RSA 1024"),
        (certify(KOBLITZ, CA), private_pem(KOBLITZ), None, "is ECDSA on secp256k1"),
        (certify(EDWARDS, CA), EDWARDS_PEM, None, "authority.key is Ed448"),
    ],
)
def test_an_authority_that_may_not_sign_is_not_opened(
    certificate: bytes, key: bytes, passphrase: bytes | None, told: str
) -> None:
    """Each with its own sentence, and nothing of the key or the passphrase in it."""
    with pytest.raises(AuthorityRefused) as caught:
        open_authority(certificate, key, passphrase, NOW)
    assert told in str(caught.value)
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("days", "told"),
    [(1, "authority.certificate expired on 2026-11-25"), (-2, "is the runner's clock right?")],
)
def test_an_authority_is_not_opened_out_of_its_time(days: int, told: str) -> None:
    """From its last second on, and before its first."""
    with pytest.raises(AuthorityRefused) as caught:
        open_authority(GOOD, SEALED, PASSPHRASE, NOW + timedelta(days=days))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "extensions",
    [(CA,), (x509.BasicConstraints(ca=True, path_length=0),)],
    ids=["without key identifier", "path length 0"],
)
@pytest.mark.parametrize("spec", [RSA, P256], ids=str)
def test_an_adopted_authority_signs(
    spec: KeySpec, extensions: tuple[x509.ExtensionType, ...]
) -> None:
    """RSA or ECDSA, with or without a subject key identifier; path length 0 allows leaves."""
    key = make_key(spec)
    certificate = certify(key, *extensions)
    authority = open_authority(certificate, private_pem(key), None, NOW)
    leaf = load(authority.sign(make_request(), WANT, NOW))
    leaf.verify_directly_issued_by(load(certificate))


@pytest.mark.parametrize(
    ("usages", "has_key_usage", "has_extended"),
    [
        ((Usage.CLIENT_AUTH,), False, True),
        ((Usage.SIGNING,), True, False),
        ((Usage.SIGNING, Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH), True, True),
    ],
)
def test_an_extension_without_usages_is_left_out(
    usages: tuple[Usage, ...], *, has_key_usage: bool, has_extended: bool
) -> None:
    """An empty one would forbid everything."""
    want = wanted_leaf(LeafPolicy(usages=usages), Role.CLIENT, "a", (), ())
    found = load(shared_authority().sign(make_request(want), want, NOW)).extensions
    oids = {e.oid for e in found}
    assert (ExtensionOID.KEY_USAGE in oids) is has_key_usage
    assert (ExtensionOID.EXTENDED_KEY_USAGE in oids) is has_extended


def test_an_authority_with_a_broken_extension_is_refused() -> None:
    """It is the library that cannot read it, and the operator who is told."""
    odd = x509.UnrecognizedExtension(ExtensionOID.BASIC_CONSTRAINTS, b"\x30\x03\x01\x01")
    key = private_pem(KEY)
    with pytest.raises(AuthorityRefused, match="cannot be read"):
        open_authority(certify(KEY, odd), key, None, NOW)
