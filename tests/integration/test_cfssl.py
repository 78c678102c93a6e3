"""Our certificates beside those of the real cfssl and openssl, from the procedures' own JSON.

Intended differences, and there are no others:
- a leaf never outlives its authority (cfssl lets it);
- common names are UTF8String, as openssl writes them, where Go writes PrintableString;
- alternative names stand in the order of the plan (cfssl: DNS names first).
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID

from tasks.model.certificates import (
    CertificatePolicy,
    KeySpec,
    Role,
    SubjectName,
    read_cfssl_policy,
)
from tasks.pki.authority import Authority, create_authority, is_encrypted, open_authority
from tasks.pki.inspect import find_differences, read_certificate
from tasks.pki.leaf import WantedLeaf, wanted_leaf
from tasks.pki.names import canonical_san, name_attributes
from tasks.pki.requests import openssl_key_command, openssl_request_config

needs_cfssl = pytest.mark.skipif(
    not (shutil.which("cfssl") and shutil.which("cfssljson")), reason="no cfssl"
)
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl")

BOTH = ["signing", "key encipherment", "server auth", "client auth"]
CA_CONFIG = {
    "signing": {
        "default": {"expiry": "43800h"},
        "profiles": {
            "server": {"expiry": "43800h", "usages": BOTH},
            "client": {"expiry": "43800h", "usages": [*BOTH[:2], "client auth"]},
            "peer": {"expiry": "43800h", "usages": BOTH},
        },
    }
}
NAMES = [{"C": "DE", "L": "Berlin", "O": "b", "OU": "etcd"}, {"O": "a", "ST": ""}]
MEMBER = {
    "CN": "master01",
    "hosts": ["master01", "192.168.100.200", "fd00::1", "127.0.0.1", "localhost"],
    "names": NAMES,
    "key": {"algo": "ecdsa", "size": 256},
}
REQUESTS: dict[str, dict[str, Any]] = {
    "server.json": MEMBER,
    "peer.json": MEMBER,
    "client.json": {"CN": "client", "key": {"algo": "ecdsa", "size": 256}},
}
AUTHORITY_KEYS = [
    KeySpec(algo="rsa", size=2048),
    KeySpec(algo="rsa", size=4096),
    KeySpec(algo="ecdsa", size=384),
]


def run(*command: str, directory: Path, text: str | None = None) -> str:
    """Run a command that must succeed; returns its standard output."""
    done = subprocess.run(
        command,
        cwd=directory,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_cfssl(*arguments: str, directory: Path, name: str) -> tuple[bytes, bytes]:
    """Run `cfssl gencert … | cfssljson -bare name`; returns certificate and key."""
    made = run("cfssl", "gencert", *arguments, directory=directory)
    run("cfssljson", "-bare", name, "-", directory=directory, text=made)
    return (directory / f"{name}.pem").read_bytes(), (directory / f"{name}-key.pem").read_bytes()


@dataclasses.dataclass(frozen=True)
class Theirs:
    """What cfssl made of the procedures' files, and the policy that we read from them."""

    directory: Path
    policy: CertificatePolicy
    authority: bytes
    authority_key: bytes

    def make_leaf(self, role: Role) -> bytes:
        """Have cfssl make one role's certificate."""
        return run_cfssl(
            *("-ca=ca.pem", "-ca-key=ca-key.pem", "-config=ca-config.json"),
            *(f"-profile={role}", f"{role}.json"),
            directory=self.directory,
            name=role.value,
        )[0]

    def open(self) -> Authority:
        """Adopt cfssl's authority."""
        return open_authority(self.authority, self.authority_key, None, datetime.now(UTC))


@pytest.fixture(scope="module", params=AUTHORITY_KEYS, ids=str)
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    """Make an authority with cfssl as the procedures do."""
    spec: KeySpec = request.param
    directory = tmp_path_factory.mktemp("cfssl")
    (directory / "ca-config.json").write_text(json.dumps(CA_CONFIG))
    authority_request = {"CN": "etcd", "key": {"algo": spec.algo, "size": spec.size}}
    (directory / "ca-csr.json").write_text(json.dumps(authority_request))
    for name, content in REQUESTS.items():
        (directory / name).write_text(json.dumps(content))
    made = run_cfssl("-initca", "ca-csr.json", directory=directory, name="ca")
    return Theirs(directory, read_cfssl_policy(directory, CertificatePolicy()), *made)


