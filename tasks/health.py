"""Etcd's health over HTTPS with mutual TLS: the run's own short-lived client certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from tasks.authority import opened_authority
from tasks.engine import Run, step
from tasks.etcd.client import Endpoint, EtcdClient
from tasks.etcd.tls import client_context
from tasks.model.cluster import ClusterHealth, DesiredMember

CLIENT_NAME = "etcd-runbooks"
CLIENT_VALIDITY = timedelta(hours=24)


@asynccontextmanager
async def etcd_client(run: Run, members: tuple[DesiredMember, ...]) -> AsyncIterator[EtcdClient]:
    """Open a client of all members; its certificate is made for this run and stays in memory.

    Where the hosts are behind a jump host, it goes through their SSH connections.
    """
    authority = await opened_authority(run.inventory)
    certificate, key = authority.issue_client(CLIENT_NAME, CLIENT_VALIDITY, datetime.now(UTC))
    context = client_context(authority.certificate_pem, certificate, key)
    endpoints = []
    for member in members:
        connect_to = None
        if run.inventory.ssh.jump_host:
            address, port = member.client_url.removeprefix("https://").rsplit(":", 1)
            tunnel = await run.hosts[member.name].forward(address.strip("[]"), int(port))
            connect_to = ("127.0.0.1", tunnel)
        endpoints.append(Endpoint(member.name, member.client_url, connect_to))
    async with EtcdClient(tuple(endpoints), context) as client:
        yield client


@step("read the cluster's health")
async def read_health(_run: Run, client: EtcdClient) -> ClusterHealth:
    """Ask every member at once; never fails, what is wrong is in the answer."""
    return await client.observe_cluster()


@step("verify the cluster")
async def verify_cluster(
    _run: Run,
    client: EtcdClient,
    expected: tuple[DesiredMember, ...],
    timeout_seconds: float,
) -> ClusterHealth:
    """Wait until all members are healthy and agree; raises MemberFailed with what is missing."""
    return await client.wait_until_healthy(expected, timeout_seconds)
