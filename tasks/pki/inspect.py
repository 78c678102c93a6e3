"""Reading certificates, and telling how one differs from what is wanted.

Reads and compares only; what follows from a difference is for plans/.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from tasks.model.certificates import Usage
from tasks.model.errors import AuthorityRefused, CertificateRefused
from tasks.pki.keys import key_name, public_pem, read_key_spec
from tasks.pki.leaf import WantedLeaf
from tasks.pki.names import canonical_san, differing_subject, distinguished_name, read_sans
from tasks.pki.usages import allowed_usages, normalised, read_usages

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

NOT_SIGNED = "it is not signed by the cluster's authority"
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises for bytes that are no certificate or request that it can read."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says.

    Times are aware, in UTC. `key` is as KeySpec writes it ("RSA 2048"); `usages` are cfssl's
    names; `fingerprint` is SHA-256 and `authority_key_id` the extension's, both in hexadecimal;
    `public_key_pem` is SubjectPublicKeyInfo.
    """

    common_name: str
    issuer_common_name: str
    serial: int
    sans: frozenset[str]
    not_before: datetime
    not_after: datetime
    usages: frozenset[str]
    is_authority: bool
    key: str
    fingerprint: str
    public_key_pem: bytes
    authority_key_id: str | None


def read_certificate(pem: bytes | str) -> CertificateFacts:
    """Read the first certificate of a PEM text; raises CertificateRefused when it cannot be."""
    return read_bundle(pem)[0]


def read_bundle(pem: bytes | str) -> tuple[CertificateFacts, ...]:
    """Read all certificates of a PEM text, at least one; raises CertificateRefused."""
    try:
        return tuple(_facts(each) for each in x509.load_pem_x509_certificates(_bytes(pem)))
    except UNREADABLE as error:
        raise CertificateRefused(f"the certificate cannot be read: {error}") from error


def fingerprints(pem: bytes | str) -> frozenset[str]:
    """List the fingerprints of all certificates of a PEM text; none where it cannot be read."""
    try:
        return frozenset(each.fingerprint for each in read_bundle(pem))
    except CertificateRefused:
        return frozenset()


def _bytes(pem: bytes | str) -> bytes:
    # A host's answer may hold surrogates; what replaces them is in no PEM, so it never matches.
    return pem.encode(errors="replace") if isinstance(pem, str) else pem


def _facts(certificate: x509.Certificate) -> CertificateFacts:
    extensions = certificate.extensions
    issuer_key = find_extension(extensions, x509.AuthorityKeyIdentifier)
    constraints = find_extension(extensions, x509.BasicConstraints)
    return CertificateFacts(
        common_name=_common_name(certificate.subject),
        issuer_common_name=_common_name(certificate.issuer),
        serial=certificate.serial_number,
        sans=read_sans(extensions),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        usages=read_usages(extensions),
        is_authority=constraints is not None and constraints.ca,
        key=key_name(certificate.public_key()),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        public_key_pem=public_pem(certificate.public_key()),
        authority_key_id=(
            issuer_key.key_identifier.hex() if issuer_key and issuer_key.key_identifier else None
        ),
    )


def find_extension(extensions: x509.Extensions, kind: type[_Extension]) -> _Extension | None:
    """Get an extension's value; None where the certificate has none."""
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _common_name(name: x509.Name) -> str:
    return ", ".join(str(each.value) for each in name.get_attributes_for_oid(NameOID.COMMON_NAME))


def is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority is named as the issuer and its key made the signature."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def find_signer(pem: bytes | str, bundle: bytes | str) -> CertificateFacts | None:
    """Get the certificate of a bundle that signed the first one of a PEM text; None for none."""
    try:
        certificate = x509.load_pem_x509_certificates(_bytes(pem))[0]
        authorities = x509.load_pem_x509_certificates(_bytes(bundle))
    except UNREADABLE:
        return None
    return next((_facts(a) for a in authorities if is_signed_by(certificate, a)), None)


def pick_signer(pem: bytes | str, bundle: bytes | str) -> str | None:
    """Pick the root of a bundle that signed the first certificate of a PEM text; itself as PEM."""
    try:
        certificate = x509.load_pem_x509_certificates(_bytes(pem))[0]
        authorities = x509.load_pem_x509_certificates(_bytes(bundle))
    except UNREADABLE:
        return None
    roots = (a for a in authorities if is_signed_by(certificate, a) and is_signed_by(a, a))
    found = next(roots, None)
    return found.public_bytes(serialization.Encoding.PEM).decode() if found else None


def find_intermediate(pem: bytes | str, bundle: bytes | str) -> str | None:
    """Name the authority that signed the first certificate and is not a root; None where none is.

    It is looked for in a bundle and behind the certificate itself, as a chain has it.
    """
    try:
        certificate, *chain = x509.load_pem_x509_certificates(_bytes(pem))
        authorities = [*chain, *x509.load_pem_x509_certificates(_bytes(bundle))]
    except UNREADABLE:
        return None
    signers = [a for a in authorities if is_signed_by(certificate, a)]
    if not signers or any(is_signed_by(a, a) for a in signers):
        return None
    return _common_name(signers[0].subject)


def find_issuer(pem: bytes | str, authorities: dict[str, bytes]) -> str | None:
    """Get the key of the authority, PEM, that signed the first certificate; None for another's.

    Raises AuthorityRefused when an authority cannot be read.
    """
    try:
        certificate = x509.load_pem_x509_certificates(_bytes(pem))[0]
    except UNREADABLE:
        return None
    for name, authority_pem in authorities.items():
        authority = _authority(authority_pem)
        if authority is not None and is_signed_by(certificate, authority):
            return name
    return None


