"""Key usages, between cfssl's names and X.509's two extensions."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tasks.model.certificates import Usage

# "signing" and "digital signature" are one bit (cfssl's config.KeyUsage); it is read as the first.
_BITS = {
    Usage.SIGNING: "digital_signature",
    Usage.DIGITAL_SIGNATURE: "digital_signature",
    Usage.CONTENT_COMMITMENT: "content_commitment",
    Usage.KEY_ENCIPHERMENT: "key_encipherment",
    Usage.KEY_AGREEMENT: "key_agreement",
    Usage.DATA_ENCIPHERMENT: "data_encipherment",
}
_EXTENDED = {
    Usage.SERVER_AUTH: ExtendedKeyUsageOID.SERVER_AUTH,
    Usage.CLIENT_AUTH: ExtendedKeyUsageOID.CLIENT_AUTH,
}
_ALL_BITS = (
    "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
    "key_cert_sign crl_sign encipher_only decipher_only"
).split()
_ONLY_WITH_AGREEMENT = {"encipher_only", "decipher_only"}


def normalised(usages: Iterable[Usage]) -> frozenset[str]:
    """Bring usages into the form in which `read_usages` tells them."""
    return frozenset(Usage.SIGNING if u is Usage.DIGITAL_SIGNATURE else u for u in usages)


def key_usage(*bits: str) -> x509.KeyUsage:
    """Build the extension with these bits, named as cryptography names them."""
    return x509.KeyUsage(**{bit: bit in bits for bit in _ALL_BITS})


def leaf_extensions(usages: tuple[Usage, ...]) -> list[tuple[x509.ExtensionType, bool]]:
    """List a leaf's usage extensions with whether each is critical, as cfssl does."""
    extensions: list[tuple[x509.ExtensionType, bool]] = []
    if bits := [_BITS[usage] for usage in usages if usage in _BITS]:
        extensions.append((key_usage(*bits), True))
    if extended := list(dict.fromkeys(_EXTENDED[u] for u in usages if u in _EXTENDED)):
        extensions.append((x509.ExtendedKeyUsage(extended), False))
    return extensions


def read_usages(extensions: x509.Extensions) -> frozenset[str]:
    """Read all usages, as cfssl names them; one that Usage lacks by its X.509 name or OID."""
    found: set[str] = set()
    for extension in extensions:
        if isinstance(extension.value, x509.KeyUsage):
            found |= set(map(_bit_name, _bits_set(extension.value)))
        elif isinstance(extension.value, x509.ExtendedKeyUsage):
            known = {oid: usage for usage, oid in _EXTENDED.items()}
            found |= {str(known.get(oid, oid.dotted_string)) for oid in extension.value}
    return frozenset(found)


def allowed_usages(extensions: x509.Extensions) -> frozenset[str]:
    """List the usages that a certificate allows by having no extension for them (RFC 5280)."""
    kinds = {type(extension.value) for extension in extensions}
    allowed = () if x509.KeyUsage in kinds else tuple(_BITS)
    return frozenset(map(str, (*allowed, *(() if x509.ExtendedKeyUsage in kinds else _EXTENDED))))


def _bits_set(usage: x509.KeyUsage) -> list[str]:
    return [
        bit
        for bit in _ALL_BITS
        if (usage.key_agreement or bit not in _ONLY_WITH_AGREEMENT) and getattr(usage, bit)
    ]


def _bit_name(bit: str) -> str:
    return next((usage.value for usage, name in _BITS.items() if name == bit), bit)
