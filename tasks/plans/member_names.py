"""What a new member is called: after the rule by which the others are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from tasks.model.fields import ADDRESS_PLACE, HOST_PLACE, fill
from tasks.model.machines import Host

_NUMBERED = re.compile(r"(.*?)(\d+)")


def name_member(hosts: Iterable[Host], name: str, address: str) -> str | None:
    """Name the member of a new host; None where it is called as its host is.

    Most members tell: etcd-{host}, etcd-{address}, or a number of its own after the highest.
    """
    known = tuple(hosts)
    rules = Counter(rule for host in known for rule in _rules(host))
    rule, count = rules.most_common(1)[0] if rules else (HOST_PLACE, 0)
    if 2 * count > len(known):
        made = fill(rule, name, "").replace(ADDRESS_PLACE, address)
        return None if made == name else made
    numbered = [found for host in known if (found := _NUMBERED.fullmatch(host.member_name))]
    stem, count = Counter(found[1] for found in numbered).most_common(1)[0] if numbered else ("", 0)
    if 2 * count <= len(known):
        return None
    numbers = [found[2] for found in numbered if found[1] == stem]
    return f"{stem}{max(map(int, numbers)) + 1:0{len(numbers[0])}d}"


def _rules(host: Host) -> Iterable[str]:
    """List the rules that make a member's name of its host."""
    for word, place in ((host.name, HOST_PLACE), (host.address or "", ADDRESS_PLACE)):
        rule = _exchanged(host.member_name, word, place)
        if rule is not None:
            yield rule


def _exchanged(text: str, word: str, place: str) -> str | None:
    pattern = rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])"
    return re.sub(pattern, place, text) if word and re.search(pattern, text) else None
