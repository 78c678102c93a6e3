"""What the certificate tests share: a planned leaf, requests for it, and an authority."""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tasks.model.certificates import AuthorityPolicy, KeySpec, LeafPolicy, Role
from tasks.pki.authority import Authority, create_authority
from tasks.pki.keys import PrivateKey, make_key
from tasks.pki.leaf import WantedLeaf, wanted_leaf
from tasks.pki.names import distinguished_name, general_name

NOW = datetime(2026, 11, 24, 3, 0, 30, tzinfo=UTC)
YEARS = timedelta(hours=43800)
P256 = KeySpec(algo="ecdsa", size=256)
WANT = wanted_leaf(LeafPolicy(), Role.SERVER, "master01", ("192.168.100.200", "fd00::1"), ())


@functools.cache
def shared_authority() -> Authority:
    """Make the authority of tests that do not look at how it was made; ECDSA is quick."""
    return create_authority(AuthorityPolicy(key=P256), NOW)


def with_version(pem: bytes, label: bytes) -> bytes:
    """Give a certificate or a request a version that X.509 does not have."""
    lines = pem.strip().splitlines()
    der = base64.b64decode(b"".join(lines[1:-1]))
    at = der.index(b"\x02\x01") + 2
    changed = base64.encodebytes(der[:at] + b"\x07" + der[at + 1 :])
    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label, changed, label)


def make_request(
    want: WantedLeaf = WANT,
    key: PrivateKey | None = None,
    *,
    subject: x509.Name | None = None,
    sans: Iterable[x509.GeneralName] | None = None,
    extensions: Iterable[x509.ExtensionType] = (),
    attributes: Iterable[tuple[x509.ObjectIdentifier, bytes]] = (),
) -> bytes:
    """Make a request for what is wanted, except for what is given; PEM."""
    key = key or make_key(want.key)
    if subject is None:
        subject = distinguished_name(want.common_name, want.names)
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    names = list(map(general_name, want.sans) if sans is None else sans)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    for oid, value in attributes:
        builder = builder.add_attribute(oid, value)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)
