"""How full the databases are: what a check says of it, and when it fails. Pure."""

from __future__ import annotations

from tasks.model.cluster import ClusterHealth
from tasks.model.inventory import Inventory
from tasks.model.members import AlarmType
from tasks.model.pointers import pointer
from tasks.model.space import Growth, mebibytes
from tasks.plans.space import DISARM_SHARE, Rules

FEW_DAYS = 7
"""Left until the quota is reached by what the data grow: a check fails."""


def judge_space(
    inventory: Inventory, health: ClusterHealth, growth: Growth | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tell how full the databases are: what must be seen to, and what is only to be known.

    While NOSPACE is raised its own sentence has the way out.
    """
    statuses = {e.name: e.status for e in health.endpoints if e.status}
    if not statuses:
        return (), ()
    name, largest = max(statuses.items(), key=lambda one: one[1].db_size)
    told = (
        f"space: {mebibytes(largest.db_size)} on {name}, {mebibytes(largest.db_size_in_use)} in use"
    )
    if largest.db_quota:
        share = largest.db_size / largest.db_quota
        told += f", {share:.0%} of the quota of {mebibytes(largest.db_quota)}"
    left = None
    if growth is None:
        told += "; how fast it grows is known after some hours of checks"
    elif growth.days_left is None:
        told += "; it does not grow"
    else:
        left = growth.days_left
        told += f"; it grows by {mebibytes(growth.bytes_a_day)} a day, {left:.0f} days are left"
    way = pointer("reclaim_space", cluster=inventory.name)
    alarmed = any(alarm.type is AlarmType.NOSPACE for alarm in health.alarms)
    full = largest.db_quota and largest.db_size >= DISARM_SHARE * largest.db_quota
    if not alarmed and (full or (left is not None and left < FEW_DAYS)):
        return (f"{told}: {way} before etcd takes no more writes",), ()
    if Rules().is_due(largest, largest.db_quota, alarmed=False):
        told += f"; {way} gives back {mebibytes(largest.db_size - largest.db_size_in_use)}"
    return (), (told,)
