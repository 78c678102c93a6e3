"""Adoption: what the hosts are called, and one rule for the files of all where there is one."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tasks.model.adoption import FoundEtcd
from tasks.model.certificates import Role
from tasks.model.fields import HOST_PLACE, MEMBER_PLACE, fill, is_ip_address, is_local

T = TypeVar("T", bound=Hashable)

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Named:
    """An etcd that was found, and what the inventory calls its host and its member."""

    found: FoundEtcd
    name: str
    member: str

    def fill(self, template: str) -> str:
        """Put its names into a template."""
        return fill(template, self.name, self.member)


def name_hosts(found: tuple[FoundEtcd, ...], given: frozenset[str]) -> tuple[Named, ...]:
    """Name the hosts: as the operator did (`given`), or as their files, members or systems do."""
    named = []
    taken = {one.host for one in found if one.host in given}
    for one in found:
        member, system = one.setting("NAME"), one.hostname.partition(".")[0]
        files = f"{one.setting('CERT_FILE')} {one.setting('PEER_CERT_FILE')}"
        follow = [system] if system and system in files and member not in files else []
        plain = [member, system, member.lower(), system.lower(), one.host]
        words = [one.host] if one.host in given else [*follow, *plain]
        able = (w for w in words if _HOST_NAME.fullmatch(w) and (w not in taken or w in given))
        name = next(able, one.host)
        taken.add(name)
        named.append(Named(one, name, member))
    return tuple(named)


def find_url(found: FoundEtcd, name: str) -> str:
    """Get the first of the URLs of a setting that other hosts can reach; else the first."""
    urls = found.setting(name).split(",")
    return next((url for url in urls if not is_local(urlsplit(url).hostname or "")), urls[0])


def url_addresses(found: FoundEtcd) -> frozenset[str]:
    """List the addresses in the URLs that a member tells others."""
    urls = (
        find_url(found, name) for name in ("INITIAL_ADVERTISE_PEER_URLS", "ADVERTISE_CLIENT_URLS")
    )
    return frozenset(urlsplit(url).hostname or "" for url in urls)


def own_addresses(found: FoundEtcd) -> frozenset[str]:
    """List the addresses of a host's own: in the URLs that it tells, and where it listens."""
    names = ("LISTEN_PEER_URLS", "LISTEN_CLIENT_URLS")
    heard = (
        urlsplit(url).hostname or "" for name in names for url in found.setting(name).split(",")
    )
    return url_addresses(found) | {
        address
        for address in heard
        if is_ip_address(address)
        and not is_local(address)
        and not ipaddress.ip_address(address).is_unspecified
    }


def common(values: Iterable[T]) -> T:
    """Get the value that most have, the first of those that as many have."""
    return Counter(values).most_common(1)[0][0]


def find_rule(
    hosts: tuple[Named, ...], texts: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...] | None:
    """Find the templates that make the texts of most hosts; None where each has its own.

    `texts` are by host's name. Several texts go by one rule.
    """

    def candidates(host: Named) -> list[tuple[str, ...]]:
        own = texts[host.name]
        return [
            tuple(_replace(text, host.name, HOST_PLACE) for text in own),
            tuple(_replace(text, host.member, MEMBER_PLACE) for text in own),
            own,
        ]

    def follow(rule: tuple[str, ...]) -> int:
        return sum(tuple(map(h.fill, rule)) == texts[h.name] for h in hosts if h.name in texts)

    every = [rule for host in hosts if host.name in texts for rule in candidates(host)]
    best = max(every, key=follow, default=None)
    return best if best is not None and (len(texts) == 1 or follow(best) > 1) else None


def adopted_pairs(
    hosts: tuple[Named, ...],
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, dict[str, str]]]]:
    """Say where the pairs lie: by role for all hosts, and by host and role where one differs."""
    rules: dict[str, dict[str, str]] = {}
    own: dict[str, dict[str, dict[str, str]]] = {}
    for role in Role:
        texts = {
            host.name: (str(host.found.pairs[role].certificate), str(host.found.pairs[role].key))
            for host in hosts
        }
        rule = find_rule(hosts, texts)
        if rule is not None:
            rules[str(role)] = {"certificate": rule[0], "key": rule[1]}
        for host in hosts:
            certificate, key = texts[host.name]
            if rule is None or tuple(map(host.fill, rule)) != (certificate, key):
                files = {"certificate": certificate, "key": key}
                own.setdefault(host.name, {})[str(role)] = files
    return rules, own


def adopted_directories(
    hosts: tuple[Named, ...],
) -> tuple[dict[str, str], dict[str, dict[str, Any]], list[str]]:
    """Say where data and write-ahead log lie, for all hosts, and by host where one differs.

    The third part is what no inventory can say.
    """
    paths: dict[str, str] = {}
    own: dict[str, dict[str, Any]] = {}
    problems = []
    for field, name in (("data_directory", "DATA_DIR"), ("wal_directory", "WAL_DIR")):
        texts = {h.name: (_clean(h.found.setting(name)),) for h in hosts}
        if not any(text for (text,) in texts.values()):
            continue
        (rule,) = find_rule(hosts, texts) or common(texts.values())
        if rule:
            paths[field] = rule
        differing = {h.name: texts[h.name][0] for h in hosts if (h.fill(rule),) != texts[h.name]}
        for host, text in differing.items():
            own.setdefault(host, {})[field] = text
        if not all(differing.values()):
            each = ", ".join(f"{h.name} {texts[h.name][0] or 'none'}" for h in hosts)
            problems.append(f"some hosts have a --wal-dir and some have none: {each}")
    data = PurePosixPath(paths.get("data_directory", "/"))
    is_one = "{" not in str(data) and data.name != "default.etcd"
    paths["state"] = str(data if is_one else data.parent)
    if data.name == "default.etcd":
        del paths["data_directory"]
    return paths, own, problems


def _replace(text: str, word: str, place: str) -> str:
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", place, text)


def _clean(path: str) -> str:
    return str(PurePosixPath(path)) if path else ""