class Aspect(Enum):
    """In which way a certificate differs from the wanted one."""

    MISSING = auto()
    UNREADABLE = auto()
    ISSUER = auto()
    EXPIRED = auto()
    EXPIRING = auto()
    NOT_YET_VALID = auto()
    KEY_MISSING = auto()
    KEY_MATCH = auto()
    KEY_KIND = auto()
    SUBJECT = auto()
    IS_AUTHORITY = auto()
    SAN_MISSING = auto()
    SAN_UNWANTED = auto()
    USAGE_MISSING = auto()
    USAGE_UNWANTED = auto()


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: in which way, the phrase for it, and the name or usage that it is about."""

    aspect: Aspect
    phrase: str
    about: str = ""


def find_differences(
    certificate_pem: bytes | str | None,
    want: WantedLeaf,
    authority_pem: bytes | None,
    key_public_pem: bytes | str | None,
    now: datetime,
    renew_before: timedelta,
) -> tuple[str, ...]:
    """Say how a certificate differs from the wanted one, in phrases, as `compare` finds it."""
    found = compare(certificate_pem, want, authority_pem, key_public_pem, now, renew_before)
    return tuple(difference.phrase for difference in found)


def compare(
    certificate_pem: bytes | str | None,
    want: WantedLeaf,
    authority_pem: bytes | None,
    key_public_pem: bytes | str | None,
    now: datetime,
    renew_before: timedelta,
) -> tuple[Difference, ...]:
    """Find how a certificate differs from the wanted one; empty when it does not.

    `key_public_pem` is the public half of the key beside it. None says that there is none. A
    certificate that ends with its authority is not told as about to expire: a new one would end
    on the same day, so the authority's own end is what to look at. Raises AuthorityRefused when
    `authority_pem` cannot be read.
    """
    if certificate_pem is None:
        return (Difference(Aspect.MISSING, "there is none"),)
    try:
        certificate = x509.load_pem_x509_certificate(_bytes(certificate_pem))
        facts = _facts(certificate)
    except UNREADABLE:
        return (Difference(Aspect.UNREADABLE, "it is not a certificate that can be read"),)
    authority = _authority(authority_pem)
    if authority is None or not is_signed_by(certificate, authority):
        authority = None
    return (
        *(() if authority else (Difference(Aspect.ISSUER, NOT_SIGNED),)),
        *_validity_differences(facts, authority, now, renew_before),
        *_key_differences(facts, key_public_pem, want),
        *_content_differences(certificate, facts, want),
    )


def _authority(pem: bytes | None) -> x509.Certificate | None:
    try:
        return None if pem is None else x509.load_pem_x509_certificate(pem)
    except UNREADABLE as error:
        raise AuthorityRefused(f"authority.certificate cannot be read: {error}") from error


def _validity_differences(
    facts: CertificateFacts,
    authority: x509.Certificate | None,
    now: datetime,
    renew_before: timedelta,
) -> Iterator[Difference]:
    ends_with_authority = authority is not None and facts.not_after >= authority.not_valid_after_utc
    if facts.not_after <= now:
        ended = f"it expired on {facts.not_after:%Y-%m-%d %H:%M} UTC"
        yield Difference(Aspect.EXPIRED, ended)
    elif facts.not_after - now <= renew_before and not ends_with_authority:
        yield Difference(Aspect.EXPIRING, f"it expires on {facts.not_after:%Y-%m-%d %H:%M} UTC")
    if facts.not_before > now:
        begins = f"it is not valid before {facts.not_before:%Y-%m-%d %H:%M} UTC"
        yield Difference(Aspect.NOT_YET_VALID, begins)


def _key_differences(
    facts: CertificateFacts, key_public_pem: bytes | str | None, want: WantedLeaf
) -> Iterator[Difference]:
    if key_public_pem is None:
        yield Difference(Aspect.KEY_MISSING, "its key is missing or cannot be read")
    elif _bytes(key_public_pem).split() != facts.public_key_pem.split():
        yield Difference(Aspect.KEY_MATCH, "it does not match its key")
    if facts.key != str(want.key) and read_key_spec(facts.key) is not None:
        yield Difference(Aspect.KEY_KIND, f"its key is {facts.key}, not {want.key}")


def _content_differences(
    certificate: x509.Certificate, facts: CertificateFacts, want: WantedLeaf
) -> Iterator[Difference]:
    planned = distinguished_name(want.common_name, want.names)
    if differing_subject(certificate.subject, planned):
        found = certificate.subject.rfc4514_string() or "empty"
        yield Difference(Aspect.SUBJECT, f"its subject is {found}, not {planned.rfc4514_string()}")
    if facts.is_authority:
        yield Difference(Aspect.IS_AUTHORITY, "it is an authority's")
    allowed = allowed_usages(certificate.extensions)
    for what, have, wanted, lacks, has in (
        ("SAN", facts.sans, frozenset(want.sans), Aspect.SAN_MISSING, Aspect.SAN_UNWANTED),
        (
            "usage",
            facts.usages,
            normalised(want.usages),
            Aspect.USAGE_MISSING,
            Aspect.USAGE_UNWANTED,
        ),
    ):
        for each in sorted(wanted - have - (allowed if what == "usage" else frozenset())):
            yield Difference(lacks, f"it lacks the {what} {each}", each)
        for each in sorted(filter(_has_word, have - wanted)):
            yield Difference(has, f"it has the {what} {each}, unwanted", each)


def _has_word(name_or_usage: str) -> bool:
    """Whether the inventory could ask for it; what it could not is no difference from it."""
    if name_or_usage in {str(usage) for usage in Usage}:
        return True
    try:
        return canonical_san(name_or_usage) == name_or_usage
    except ValueError:
        return False
