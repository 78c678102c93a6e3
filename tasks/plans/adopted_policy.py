"""Adoption: the policy that the certificates were made by, so that new ones are made by it too."""

from __future__ import annotations

from typing import Any

from tasks.model.adoption import FoundLeaf, FoundPair
from tasks.model.certificates import (
    AuthorityPolicy,
    FileAccess,
    Role,
    Usage,
    format_duration,
)
from tasks.model.fields import ADDRESS_PLACE, HOST_PLACE, MEMBER_PLACE
from tasks.plans.adopted_files import Named, common, find_rule, url_addresses

OTHER_NAME = "etcd-ca"
"""What an authority is called whose predecessor has the default's name."""

OWN_NAMES = (HOST_PLACE, MEMBER_PLACE, ADDRESS_PLACE, "127.0.0.1", "localhost")


def adopted_certificates(
    hosts: tuple[Named, ...], addresses: dict[str, str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Say by role how certificates are made, and by host and role what is different there.

    `addresses` is where SSH goes, by host's name. A usage that etcd cannot do without is in the
    policy also where the certificates lack it: those are broken, and a check says so.
    """
    policies: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    for role in Role:
        pairs = {h.name: pair for h in hosts if (pair := _first_in(h, role)) and pair.leaf}
        readable = tuple(h for h in hosts if h.name in pairs)
        if not readable:
            continue
        fields = _fields(role, readable, pairs, addresses)
        shared = {field: _shared(by_host) for field, by_host in fields.items()}
        nothing: tuple[Any, ...] = (None, {}, [], HOST_PLACE)
        policies[str(role)] = {k: v for k, v in shared.items() if v not in nothing}
        for host in readable:
            differing = {
                field: by_host[host.name]
                for field, by_host in fields.items()
                if by_host[host.name] not in (shared[field], None)
            }
            if differing:
                own.setdefault(host.name, {})[str(role)] = differing
    return policies, own


def adopted_authority(found: FoundLeaf | None) -> dict[str, Any]:
    """Say how the next authority is made: as the present one, under a name of its own.

    With two authorities of one name openssl takes the first for the issuer of a certificate that
    does not name its authority's key, as those of `openssl x509 -req` do not.
    """
    if found is None:
        return {}
    policy = {
        "names": [name.model_dump(exclude_none=True) for name in found.names],
        "key": found.key.model_dump() if found.key else None,
        "validity": format_duration(found.validity),
    }
    if found.common_name == AuthorityPolicy().common_name:
        policy["common_name"] = OTHER_NAME
    return {field: value for field, value in policy.items() if value}


def _first_in(host: Named, role: Role) -> FoundPair | None:
    """Get a role's pair, unless its file plays an earlier role, which then says how it is made."""
    pair = host.found.pairs[role]
    first = next(r for r in Role if host.found.pairs[r].certificate == pair.certificate)
    return pair if first is role else None


def _shared(by_host: dict[str, Any]) -> Any:  # noqa: ANN401 - a field of JSON
    """Get the value that most hosts have, of those of which it is known."""
    known = [value for value in by_host.values() if value is not None]
    most = common(map(repr, known)) if known else None
    return next((value for value in known if repr(value) == most), None)


def _fields(
    role: Role,
    hosts: tuple[Named, ...],
    pairs: dict[str, FoundPair],
    addresses: dict[str, str],
) -> dict[str, dict[str, Any]]:
    leaves = {name: pair.leaf for name, pair in pairs.items() if pair.leaf is not None}
    own, further = _split_names(role, hosts, leaves, addresses)
    return {
        "common_name": _common_names(hosts, leaves),
        "names": {n: [s.model_dump(exclude_none=True) for s in x.names] for n, x in leaves.items()},
        "key": {n: x.key.model_dump() if x.key else None for n, x in leaves.items()},
        "validity": {n: format_duration(x.validity) for n, x in leaves.items()},
        "usages": {n: _usages(role, x) for n, x in leaves.items()},
        "own_names": dict.fromkeys(leaves, own),
        "hosts": further,
        "access": {h.name: _access(role, h, pairs[h.name].access) for h in hosts},
    }


def _common_names(hosts: tuple[Named, ...], leaves: dict[str, FoundLeaf]) -> dict[str, str | None]:
    texts = {name: (leaf.common_name,) for name, leaf in leaves.items() if leaf.common_name}
    rule = find_rule(hosts, texts) if texts else None
    found: dict[str, str | None] = dict.fromkeys(leaves)
    for host in hosts:
        if host.name in texts:
            (own,) = texts[host.name]
            found[host.name] = rule[0] if rule and host.fill(rule[0]) == own else own
    return found


def _usages(role: Role, leaf: FoundLeaf) -> list[str]:
    return [str(u) for u in Usage if u in leaf.usages or u in role.needed_usages]


def _split_names(
    role: Role,
    hosts: tuple[Named, ...],
    leaves: dict[str, FoundLeaf],
    addresses: dict[str, str],
) -> tuple[list[str] | None, dict[str, list[str]]]:
    """Tell what a host calls itself from what else its certificate names, by host."""
    every = {name: set(leaf.sans) for name, leaf in leaves.items()}
    if not role.is_for_members:
        return None, {name: list(leaf.sans) for name, leaf in leaves.items()}

    def filled(host: Named, template: str) -> str:
        return host.fill(template).replace(ADDRESS_PLACE, addresses[host.name])

    own = [t for t in OWN_NAMES if all(filled(h, t) in every[h.name] for h in hosts)]
    if all(h.member == h.name for h in hosts) and MEMBER_PLACE in own:
        own.remove(MEMBER_PLACE)
    named = {h.name: {filled(h, t) for t in own} | url_addresses(h.found) for h in hosts}
    # Who names all hosts names itself among them: what all certificates have is one list.
    always = {t for t in own if "{" not in t}
    own_alone = always if len(hosts) > 1 else set().union(*named.values())
    shared = set.intersection(*every.values()) - own_alone
    further = {
        name: [san for san in leaf.sans if san in shared or san not in named[name]]
        for name, leaf in leaves.items()
    }
    return own, further


def _access(role: Role, host: Named, found: FileAccess | None) -> dict[str, str] | None:
    """Say whose the files are, unless they are as they would be made; a key is nobody's else."""
    if found is None:
        return None
    account = host.found.account
    is_etcds = any(
        host.found.pairs[r].certificate == host.found.pairs[role].certificate
        for r in Role
        if r.is_for_members
    )
    owner = account if is_etcds else "root"
    key_mode = f"0{int(found.key_mode, 8) & 0o770:03o}"
    kept = FileAccess(
        owner=None if found.owner == owner else found.owner,
        group=None if found.group == owner else found.group,
        certificate_mode=found.certificate_mode,
        key_mode=key_mode,
    )
    return kept.model_dump(exclude_defaults=True)


def find_unkept(hosts: tuple[Named, ...]) -> tuple[tuple[str, str], ...]:
    """Tell, by host, what of the certificates a new one will not have."""
    return tuple(
        (host.name, f"{pair.certificate.name}: {what} cannot be kept by a rotation")
        for host in hosts
        for role in Role
        if (pair := _first_in(host, role)) and pair.leaf
        for what in pair.leaf.unkept
    )
