"""Letting etcd count what is free in its database, when nobody may write."""

from __future__ import annotations

import asyncio

from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.model.members import Alarm, AlarmType

NOBODY = Alarm(1, AlarmType.NOSPACE)
"""An alarm beside those that are raised; its member is none, so that it stands for no other one."""
WRITES = 3
COMMIT_SECONDS = 0.3
"""Etcd commits what was written within 0.1 s (--backend-batch-interval)."""


async def count_anew(client: EtcdClient, endpoint: Endpoint) -> None:
    """Make every member count what a compaction has freed, while NOSPACE is raised.

    It counts that when it writes, one write after it was freed: until then it is "in use", which
    decides whether a disk has room for a defragmentation's copy. Raising one more alarm and taking
    it back are writes that a full cluster takes, and no key knows of them. Where the runner dies
    between the two, the alarm goes with the others.
    """
    for _ in range(WRITES):
        await client.arm(endpoint, NOBODY)
        await asyncio.sleep(COMMIT_SECONDS)
        await client.disarm(endpoint, NOBODY)
        await asyncio.sleep(COMMIT_SECONDS)
