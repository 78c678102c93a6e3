"""The certificate authority: made or opened, its key only ever in memory or sealed.

Certificates are what cfssl 1.2 makes from the procedures' JSON: the same extensions, criticality,
signature algorithms and validity, which begins five minutes ago for clocks that are a little
apart. One difference is meant: a leaf never outlives its authority, since a certificate whose
issuer has expired verifies nowhere.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import NoReturn, TypeGuard

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificatePublicKeyTypes,
    PrivateKeyTypes,
)

from tasks.model.certificates import AuthorityPolicy, KeySpec, Role, SubjectName, Usage
from tasks.model.errors import AuthorityRefused, InvalidInventory
from tasks.pki.inspect import UNREADABLE, CertificateFacts, find_extension, read_certificate
from tasks.pki.keys import (
    PrivateKey,
    key_name,
    make_key,
    make_like,
    private_pem,
    signature_hash,
)
from tasks.pki.leaf import WantedLeaf
from tasks.pki.names import distinguished_name, general_name
from tasks.pki.requests import checked_public_key
from tasks.pki.usages import key_usage, leaf_extensions

BACKDATE = timedelta(minutes=5)
_SMALLEST_RSA = 2048
_LONGEST_PASSPHRASE = 1023  # cryptography's, since OpenSSL would cut it off
_ENCRYPTED = re.compile(
    rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: *4,ENCRYPTED", re.MULTILINE
)


class Authority:
    """An opened authority: it signs, and its key cannot be printed, copied or pickled."""

    __slots__ = ("_certificate", "_key")

    def __init__(self, certificate: x509.Certificate, key: PrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    def __repr__(self) -> str:
        return f"<Authority {self._certificate.subject.rfc4514_string()}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an opened authority is neither copied nor pickled")

    @property
    def certificate_pem(self) -> bytes:
        """The authority's certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def facts(self) -> CertificateFacts:
        """What the authority's certificate says."""
        return read_certificate(self.certificate_pem)

    def seal_key(self, passphrase: bytes) -> bytes:
        """Encrypt the key: PKCS #8 PEM.

        Raises AuthorityRefused for a passphrase that is empty or longer than OpenSSL takes.
        """
        if not passphrase:
            raise AuthorityRefused("the passphrase for authority.key is empty")
        if len(passphrase) > _LONGEST_PASSPHRASE:
            raise AuthorityRefused(
                f"the passphrase for authority.key is longer than {_LONGEST_PASSPHRASE} bytes; "
                "choose a shorter one"
            )
        return private_pem(self._key, passphrase)

    def bare_key(self) -> bytes:
        """Write the key as it lies where kubeadm keeps it, on the hosts: PEM, not encrypted."""
        return private_pem(self._key)

    def sign(self, request_pem: bytes, want: WantedLeaf, now: datetime) -> bytes:
        """Sign a request that is exactly what was planned; returns the certificate, PEM.

        Only the public key is taken from the request. Raises CertificateRefused that names what
        differs, and AuthorityRefused when the authority or the certificate would be over by now.
        """
        return self._issue(checked_public_key(request_pem, want), want, now)

    def issue_client(
        self, name: str, validity: timedelta, now: datetime, *, has_common_name: bool = True
    ) -> tuple[bytes, bytes]:
        """Issue a client certificate and its key, both PEM, for the engine's own use in memory.

        Without a common name, it is the name of an organization. The key is not encrypted: it is
        never to be stored. Raises as `sign` does.
        """
        key = make_key(KeySpec())
        usages = (Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH)
        common_name, names = (name, ()) if has_common_name else ("", (SubjectName(O=name),))
        want = WantedLeaf(Role.CLIENT, common_name, names, (), KeySpec(), usages, validity)
        return self._issue(key.public_key(), want, now), private_pem(key)

    def renewed(self, validity: timedelta, now: datetime) -> Authority:
        """Give the authority a new life: the same name and key, so what it signed stays signed.

        Members that run must load the new certificate, since they check the old one's end too.
        """
        certificate = _signed_again(self._certificate, self._key, validity, now)
        return Authority(certificate, self._key)

    def succeeded(self, now: datetime) -> Authority:
        """Make another authority that is what this one is, but for its key and its times."""
        old, key = self._certificate, make_like(self._key)
        validity = old.not_valid_after_utc - old.not_valid_before_utc
        return Authority(_signed_again(old, key, validity, now), key)

    def _issue(
        self, public_key: CertificatePublicKeyTypes, want: WantedLeaf, now: datetime
    ) -> bytes:
        begin, authority = _begin(now), self._certificate
        _check_time(authority, now)
        end = begin + min(want.validity, authority.not_valid_after_utc - begin)
        if end <= now:
            raise AuthorityRefused(
                f"a {want.role} certificate valid for {want.validity} would be over at once: it "
                f"begins {BACKDATE} ago; raise its validity"
            )
        extensions = leaf_extensions(want.usages)
        extensions += [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.SubjectKeyIdentifier.from_public_key(public_key), False),
            (self._key_identifier(), False),
        ]
        if want.sans:
            extensions.append((x509.SubjectAlternativeName(map(general_name, want.sans)), False))
        builder = (
            x509.CertificateBuilder()
            .subject_name(distinguished_name(want.common_name, want.names))
            .issuer_name(authority.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )
        for value, is_critical in extensions:
            builder = builder.add_extension(value, is_critical)
        certificate = builder.sign(self._key, signature_hash(self._key))
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        own = find_extension(self._certificate.extensions, x509.SubjectKeyIdentifier)
        if own is None:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _signed_again(
    old: x509.Certificate, key: PrivateKey, validity: timedelta, now: datetime
) -> x509.Certificate:
    """Sign a certificate that says what `old` says, of a key and for times of its own."""
    begin = _begin(now)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + validity)
    )
    for extension in old.extensions:
        value = extension.value
        if isinstance(value, x509.AuthorityKeyIdentifier):
            continue  # it may be left out where the issuer is oneself (RFC 5280, 4.2.1.1)
        if isinstance(value, x509.SubjectKeyIdentifier):
            value = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(value, extension.critical)
    return builder.sign(key, signature_hash(key))


