"""What of a cluster's health forbids a change: which of the three answers each change asks for.

`find_obstacles` of gate and membership count healthy voters. Here is what no count shows: data
that differs between members, and etcd's own authentication.
"""

from __future__ import annotations

from collections.abc import Iterable

from tasks.model.cluster import AUTHENTICATION_IS_ON, AlarmType, ClusterHealth
from tasks.model.errors import Refused


def refuse_unseen(health: ClusterHealth) -> None:
    """Raise Refused when etcd's authentication keeps this engine from seeing the members."""
    if health.has_authentication:
        raise Refused(AUTHENTICATION_IS_ON)


def corrupt_sentence(names: Iterable[str]) -> str:
    """Say that data differs, of whom etcd says so, and how to find out."""
    return (
        f"{', '.join(names)}: etcd raised the alarm CORRUPT: its data differs from the other "
        "members'. Neither members nor data are changed before it is known which copy is right; "
        "check_health has the commands"
    )


def refuse_corrupt(health: ClusterHealth) -> None:
    """Raise Refused, naming the members, while a CORRUPT alarm is raised."""
    if names := corrupt_names(health):
        raise Refused(corrupt_sentence(names))


def corrupt_names(health: ClusterHealth) -> tuple[str, ...]:
    """Name the members that raised CORRUPT."""
    return tuple(
        health.member_name(alarm.member_id)
        for alarm in health.alarms
        if alarm.type is AlarmType.CORRUPT
    )
