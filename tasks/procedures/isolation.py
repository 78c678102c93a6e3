"""Asking etcds that run where no client reaches them. Composes the steps of health."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tasks.engine.run import Run, together
from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.hosts.restores import isolated_port
from tasks.model.members import DesiredMember
from tasks.steps import health


@asynccontextmanager
async def isolated_client(
    run: Run, members: tuple[DesiredMember, ...]
) -> AsyncIterator[EtcdClient]:
    """Open a client of etcds that only this run reaches: through SSH, on their hosts' loopbacks."""

    async def reach(member: DesiredMember) -> Endpoint:
        port = isolated_port(run.inventory.layout(member.name))
        way = ("127.0.0.1", await run.hosts[member.name].forward("127.0.0.1", port))
        return Endpoint(member.name, member.client_url, way, member=member.member)

    async with await health.make_client(run, await together(map(reach, members))) as client:
        yield client
