"""Distinguished names and subject alternative names, between text and X.509.

Owns which texts may stand in a certificate. Alternative names have one canonical text each, so
that sets of them can be compared: 10.0.0.1, fd00::1, etcd.example.org; kinds that etcd has no
use for carry their kind ("email:root@example.org") and are so never taken for one of those.
"""

from __future__ import annotations

import ipaddress
import re

from cryptography import x509
from cryptography.x509.oid import NameOID

from tasks.model.certificates import SubjectName

# cfssl's order, which is Go's (crypto/x509/pkix, Name.ToRDNSequence); lengths are RFC 5280's
# upper bounds, which openssl enforces on the host.
PARTS = {
    "C": (NameOID.COUNTRY_NAME, 2),
    "ST": (NameOID.STATE_OR_PROVINCE_NAME, 128),
    "L": (NameOID.LOCALITY_NAME, 128),
    "O": (NameOID.ORGANIZATION_NAME, 64),
    "OU": (NameOID.ORGANIZATIONAL_UNIT_NAME, 64),
    "CN": (NameOID.COMMON_NAME, 64),
}

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(\*\.)?({_LABEL}\.)*{_LABEL}")
_LONGEST_DNS_NAME = 253
_KINDS: dict[type[x509.GeneralName], str] = {
    x509.RFC822Name: "email",
    x509.UniformResourceIdentifier: "URI",
    x509.RegisteredID: "RID",
    x509.DirectoryName: "dirName",
    x509.OtherName: "otherName",
}


def subject_parts(common_name: str, names: tuple[SubjectName, ...]) -> dict[str, tuple[str, ...]]:
    """Put a subject's parts into order: part -> its values, each once; empty ones are left out.

    Raises ValueError, a sentence, for a value that cannot stand in a certificate.
    """
    listed = [(part, getattr(name, part)) for name in names for part in PARTS if part != "CN"]
    listed.append(("CN", common_name))
    parts: dict[str, tuple[str, ...]] = dict.fromkeys(PARTS, ())
    for part, value in listed:
        if value and value not in parts[part]:
            _check(part, value)
            parts[part] = (*parts[part], value)
    if not any(parts.values()):
        raise ValueError("the subject is empty")
    return {part: values for part, values in parts.items() if values}


def _check(part: str, value: str) -> None:
    longest = PARTS[part][1]
    if len(value.encode(errors="replace")) > longest:
        raise ValueError(f"{part} {value!r} is longer than {longest} bytes")
    if not value.isprintable() or value != value.strip():
        raise ValueError(f"{part} {value!r} has blanks around it or characters that do not print")
    if part == "C" and not re.fullmatch(r"[A-Za-z]{2}", value):
        raise ValueError(f"C {value!r} is not a country's two letters")


def distinguished_name(common_name: str, names: tuple[SubjectName, ...]) -> x509.Name:
    """Build a subject as cfssl does: several values of one part stand in one set.

    Raises ValueError as `subject_parts` does.
    """
    return x509.Name(
        x509.RelativeDistinguishedName(x509.NameAttribute(PARTS[part][0], v) for v in values)
        for part, values in subject_parts(common_name, names).items()
    )


def name_attributes(name: x509.Name) -> list[tuple[str, str | bytes]]:
    """List a name's attributes, sorted: two tools may write the same name in another order."""
    return sorted(((a.oid.dotted_string, a.value) for a in name), key=repr)


def differing_subject(found: x509.Name, planned: x509.Name) -> bool:
    """Whether a subject differs in what the inventory has a word for: not in parts of other kinds.

    One without a common name is not what any inventory asks for, so that is no difference.
    """
    known = {oid.dotted_string for oid, _ in PARTS.values()}
    if not found.get_attributes_for_oid(NameOID.COMMON_NAME):
        known.discard(NameOID.COMMON_NAME.dotted_string)
    have, want = ([a for a in name_attributes(n) if a[0] in known] for n in (found, planned))
    return have != want


def canonical_san(text: str) -> str:
    """Bring an alternative name into its one form: RFC 5952 for IPv6, others as they are.

    Raises ValueError, a sentence, when it is neither an IP address without a zone nor a DNS name
    (which may begin with "*.").
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        if (
            len(text) > _LONGEST_DNS_NAME
            or not _DNS_NAME.fullmatch(text)
            or text.rpartition(".")[2].isdigit()
        ):
            raise ValueError(f"{text!r} is neither an IP address nor a DNS name") from None
        return text
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which a certificate cannot have")
    return str(address)


def is_ip_san(san: str) -> bool:
    """Whether a canonical alternative name is an IP address."""
    try:
        ipaddress.ip_address(san)
    except ValueError:
        return False
    return True


def general_name(san: str) -> x509.GeneralName:
    """Build the X.509 form of a canonical alternative name."""
    return x509.IPAddress(ipaddress.ip_address(san)) if is_ip_san(san) else x509.DNSName(san)


def read_sans(extensions: x509.Extensions) -> frozenset[str]:
    """Read the alternative names of a certificate or a request, canonical; none is empty."""
    try:
        found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(map(_san_text, found))


def _san_text(name: x509.GeneralName) -> str:
    if isinstance(name, x509.IPAddress):
        return str(name.value)
    if isinstance(name, x509.DNSName):
        # TLS would never match an address against it.
        return f"DNS:{name.value}" if is_ip_san(name.value) or ":" in name.value else name.value
    return f"{_KINDS.get(type(name), type(name).__name__)}:{name.value}"
