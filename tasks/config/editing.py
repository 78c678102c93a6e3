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
    return ",".join(f"{member.name}={member.peer_url}" for member in members)


def edit_initial_cluster(text: str, members: tuple[DesiredMember, ...]) -> str | None:
    """Set ETCD_INITIAL_CLUSTER in an etcd.conf; None where the file does not set it in one line.

    Etcd reads it at a member's first start only. A file that names the same members, in whatever
    order, comes back as it is.
    """
    wanted = format_initial_cluster(members)
    try:
        before = parse_configuration(text)
    except ValueError:
        return None
    if KEY not in before:
        return None
    if set(before[KEY].split(",")) == set(wanted.split(",")):
        return text
    edited, count = re.subn(
        rf"^([ \t]*{KEY}[ \t]*=).*$", rf'\g<1>"{wanted}"', text, flags=re.MULTILINE
    )
    try:
        after = parse_configuration(edited)
    except ValueError:
        return None
    return edited if count == 1 and after == {**before, KEY: wanted} else None