def load(pem: bytes) -> x509.Certificate:
    """Read a certificate."""
    return x509.load_pem_x509_certificate(pem)


def shape(pem: bytes) -> dict[str, Any]:
    """Tell everything about a certificate that is not a key, a serial number or a time of day."""
    certificate = load(pem)
    facts = read_certificate(pem)
    by_value = {e.oid: e.value for e in certificate.extensions if e.oid not in IDENTIFIERS | {SANS}}
    return {
        "version": certificate.version,
        "signature": certificate.signature_algorithm_oid,
        "subject": name_attributes(certificate.subject),
        "subject's sets": [len(each) for each in certificate.subject.rdns],
        "issuer": name_attributes(certificate.issuer),
        "key": facts.key,
        "validity": certificate.not_valid_after_utc - certificate.not_valid_before_utc,
        "seconds": certificate.not_valid_before_utc.second,
        "names": facts.sans,
        "extensions": by_value,
        "criticality": {e.oid: e.critical for e in certificate.extensions},
    }


SANS = ExtensionOID.SUBJECT_ALTERNATIVE_NAME
IDENTIFIERS = {ExtensionOID.SUBJECT_KEY_IDENTIFIER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER}


@needs_cfssl
def test_our_authority_is_as_cfssls(theirs: Theirs) -> None:
    """Extensions, criticality, algorithms and validity; back-dated by five minutes as well."""
    now = datetime.now(UTC)
    ours = create_authority(theirs.policy.authority, now).certificate_pem
    assert shape(ours) == shape(theirs.authority)
    apart = load(ours).not_valid_before_utc - load(theirs.authority).not_valid_before_utc
    # cfssl rounds to the nearest minute, we round down.
    assert abs(apart) <= timedelta(minutes=2)
    for pem in (ours, theirs.authority):
        certificate = load(pem)
        identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        assert identifier.value == x509.SubjectKeyIdentifier.from_public_key(
            certificate.public_key()
        )
        assert certificate.serial_number.bit_length() <= 160


@needs_cfssl
@needs_openssl
@pytest.mark.parametrize("role", list(Role))
def test_our_leaves_are_as_cfssls(theirs: Theirs, role: Role, tmp_path: Path) -> None:
    """The same from the adopted authority, for each profile; and theirs passes our inspection."""
    their_leaf = theirs.make_leaf(role)
    want = planned(theirs.policy, role)
    request, key_public = make_request_with_openssl(want, tmp_path)
    # cfssl's leaf may outlive its authority by a minute, which ours does not.
    shorter = dataclasses.replace(want, validity=want.validity - timedelta(hours=1))
    our_leaf = theirs.open().sign(request, shorter, datetime.now(UTC))
    expected = shape(their_leaf)
    found = shape(our_leaf)
    assert found.pop("validity") == shorter.validity
    assert expected.pop("validity") == want.validity
    assert found == expected
    for oid in IDENTIFIERS:
        assert load(our_leaf).extensions.get_extension_for_oid(oid)
    ours_aki, theirs_aki = (
        load(pem).extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        for pem in (our_leaf, their_leaf)
    )
    assert ours_aki == theirs_aki
    assert load(our_leaf).issuer.public_bytes() == load(theirs.authority).subject.public_bytes()
    soon = timedelta(days=30)
    for pem, public in (
        (our_leaf, key_public),
        (their_leaf, read_certificate(their_leaf).public_key_pem),
    ):
        told = find_differences(pem, want, theirs.authority, public, datetime.now(UTC), soon)
        assert told == ()


def planned(policy: CertificatePolicy, role: Role) -> WantedLeaf:
    """Plan what the procedures' JSON asks for."""
    return wanted_leaf(policy.leaf(role), role, "master01", ("192.168.100.200", "fd00::1"), ())


