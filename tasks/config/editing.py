"""Changing one thing in a file that works, and nothing else in it.

Each edit is read back and compared: what the file says besides must be what it said before.
"""

from __future__ import annotations

import re

from tasks.config.parsing import parse_configuration
from tasks.model.cluster import DesiredMember

KEY = "ETCD_INITIAL_CLUSTER"


def format_initial_cluster(members: tuple[DesiredMember, ...]) -> str:
    """Write members as ETCD_INITIAL_CLUSTER has them."""
    return ",".join(f"{member.member}={member.peer_url}" for member in members)


def edit_variables(text: str, wanted: dict[str, str]) -> str | None:
    """Set variables that an etcd.conf sets already, each in its own line; None where it cannot."""
    try:
        before = parse_configuration(text)
    except ValueError:
        return None
    edited = text
    for key, value in wanted.items():
        if re.search(r"[\\\"$`\n]", value):
            return None
        line = rf"^([ \t]*{key}[ \t]*=).*$"
        edited, count = re.subn(line, rf'\g<1>"{value}"', edited, flags=re.MULTILINE)
        if count != 1:
            return None
    try:
        after = parse_configuration(edited)
    except ValueError:
        return None
    return edited if after == before | wanted else None


def edit_initial_cluster(text: str, members: tuple[DesiredMember, ...]) -> str | None:
    """Set ETCD_INITIAL_CLUSTER in an etcd.conf; None where the file does not set it in one line.

    Etcd reads it at a member's first start only. A file that names the same members, in whatever
    order, comes back as it is.
    """
    wanted = format_initial_cluster(members)
    try:
        found = parse_configuration(text).get(KEY, "")
    except ValueError:
        return None
    return (
        text
        if set(found.split(",")) == set(wanted.split(","))
        else edit_variables(text, {KEY: wanted})
    )


def edit_addresses(text: str, member: DesiredMember) -> str | None:
    """Set what a member tells others of its URLs; None where the file does not set them.

    A listener that is bound to one address is bound to the new one; one that hears all stays.
    """
    try:
        found = parse_configuration(text)
    except ValueError:
        return None
    wanted = {
        "ETCD_INITIAL_ADVERTISE_PEER_URLS": member.peer_url,
        "ETCD_ADVERTISE_CLIENT_URLS": member.client_url,
    }
    for key, url in (
        ("ETCD_LISTEN_PEER_URLS", member.peer_url),
        ("ETCD_LISTEN_CLIENT_URLS", member.client_url),
    ):
        heard = found.get(key, "")
        if heard and "//0.0.0.0:" not in heard and "//[::]:" not in heard:
            wanted[key] = url
    same = all(found.get(key) == value for key, value in wanted.items())
    return text if same else edit_variables(text, wanted)
