"""Signing requests: only exactly what was planned is accepted."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID

from tasks.model.certificates import KeySpec, SubjectName
from tasks.model.errors import CertificateRefused, Unverified
from tasks.pki.keys import make_key
from tasks.pki.names import distinguished_name, general_name
from tasks.pki.requests import checked_public_key, openssl_key_command, openssl_request_config
from tests.unit.pki_requests import P256, WANT, make_request, with_version

SANS = [general_name(san) for san in WANT.sans]
CN = x509.NameAttribute(NameOID.COMMON_NAME, "master01")


def test_the_planned_request_is_accepted() -> None:
    """Its public key is what comes back."""
    key = make_key(P256)
    assert checked_public_key(make_request(key=key), WANT) == key.public_key()


@pytest.mark.parametrize(
    "change",
    [
        {"sans": SANS[::-1]},
        {"subject": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "master01")])},
    ],
)
def test_the_order_of_names_is_the_tools_own(change: dict[str, Any]) -> None:
    """The certificate is made from the plan anyway."""
    checked_public_key(make_request(**change), WANT)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"subject": distinguished_name("master02", ())}, "its subject is CN=master02, not CN="),
        ({"subject": x509.Name([])}, "its subject is empty"),
        ({"subject": x509.Name([CN, CN])}, r"its subject is CN=master01,CN=master01"),
        (
            {"subject": distinguished_name("master01", (SubjectName(O="system:masters"),))},
            "its subject is .*O=system:masters",
        ),
        ({"sans": SANS[1:]}, "it lacks the name master01"),
        ({"sans": []}, "it lacks the name 127.0.0.1; .*it lacks the name master01"),
        ({"sans": [*SANS, x509.DNSName("evil.example")]}, "it asks for the name evil.example"),
        (
            {"sans": [*SANS[:3], *SANS[4:], x509.DNSName("192.168.100.200")]},
            r"it asks for the name DNS:192\.168\.100\.200; it lacks the name 192\.168\.100\.200",
        ),
        ({"sans": [*SANS, x509.RFC822Name("a@b.example")]}, "it asks for the name email:a@b"),
        ({"key": make_key(KeySpec(algo="ecdsa", size=384))}, "its key is ECDSA 384, not ECDSA 256"),
        ({"key": ec.generate_private_key(ec.SECP256K1())}, "its key is ECDSA on secp256k1"),
        ({"key": make_key(KeySpec(algo="rsa", size=2048))}, "its key is RSA 2048, not ECDSA 256"),
        ({"key": ed25519.Ed25519PrivateKey.generate()}, "its key is Ed25519, not ECDSA 256"),
        (
            {"extensions": [x509.BasicConstraints(ca=True, path_length=None)]},
            r"it asks for the extension 2\.5\.29\.19",
        ),
        (
            {"extensions": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])]},
            r"it asks for the extension 2\.5\.29\.37",
        ),
        (
            {"attributes": [(AttributeOID.CHALLENGE_PASSWORD, b"secret")]},
            r"it has the attribute 1\.2\.840\.113549\.1\.9\.7",
        ),
    ],
)
def test_another_request_is_refused_with_what_differs(change: dict[str, Any], told: str) -> None:
    """Nothing more, nothing less, and the operator reads which."""
    with pytest.raises(CertificateRefused, match=told) as caught:
        checked_public_key(make_request(**change), WANT)
    assert str(caught.value).startswith("the signing request for the server certificate is not")


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"nonsense",
        b"\xff\x00",
        make_request()[:200],
        with_version(make_request(), b"CERTIFICATE REQUEST"),
    ],
)
def test_what_is_no_request_is_refused(pem: bytes) -> None:
    """A host's answer can be anything."""
    with pytest.raises(CertificateRefused, match="cannot be read"):
        checked_public_key(pem, WANT)


def test_a_request_that_another_key_signed_is_refused() -> None:
    """Whoever asks must hold the key."""
    der = bytearray(x509.load_pem_x509_csr(make_request()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(Unverified, match="is not signed by its own key"):
        checked_public_key(forged, WANT)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (P256, ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        (KeySpec(algo="ecdsa", size=384), ["EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        (KeySpec(algo="ecdsa", size=521), ["EC", "-pkeyopt", "ec_paramgen_curve:P-521"]),
        (KeySpec(algo="rsa", size=3072), ["RSA", "-pkeyopt", "rsa_keygen_bits:3072"]),
    ],
)
def test_every_kind_of_key_has_its_command(spec: KeySpec, options: list[str]) -> None:
    """All sizes that the policy knows."""
    command = openssl_key_command(spec)
    assert list(command[:6]) == ["openssl", "genpkey", "-algorithm", *options]


def test_the_request_file_is_plain() -> None:
    """Sections, the name, and the alternative names by kind."""
    assert openssl_request_config(WANT).splitlines()[4:] == [
        "distinguished_name = subject",
        "req_extensions = extensions",
        "[subject]",
        "0.CN = master01",
        "[extensions]",
        "subjectAltName = @names",
        "[names]",
        "DNS.0 = master01",
        "IP.1 = 127.0.0.1",
        "DNS.2 = localhost",
        "IP.3 = 192.168.100.200",
        "IP.4 = fd00::1",
    ]


def test_a_request_without_names_asks_for_no_extension() -> None:
    """An empty section would be an error of openssl's."""
    assert "extensions" not in openssl_request_config(dataclasses.replace(WANT, sans=()))


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0", "a\u2028b", " a"])
def test_no_value_ends_its_line(bad: str) -> None:
    """Even past the inventory's checks."""
    with pytest.raises(ValueError, match="do not print"):
        openssl_request_config(dataclasses.replace(WANT, common_name=bad))
    with pytest.raises(ValueError, match="do not print"):
        openssl_request_config(dataclasses.replace(WANT, sans=("a\n[x]",)))
