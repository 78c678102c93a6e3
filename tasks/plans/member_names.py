"""What a new member is called, and where its pairs lie: after the rules of the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

from tasks.model.certificates import Role
from tasks.model.errors import Refused
from tasks.model.fields import ADDRESS_PLACE, HOST_PLACE, MEMBER_PLACE, fill, is_ip_address
from tasks.model.layout import PairFiles
from tasks.model.machines import Host

_STYLES: tuple[Callable[[str], str], ...] = (str.capitalize, str.upper, str)
"""How members write their hosts' names; where all are the same the last stays, as it is."""
_NUMBERED = re.compile(r"(.*?)(\d+)")


def name_member(hosts: Iterable[Host], name: str, address: str) -> str | None:
    """Name the member of a new host; None where it is called as its host is.

    Most members tell: etcd-{host}, etcd-{address}, the host in upper case, or a number of its own
    after the highest.
    """
    known = tuple(hosts)
    rules = Counter(rule for host in known for rule in _rules(host))
    (rule, style), count = rules.most_common(1)[0] if rules else ((HOST_PLACE, str), 0)
    if 2 * count > len(known):
        made = fill(rule, style(name), "").replace(ADDRESS_PLACE, address)
        return None if made == name else made
    numbered = [found for host in known if (found := _NUMBERED.fullmatch(host.member_name))]
    stem, count = Counter(found[1] for found in numbered).most_common(1)[0] if numbered else ("", 0)
    if 2 * count <= len(known):
        return None
    numbers = [found[2] for found in numbered if found[1] == stem]
    return f"{stem}{max(map(int, numbers)) + 1:0{len(numbers[0])}d}"


def place_pairs(
    hosts: Iterable[Host], name: str, member: str, address: str
) -> dict[Role, PairFiles]:
    """Say where a new host's pairs lie, of those roles whose pairs lie elsewhere on every host.

    Most hosts tell, by what their own files have of host, member and address; of a role without
    such a rule nothing is said.
    """
    known = tuple(hosts)
    found = {}
    for role in Role:
        own = [(host, host.pairs[role]) for host in known if role in host.pairs]
        if not own or len(own) < len(known):
            continue
        rules = Counter(_pair_rule(host, files) for host, files in own)
        rule, count = rules.most_common(1)[0]
        if 2 * count > len(known):
            certificate, key = (
                fill(text, name, member).replace(ADDRESS_PLACE, address) for text in rule
            )
            found[role] = PairFiles(certificate=certificate, key=key)
    return found


def name_addresses(hosts: Iterable[Host], name: str, member: str) -> dict[str, str]:
    """Say which names a new host's URLs have, where most members' have some.

    Raises Refused where these follow no rule: it would be the only one with an address.
    """
    known = tuple(hosts)
    found = {}
    for field in ("peer_address", "client_address"):
        own = [(host, getattr(host, field)) for host in known]
        named = [(host, text) for host, text in own if text and not is_ip_address(text)]
        if 2 * len(named) <= len(known):
            continue
        rules = Counter(
            rule
            for host, text in named
            for word, place in ((host.name, HOST_PLACE), (host.member_name, MEMBER_PLACE))
            if (rule := _exchanged(text, word, place))
        )
        rule, count = rules.most_common(1)[0] if rules else ("", 0)
        if 2 * count <= len(known):
            told = ", ".join(text for _, text in named)
            raise Refused(
                f"{name}: the members' URLs have names ({told}), by no rule that tells what a new "
                f"one has; put {name} with peer_address and client_address into the inventory first"
            )
        found[field] = fill(rule, name, member)
    return found


def find_unruled(hosts: Iterable[Host], joining: frozenset[str]) -> tuple[str, ...]:
    """Tell of hosts that join and whose pairs will lie where no other host has its own."""
    known = tuple(hosts)
    others = [host for host in known if host.name not in joining]
    return tuple(
        f"{host.name}: the {role}'s pair of each other host lies in a place of its own, by no rule "
        f"that is known; here it is put where `paths` says. To have it elsewhere, put {host.name} "
        f"with `pairs` into the inventory first"
        for host in known
        if host.name in joining
        for role in Role
        if others and role not in host.pairs and all(role in other.pairs for other in others)
    )


def _pair_rule(host: Host, files: PairFiles) -> tuple[str, str]:
    certificate, key = files.certificate, files.key
    for word, place in (
        (host.name, HOST_PLACE),
        (host.member_name, MEMBER_PLACE),
        (host.address or "", ADDRESS_PLACE),
    ):
        certificate = _exchanged(certificate, word, place) or certificate
        key = _exchanged(key, word, place) or key
    return certificate, key


def _rules(host: Host) -> Iterable[tuple[str, Callable[[str], str]]]:
    """List the rules that make a member's name of its host, and how that is written in it."""
    words = {style(host.name): (HOST_PLACE, style) for style in _STYLES}
    for word, (place, style) in (words | {host.address or "": (ADDRESS_PLACE, str)}).items():
        rule = _exchanged(host.member_name, word, place)
        if rule is not None:
            yield rule, style


def _exchanged(text: str, word: str, place: str) -> str | None:
    pattern = rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])"
    return re.sub(pattern, place, text) if word and re.search(pattern, text) else None
