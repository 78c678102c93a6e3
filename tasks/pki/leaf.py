"""What one leaf certificate shall be, from the policy and its host's addresses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tasks.model.certificates import KeySpec, LeafPolicy, Role, SubjectName, Usage
from tasks.model.errors import InvalidInventory
from tasks.model.fields import ADDRESS_PLACE, HOST_PLACE, fill
from tasks.pki.names import canonical_san, subject_parts


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
    member: str | None = None,
    address: str | None = None,
) -> WantedLeaf:
    """Plan one of a host's certificates; `member` is its member's name, where that is another.

    `addresses` are those of its member's URLs, `address` is where SSH goes.

    Server and peer name what the policy calls the host, its addresses, the extra names, and then
    the policy's own hosts; a client names the policy's hosts alone. Each once.
    The name of a host or a member that cannot stand in a certificate is left out. Raises
    InvalidInventory that lists every other one which cannot.
    """

    def filled(text: str) -> str:
        return fill(text, host_name, member or host_name).replace(ADDRESS_PLACE, address or "")

    own = tuple(filled(t) for t in policy.own_names if t == filled(t) or _is_san(filled(t)))
    listed = (*own, *addresses, *extra_sans) if role.is_for_members else ()
    common_name = filled(policy.common_name or HOST_PLACE)
    problems, sans = [], []
    for text in (*listed, *map(filled, policy.hosts)):
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


def _is_san(text: str) -> bool:
    try:
        canonical_san(text)
    except ValueError:
        return False
    return True
