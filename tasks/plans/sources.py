"""From where members reach each other, and whether their peers would let them in. Pure.

A peer looks where a connection comes from (checkCertSAN of etcd's client/pkg/transport): the
certificate must have that address, or a name that resolves to it where it is looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from tasks.model.fields import is_ip_address
from tasks.model.plan import Finding, Severity

LOCAL = "localhost"
SKIPPING = (
    "experimental-peer-skip-client-san-verification",
    "peer-skip-client-san-verification",
)
"""A member of which one is true looks at nobody's address."""


@dataclass(frozen=True, slots=True)
class Way:
    """One member's way to another, and the address of its own that it comes from."""

    member: str
    target: str
    source: str


def find_strange(
    ways: Iterable[Way],
    sans: Mapping[str, tuple[str, ...]],
    resolved: Mapping[str, Mapping[str, tuple[str, ...]]],
    made: Collection[str],
) -> tuple[Finding, ...]:
    """Refuse members that others would turn away for where they come from.

    `sans` are of each member's peer certificate, new ones for those `made` by this run; `resolved`
    are the addresses of names as each target finds them. Of a name that was not asked there nothing
    is known, and nothing is said.
    """
    found = dict[tuple[str, str], list[str]]()
    every = dict[str, set[str]]()
    for way in ways:
        every.setdefault(way.member, set()).add(way.target)
        if _is_strange(way, sans.get(way.member, ()), resolved.get(way.target, {})):
            found.setdefault((way.member, way.source), []).append(way.target)
    findings = []
    for (member, source), targets in found.items():
        all_others = set(targets) == every[member] and len(targets) > 1
        whom = "the other members" if all_others else ", ".join(targets)
        names = "would not name" if member in made else "does not name"
        after = "" if member in made else " and renew its certificates first (rotate_certificates)"
        findings.append(
            Finding(
                Severity.REFUSAL,
                member,
                f"reaches {whom} from {source}, which its peer certificate {names} "
                f"({', '.join(sans[member])}), so that it would be refused there; let it come from "
                f"an address of its certificate (ip route replace ... src), take {source} off it, "
                f"or add it to the host's extra_sans{after}",
            )
        )
    return tuple(findings)


def _is_strange(way: Way, sans: tuple[str, ...], resolved: Mapping[str, tuple[str, ...]]) -> bool:
    source = ip_address(way.source)
    addresses = [ip_address(name) for name in sans if is_ip_address(name)]
    names = [name for name in sans if not is_ip_address(name) and name != LOCAL]
    if not sans or source in addresses:
        return False
    if any(name not in resolved for name in names):
        return False
    return not any(source == ip_address(a) for name in names for a in resolved[name])
