"""What a leaf certificate shall be, from the policy and the host's addresses."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from tasks.model.certificates import KeySpec, LeafPolicy, Role, SubjectName, Usage

LOCAL_NAMES = ("127.0.0.1", "localhost")
_PARTS = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
}


@dataclass(frozen=True, slots=True)
class WantedLeaf:
    """One certificate as planned; `sans` are IP addresses and DNS names."""

    role: Role
    common_name: str
    names: tuple[SubjectName, ...]
    sans: tuple[str, ...]
    key: KeySpec
    usages: tuple[Usage, ...]
    validity: timedelta


def wanted_leaf(
    policy: LeafPolicy,
    role: Role,
    host_name: str,
    addresses: tuple[str, ...],
    extra_sans: tuple[str, ...],
) -> WantedLeaf:
    """Plan a host's certificate: members' name the host, its addresses and this machine."""
    sans = (host_name, *addresses, *LOCAL_NAMES, *extra_sans) if role.is_for_members else ()
    return WantedLeaf(
        role,
        policy.common_name or host_name,
        policy.names,
        tuple(dict.fromkeys((*sans, *policy.hosts))),
        policy.key,
        policy.usages,
        policy.validity,
    )


def subject(common_name: str, names: tuple[SubjectName, ...]) -> x509.Name:
    """Build the distinguished name: the parts in cfssl's order, then the common name."""
    attributes = [
        x509.NameAttribute(oid, value)
        for name in names
        for part, oid in _PARTS.items()
        if (value := getattr(name, part)) is not None
    ]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def general_name(text: str) -> x509.GeneralName:
    """Build a subject alternative name: an IP address where it is one, else a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def alternative_names(extensions: x509.Extensions) -> frozenset[str]:
    """Read the subject alternative names of a certificate or a request, as text."""
    try:
        found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(str(name.value) for name in found)