def make_request_with_openssl(want: WantedLeaf, directory: Path) -> tuple[bytes, bytes]:
    """Make a key and a request as a host does; returns the request and the public key, PEM."""
    run(*openssl_key_command(want.key), "-out", "leaf.key", directory=directory)
    (directory / "leaf.cnf").write_text(openssl_request_config(want))
    request = run(
        *("openssl", "req", "-new", "-key", "leaf.key", "-config", "leaf.cnf"), directory=directory
    )
    public = run("openssl", "pkey", "-in", "leaf.key", "-pubout", directory=directory)
    return request.encode(), public.encode()


PLAIN = planned(CertificatePolicy(), Role.SERVER)
ODD = "a$b ${ENV::HOME} \\ \"q\" 'q' `q` #c ;d =e +f, Ünïcödé/漢字"


@needs_openssl
@pytest.mark.parametrize(
    "want",
    [
        PLAIN,
        planned(CertificatePolicy(), Role.CLIENT),
        dataclasses.replace(
            PLAIN, sans=("*.example.org", canonical_san("::ffff:10.0.0.1"), "_etcd.example.org")
        ),
        dataclasses.replace(PLAIN, key=KeySpec(algo="ecdsa", size=384)),
        dataclasses.replace(PLAIN, key=KeySpec(algo="ecdsa", size=521)),
        dataclasses.replace(PLAIN, key=KeySpec(algo="rsa", size=2048)),
        dataclasses.replace(PLAIN, common_name=ODD[:39]),
        dataclasses.replace(PLAIN, common_name="#a"),
        dataclasses.replace(PLAIN, common_name="\\"),
        dataclasses.replace(PLAIN, common_name="=+$x"),
        dataclasses.replace(
            PLAIN,
            names=(
                SubjectName(C="DE", ST="Land Berlin", L="Berlin", O="Acme, Inc.", OU="etcd & Co"),
                SubjectName(O=ODD, OU="b"),
                SubjectName(O="0 first", OU="etcd & Co"),
            ),
        ),
    ],
    ids=str,
)
def test_openssl_requests_what_was_planned(want: WantedLeaf, tmp_path: Path) -> None:
    """Every name and key that a plan may have comes through openssl and is then signed."""
    request, key_public = make_request_with_openssl(want, tmp_path)
    key = (tmp_path / "leaf.key").read_bytes()
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    now = datetime.now(UTC)
    authority = create_authority(CertificatePolicy().authority, now)
    signed = authority.sign(request, want, now)
    told = find_differences(
        signed, want, authority.certificate_pem, key_public, now, timedelta(days=1)
    )
    assert told == ()
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    (tmp_path / "leaf.pem").write_bytes(signed)
    run(
        *("openssl", "verify", "-x509_strict", "-purpose"),
        "sslserver" if want.role.is_for_members else "sslclient",
        *("-CAfile", "ca.pem", "leaf.pem"),
        directory=tmp_path,
    )


@needs_openssl
def test_openssl_opens_a_sealed_key(tmp_path: Path) -> None:
    """An operator can get at the authority without us."""
    authority = create_authority(CertificatePolicy().authority, datetime.now(UTC))
    (tmp_path / "ca-key.pem").write_bytes(authority.seal_key(b"open sesame"))
    (tmp_path / "passphrase").write_text("open sesame\n")
    public = run(
        *("openssl", "pkey", "-in", "ca-key.pem", "-passin", "file:passphrase", "-pubout"),
        directory=tmp_path,
    )
    assert public.encode() == authority.facts.public_key_pem


@needs_cfssl
def test_cfssls_authority_can_be_adopted_and_sealed(theirs: Theirs) -> None:
    """Its key is bare, in OpenSSL's older form; sealed it is PKCS #8."""
    assert not is_encrypted(theirs.authority_key)
    sealed = theirs.open().seal_key(b"x")
    assert is_encrypted(sealed)
    opened = open_authority(theirs.authority, sealed, b"x", datetime.now(UTC))
    assert load(opened.certificate_pem).public_bytes(serialization.Encoding.PEM) == (
        opened.certificate_pem
    )
