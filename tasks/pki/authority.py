"""The certificate authority: made or opened, its key only ever in memory or sealed.

Certificates are what cfssl makes from the procedures' JSON: same extensions, same criticality,
back-dated by five minutes for clocks that are a little apart. One difference: a leaf never
outlives its authority, since a certificate whose issuer has expired verifies nowhere.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tasks.model.certificates import AuthorityPolicy, KeySpec, Role, Usage
from tasks.model.errors import AuthorityRefused, CertificateRefused
from tasks.pki.leaf import WantedLeaf, alternative_names, general_name, subject

BACKDATE = timedelta(minutes=5)
CURVES = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}
EXTENDED = {
    Usage.SERVER_AUTH: ExtendedKeyUsageOID.SERVER_AUTH,
    Usage.CLIENT_AUTH: ExtendedKeyUsageOID.CLIENT_AUTH,
}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def make_key(spec: KeySpec) -> PrivateKey:
    """Make a private key."""
    if spec.algo == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=spec.size)
    return ec.generate_private_key(CURVES[spec.size])


def key_spec(key: CertificatePublicKeyTypes) -> str:
    """Tell a public key's algorithm and size as KeySpec writes them."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.key_size}"
    return type(key).__name__


class Authority:
    """An opened authority. Its key cannot be printed, pickled or read; it only signs."""

    def __init__(self, certificate: x509.Certificate, key: PrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    def __repr__(self) -> str:
        return f"<Authority {self._certificate.subject.rfc4514_string()}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an authority's key is never pickled")

    @property
    def certificate_pem(self) -> bytes:
        """The authority's certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def seal_key(self, passphrase: bytes) -> bytes:
        """Encrypt the key under a passphrase: PKCS #8 PEM."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase),
        )

    def sign(self, request_pem: bytes, want: WantedLeaf, now: datetime) -> bytes:
        """Sign a request that is exactly what was planned; returns the certificate, PEM.

        Only the public key is taken from the request. Raises CertificateRefused that names what
        differs.
        """
        try:
            request = x509.load_pem_x509_csr(request_pem)
        except ValueError as error:
            raise CertificateRefused(f"the {want.role} request is not a PEM request") from error
        if not request.is_signature_valid:
            raise CertificateRefused(f"the {want.role} request's signature is not valid")
        differences = _request_differences(request, want)
        if differences:
            raise CertificateRefused(
                f"the {want.role} request is not what was planned: {'; '.join(differences)}"
            )
        return self._issue(request.public_key(), want, now).public_bytes(serialization.Encoding.PEM)

    def _issue(
        self, public_key: CertificatePublicKeyTypes, want: WantedLeaf, now: datetime
    ) -> x509.Certificate:
        begin = _begin(now)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject(want.common_name, want.names))
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(min(begin + want.validity, self._certificate.not_valid_after_utc))
            .add_extension(_key_usage(want.usages), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([EXTENDED[u] for u in want.usages if u in EXTENDED]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._authority_key_identifier(), critical=False)
        )
        if want.sans:
            names = x509.SubjectAlternativeName(map(general_name, want.sans))
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            own = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)

    def issue_client(
        self, common_name: str, validity: timedelta, now: datetime
    ) -> tuple[bytes, bytes]:
        """Issue a client certificate and its key, PEM, for the engine's own use in memory."""
        key = make_key(KeySpec())
        usages = (Usage.DIGITAL_SIGNATURE, Usage.CLIENT_AUTH)
        want = WantedLeaf(Role.CLIENT, common_name, (), (), KeySpec(), usages, validity)
        certificate = self._issue(key.public_key(), want, now)
        return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def create_authority(policy: AuthorityPolicy, now: datetime) -> Authority:
    """Make a self-signed authority, as `cfssl gencert -initca` does."""
    key = make_key(policy.key)
    name = subject(policy.common_name, policy.names)
    begin = _begin(now)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + policy.validity)
        .add_extension(_authority_usage(), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def is_encrypted(key_pem: bytes) -> bool:
    """Whether a private key's PEM is encrypted (PKCS #8, or OpenSSL's older form)."""
    return b"ENCRYPTED" in key_pem


def open_authority(
    certificate_pem: bytes, key_pem: bytes, passphrase: bytes | None, now: datetime
) -> Authority:
    """Open an authority to sign with it; raises AuthorityRefused with the way out."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError as error:
        raise AuthorityRefused("authority.certificate is not a PEM certificate") from error
    if is_encrypted(key_pem) and passphrase is None:
        raise AuthorityRefused("authority.key is encrypted and there is no passphrase for it")
    try:
        key = serialization.load_pem_private_key(key_pem, passphrase)
    except (ValueError, TypeError) as error:
        if is_encrypted(key_pem):
            raise AuthorityRefused(
                "the passphrase does not open authority.key; check authority.passphrase"
            ) from error
        raise AuthorityRefused("authority.key is not a PEM private key") from error
    if not isinstance(key, PrivateKey):
        raise AuthorityRefused("authority.key is neither RSA nor ECDSA")
    if key.public_key() != certificate.public_key():
        raise AuthorityRefused(
            "authority.key does not belong to authority.certificate; put the matching pair there"
        )
    _check_may_sign(certificate, now)
    return Authority(certificate, key)


def _check_may_sign(certificate: x509.Certificate, now: datetime) -> None:
    extensions = certificate.extensions
    try:
        is_authority = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    try:
        signs = extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        signs = True
    if not is_authority or not signs:
        raise AuthorityRefused("authority.certificate is not an authority's: it may not sign")
    if certificate.not_valid_after_utc <= now:
        raise AuthorityRefused(
            f"authority.certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}; give "
            "one that is valid, or move it and its key away to have a new one made"
        )
    if certificate.not_valid_before_utc > now:
        raise AuthorityRefused(
            f"authority.certificate is not valid before {certificate.not_valid_before_utc:%F %T}; "
            "is the runner's clock right?"
        )


def is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's key made the certificate's signature."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _begin(now: datetime) -> datetime:
    return (now - BACKDATE).replace(second=0, microsecond=0)


def _key_usage(usages: tuple[Usage, ...]) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=bool({Usage.SIGNING, Usage.DIGITAL_SIGNATURE} & set(usages)),
        key_encipherment=Usage.KEY_ENCIPHERMENT in usages,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        key_encipherment=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _request_differences(request: x509.CertificateSigningRequest, want: WantedLeaf) -> list[str]:
    differences = []
    if request.subject != subject(want.common_name, want.names):
        name = next(iter(request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)), None)
        differences.append(
            f"its subject is {request.subject.rfc4514_string()!r}"
            if name is None or name.value == want.common_name
            else f"its common name is {name.value!r}, not {want.common_name!r}"
        )
    spec = key_spec(request.public_key())
    if spec != str(want.key):
        differences.append(f"its key is {spec}, not {want.key}")
    asked, planned = alternative_names(request.extensions), set(want.sans)
    differences += [f"it asks for the name {san}" for san in sorted(asked - planned)]
    differences += [f"it lacks the name {san}" for san in sorted(planned - asked)]
    differences += [
        f"it asks for the extension {extension.oid.dotted_string}"
        for extension in request.extensions
        if not isinstance(extension.value, x509.SubjectAlternativeName)
    ]
    return differences
