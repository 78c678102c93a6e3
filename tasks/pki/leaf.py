"""What one leaf certificate shall be, from the policy and its host's addresses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tasks.model.certificates import KeySpec, LeafPolicy, Role, SubjectName, Usage
from tasks.model.errors import InvalidInventory
from tasks.pki.names import canonical_san, subject_parts

LOCAL_NAMES = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class WantedLeaf:
    """One certificate as planned; `sans` are canonical IP addresses and DNS names, mixed."""

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
    """Plan one of a host's certificates.

    Server and peer name the host, its addresses, 127.0.0.1, localhost and the extra names, in
    this order, then the policy's own hosts; a client names the policy's hosts alone. Each once.
    Raises InvalidInventory that lists every name which cannot stand in a certificate.
    """
    listed = (host_name, *addresses, *LOCAL_NAMES, *extra_sans) if role.is_for_members else ()
    common_name = policy.common_name or host_name
    problems, sans = [], []
    for text in (*listed, *policy.hosts):
        try:
            sans.append(canonical_san(text))
        except ValueError as error:
            problems.append(f"subject alternative name {error}")
    try:
        subject_parts(common_name, policy.names)
    except ValueError as error:
        problems.append(f"subject: {error}")
    if problems:
        raise InvalidInventory(f"certificates.{role} of {host_name}", tuple(problems))
    return WantedLeaf(
        role,
        common_name,
        policy.names,
        tuple(dict.fromkeys(sans)),
        policy.key,
        policy.usages,
        policy.validity,
    )