def create_authority(policy: AuthorityPolicy, now: datetime) -> Authority:
    """Make a self-signed authority, as `cfssl gencert -initca` does.

    Raises InvalidInventory for a subject or an end that cannot stand in a certificate.
    """
    begin = _begin(now)
    try:
        name = distinguished_name(policy.common_name, policy.names)
    except ValueError as error:
        raise InvalidInventory("certificates.authority", (f"subject: {error}",)) from error
    try:
        end = begin + policy.validity
    except OverflowError as error:
        problem = "validity: it would end after the year 9999; give less, such as 43800h"
        raise InvalidInventory("certificates.authority", (problem,)) from error
    key = make_key(policy.key)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, signature_hash(key))
    )
    return Authority(certificate, key)


def is_encrypted(key_pem: bytes) -> bool:
    """Whether a private key's PEM is encrypted (PKCS #8, or OpenSSL's older form)."""
    return _ENCRYPTED.search(key_pem) is not None


def open_authority(
    certificate_pem: bytes,
    key_pem: bytes,
    passphrase: bytes | None,
    now: datetime,
    *,
    to_renew: bool = False,
) -> Authority:
    """Open an authority to sign with it, or `to_renew` it, for which it may have expired.

    A key that is not encrypted is opened too, whatever the passphrase: whether that may be is the
    caller's to say (`is_encrypted`). Raises AuthorityRefused with the way out.
    """
    try:
        certificates = x509.load_pem_x509_certificates(certificate_pem)
        public_key = certificates[0].public_key()
    except UNREADABLE as error:
        raise AuthorityRefused("authority.certificate is not a PEM certificate") from error
    if len(certificates) > 1:
        raise AuthorityRefused(
            f"authority.certificate holds {len(certificates)} certificates; leave only the one "
            "that belongs to authority.key"
        )
    key = _open_key(key_pem, passphrase)
    if key.public_key() != public_key:
        raise AuthorityRefused(
            "authority.key does not belong to authority.certificate; put the matching pair there"
        )
    if not _is_usable(key):
        raise AuthorityRefused(
            f"authority.key is {key_name(public_key)}; RSA from 2048 bits, ECDSA on P-256, "
            "P-384 and P-521, and Ed25519 can be used"
        )
    _check_may_sign(certificates[0])
    if not to_renew:
        _check_time(certificates[0], now)
    return Authority(certificates[0], key)


def _is_usable(key: PrivateKeyTypes) -> TypeGuard[PrivateKey]:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.key_size >= _SMALLEST_RSA
    kinds = {"ECDSA 256", "ECDSA 384", "ECDSA 521", "Ed25519"}
    return (
        isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey)
        and key_name(key.public_key()) in kinds
    )


def _open_key(key_pem: bytes, passphrase: bytes | None) -> PrivateKeyTypes:
    if not is_encrypted(key_pem):
        try:
            return serialization.load_pem_private_key(key_pem, None)
        except UNREADABLE as error:
            raise AuthorityRefused("authority.key is not a PEM private key") from error
    if not passphrase:
        raise AuthorityRefused("authority.key is encrypted and there is no passphrase for it")
    try:
        return serialization.load_pem_private_key(key_pem, passphrase)
    except UNREADABLE as error:
        raise AuthorityRefused(
            "the passphrase does not open authority.key, or the file is damaged; correct what "
            "authority.passphrase points to"
        ) from error


def _check_may_sign(certificate: x509.Certificate) -> None:
    try:
        constraints = find_extension(certificate.extensions, x509.BasicConstraints)
        usage = find_extension(certificate.extensions, x509.KeyUsage)
        issuer = certificate.issuer.rfc4514_string()
    except UNREADABLE as error:
        raise AuthorityRefused(f"authority.certificate cannot be read: {error}") from error
    # The path length does not matter: even 0 allows leaves, and nothing else is ever signed.
    if constraints is None or not constraints.ca:
        raise AuthorityRefused(
            "authority.certificate is not an authority's: its basic constraints lack CA:TRUE"
        )
    # Without the extension every use is allowed (RFC 5280, 4.2.1.3).
    if usage is not None and not usage.key_cert_sign:
        raise AuthorityRefused("authority.certificate may not sign: its key usage lacks cert sign")
    try:
        certificate.verify_directly_issued_by(certificate)
    except (*UNREADABLE, InvalidSignature) as error:
        # etcd would accept it, but openssl's clients look for the issuer and find none.
        raise AuthorityRefused(
            f"authority.certificate was issued by {issuer}, not by itself; "
            "only a root can be the cluster's authority"
        ) from error


def _check_time(certificate: x509.Certificate, now: datetime) -> None:
    if certificate.not_valid_after_utc <= now:
        raise AuthorityRefused(
            f"authority.certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}; "
            "recover_certificates renews that of a cluster; for a new one, give one that is valid, "
            "or move it and its key away to have one made"
        )
    if certificate.not_valid_before_utc > now:
        raise AuthorityRefused(
            f"authority.certificate is not valid before {certificate.not_valid_before_utc:%F %T} "
            "UTC; is the runner's clock right?"
        )


def _begin(now: datetime) -> datetime:
    return (now - BACKDATE).replace(second=0, microsecond=0)
