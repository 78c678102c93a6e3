"""Reading certificates, and telling how one differs from what is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tasks.model.certificates import Usage
from tasks.pki.authority import EXTENDED, is_signed_by, key_spec
from tasks.pki.leaf import WantedLeaf, alternative_names, subject


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says; times are aware, the fingerprint is SHA-256 in hexadecimal."""

    subject: str
    issuer: str
    serial: int
    sans: frozenset[str]
    not_before: datetime
    not_after: datetime
    usages: frozenset[Usage]
    key: str
    fingerprint: str
    public_key_pem: str


def read_certificate(pem: bytes | str) -> CertificateFacts:
    """Read the first certificate of a PEM text; raises ValueError when there is none."""
    return _facts(_load(pem))


def _load(pem: bytes | str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode() if isinstance(pem, str) else pem)


def _facts(certificate: x509.Certificate) -> CertificateFacts:
    public_key = certificate.public_key()
    return CertificateFacts(
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        certificate.serial_number,
        alternative_names(certificate.extensions),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        _usages(certificate.extensions),
        key_spec(public_key),
        certificate.fingerprint(hashes.SHA256()).hex(),
        public_key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode(),
    )


def _usages(extensions: x509.Extensions) -> frozenset[Usage]:
    found = set()
    for extension in extensions:
        if isinstance(extension.value, x509.KeyUsage):
            if extension.value.digital_signature:
                found.add(Usage.DIGITAL_SIGNATURE)
            if extension.value.key_encipherment:
                found.add(Usage.KEY_ENCIPHERMENT)
        elif isinstance(extension.value, x509.ExtendedKeyUsage):
            found |= {usage for usage, oid in EXTENDED.items() if oid in extension.value}
    return frozenset(found)


def _validity_differences(
    facts: CertificateFacts, now: datetime, renew_before: timedelta
) -> Iterator[str]:
    if facts.not_after <= now:
        yield f"it expired on {facts.not_after:%Y-%m-%d}"
    elif facts.not_after <= now + renew_before:
        yield f"it expires on {facts.not_after:%Y-%m-%d %H:%M} UTC"
    if facts.not_before > now:
        yield f"it is not valid before {facts.not_before:%Y-%m-%d %H:%M} UTC"


def find_differences(
    certificate_pem: str | None,
    want: WantedLeaf,
    authority_pem: bytes | None,
    key_public_pem: str | None,
    now: datetime,
    renew_before: timedelta,
) -> tuple[str, ...]:
    """Say how a certificate on a host differs from the wanted one; empty when it does not."""
    if certificate_pem is None:
        return ("there is none",)
    try:
        certificate = _load(certificate_pem)
    except ValueError:
        return ("it is not a certificate",)
    facts = _facts(certificate)
    differences = [*_validity_differences(facts, now, renew_before)]
    if authority_pem is None or not is_signed_by(certificate, _load(authority_pem)):
        differences.append("it is not signed by the cluster's authority")
    if key_public_pem is None:
        differences.append("its key is missing or cannot be read")
    elif facts.public_key_pem.strip() != key_public_pem.strip():
        differences.append("it does not match its key")
    if certificate.subject != subject(want.common_name, want.names):
        differences.append(f"its subject is {facts.subject}")
    planned = set(want.sans)
    differences += [f"it lacks the name {san}" for san in sorted(planned - facts.sans)]
    differences += [f"it has the name {san} too many" for san in sorted(facts.sans - planned)]
    wanted = {Usage.DIGITAL_SIGNATURE if u is Usage.SIGNING else u for u in want.usages}
    if facts.usages != wanted:
        differences.append(f"its usages are {', '.join(sorted(facts.usages)) or 'none'}")
    if facts.key != str(want.key):
        differences.append(f"its key is {facts.key}, not {want.key}")
    return tuple(differences)
