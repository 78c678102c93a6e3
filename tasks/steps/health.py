"""Etcd's health over HTTPS with mutual TLS: the run's own short-lived client certificate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from time import monotonic

from tasks.engine.authority import client_trust, known_authorities, signing_authority
from tasks.engine.remembered import recall
from tasks.engine.run import Run, step, together
from tasks.engine.secret import read_secret
from tasks.etcd.client import POLL_SECONDS, EtcdClient
from tasks.etcd.failures import explain_connection_failure
from tasks.etcd.gateway import Endpoint
from tasks.etcd.handshake import is_accepted
from tasks.etcd.leadership import hand_over
from tasks.etcd.login import Login
from tasks.etcd.probe import Probe
from tasks.etcd.tls import client_context
from tasks.hosts.connection import HostConnection
from tasks.model.certificates import Generation
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import EtcdUnavailable, MemberFailed, RunbookError
from tasks.model.members import DesiredMember
from tasks.model.urls import address_port, has_name, split_url
from tasks.plans.fences import refuse_fenced
from tasks.plans.gate import find_obstacles

PICKY = frozenset({"ETCD_PEER_CERT_ALLOWED_CN", "ETCD_PEER_CERT_ALLOWED_HOSTNAME"})
"""With one of these the peers' port turns the run's own certificates away, whoever signed them.

Both ports' authorities are read at the same start, so the clients' port tells for both.
"""
CLIENT_NAME = "etcd-runbooks"
CLIENT_VALIDITY = timedelta(hours=24)
GATE_SECONDS = 25.0
TUNNEL_SECONDS = 12.0
SILENT_SECONDS = 1.0
"""A host without power is reported by the network after three, four times in a replacement."""


@asynccontextmanager
async def etcd_client(run: Run, members: tuple[DesiredMember, ...]) -> AsyncIterator[EtcdClient]:
    """Open a client of all members; its certificate is made for this run and stays in memory.

    It trusts every authority of the cluster's, since while one follows another members show
    certificates of both. Where the hosts are behind a jump host, it goes through their SSH
    connections.
    """
    async with await make_client(run, await reach_endpoints(run, members)) as client:
        yield client


async def make_client(run: Run, endpoints: tuple[Endpoint, ...]) -> EtcdClient:
    """Make such a client of these endpoints; it is to be entered."""
    return EtcdClient(endpoints, await client_tls(run), login=await open_login(run))


async def open_login(run: Run) -> Login | None:
    """Read as whom etcd is asked where RBAC is on; one for the run, so that it logs in once.

    Raises Refused where the inventory's `login.password` points to nothing.
    """
    wanted = run.inventory.login
    if wanted is not None and run.login is None:
        password = await read_secret(wanted.password, "login.password")
        run.login = Login(wanted.user, password.decode())
    return run.login


@asynccontextmanager
async def measured_service(
    run: Run, members: tuple[DesiredMember, ...], *, writes: bool = False
) -> AsyncIterator[Probe]:
    """Read linearizably 20 times a second for as long as the block, as the cluster's clients do.

    With `writes` it writes as often, leases alone.
    """
    endpoints, login = await reach_endpoints(run, members), await open_login(run)
    probe = Probe(endpoints, await client_tls(run), login=login, writes=writes)
    probe.start()
    try:
        yield probe
    finally:
        await asyncio.to_thread(probe.stop)


async def reach_endpoints(
    run: Run, members: tuple[DesiredMember, ...], silent: frozenset[str] = frozenset()
) -> tuple[Endpoint, ...]:
    """Say how each member is reached; a tunnel that fails is that member's state alone.

    Client URLs that were `silent` before are not waited for as long as the others.
    """

    async def reach(member: DesiredMember) -> Endpoint:
        name, url, own = member.name, member.client_url, member.member
        patience = SILENT_SECONDS if url in silent else None
        if not _is_behind_jump(run, name):
            way = _find_way(run, name, url)
            return Endpoint(name, url, way, member=own, patience_seconds=patience)
        limit = patience or TUNNEL_SECONDS
        try:
            async with asyncio.timeout(limit):
                way = await _tunnel(run, name, url)
                return Endpoint(name, url, way, member=own, patience_seconds=patience)
        except TimeoutError:
            return Endpoint(name, url, unreachable=f"no tunnel to it in {limit:g} s", member=own)
        except RunbookError as error:
            return Endpoint(name, url, unreachable=error.message, member=own)

    return await together(map(reach, members))


async def client_tls(run: Run, generation: Generation = Generation.CURRENT) -> ssl.SSLContext:
    """Make the TLS context of a client that one authority has signed and that trusts them all.

    With RBAC on, etcd's gateway turns every certificate away that has a common name.
    """
    authority = await signing_authority(run, generation)
    certificate, key = authority.issue_client(
        CLIENT_NAME, CLIENT_VALIDITY, datetime.now(UTC), has_common_name=run.inventory.login is None
    )
    return client_context(client_trust(run), certificate, key)


def _is_behind_jump(run: Run, host: str) -> bool:
    """Whether a member's port is reached through SSH; what is no host is as the others are."""
    known = [run.hosts[host]] if host in run.hosts else run.hosts.values()
    return any(connection.is_behind_jump for connection in known)


def _find_way(run: Run, host: str, url: str) -> tuple[str, int] | None:
    """Say where a member is whose URL has a name: where SSH goes. None: where its URL says.

    Such names are the hosts' business: this runner may not know them, or know them otherwise.
    """
    known = {each.name: each.ssh_address for each in run.inventory.hosts}
    if host not in known or not has_name(url):
        return None
    return known[host], split_url(url)[1]


async def _tunnel(run: Run, host: str, url: str) -> tuple[str, int]:
    address, port = split_url(url)
    # A member that the inventory does not have is reached through any host that answers.
    through = [run.hosts[host]] if host in run.hosts else list(run.hosts.values())
    for number, connection in enumerate(through, 1):
        try:
            return "127.0.0.1", await connection.forward(address, port)
        except RunbookError:
            if number == len(through):
                raise
    raise EtcdUnavailable(f"{url}: there is no host to reach it through", host=host)


@step("ask which authorities the members accept")
async def read_all_accepted(
    run: Run, members: tuple[DesiredMember, ...]
) -> dict[str, frozenset[Generation]]:
    """Ask each member which of all the authorities' clients it lets in; raises EtcdUnavailable."""
    return await read_accepted(run, members, tuple(known_authorities(run)))


async def read_accepted(
    run: Run, members: tuple[DesiredMember, ...], generations: tuple[Generation, ...]
) -> dict[str, frozenset[Generation]]:
    """Ask each member on both ports which authority's clients it lets in: what it has loaded.

    Raises EtcdUnavailable for a member that cannot be asked, or whose own certificate none of
    the cluster's authorities has signed.
    """
    contexts = {g: await client_tls(run, g) for g in generations}
    is_picky = not PICKY.isdisjoint(run.inventory.etcd.settings.environment)

    async def ask(member: DesiredMember) -> frozenset[Generation]:
        accepted = set(contexts)
        for url in (member.client_url, *(() if is_picky else (member.peer_url,))):
            address, port = split_url(url)
            host, to = _find_way(run, member.name, url) or (address, port)
            if _is_behind_jump(run, member.name):
                host, to = await _tunnel(run, member.name, url)
            for generation, context in contexts.items():
                try:
                    if not await is_accepted(host, to, address, context):
                        accepted.discard(generation)
                except OSError as error:
                    reason = explain_connection_failure(error, address_port(host, to))
                    raise EtcdUnavailable(f"{url}: {reason}", host=member.name) from error
        return frozenset(accepted)

    found = await together(map(ask, members))
    return {member.name: one for member, one in zip(members, found, strict=True)}


async def accepts_clients(run: Run, member: DesiredMember) -> bool:
    """Whether a running member lets clients of the signing authority in, and is what it claims."""
    try:
        accepted = await read_accepted(run, (member,), (Generation.CURRENT,))
    except EtcdUnavailable:
        return False
    return Generation.CURRENT in accepted[member.name]


async def stand_at_gate(
    look: Callable[[], Awaitable[tuple[str, ...]]],
    refusal: str,
    is_final: Callable[[tuple[str, ...]], bool] = lambda _: False,
) -> None:
    """Wait until a look finds no obstacle; members that have just restarted get some seconds.

    Raises MemberFailed with the obstacles after that time, and at once when they are final.
    """
    deadline = monotonic() + GATE_SECONDS
    while obstacles := await look():
        if is_final(obstacles) or monotonic() > deadline:
            raise MemberFailed(
                f"{refusal}:\n  - "
                + "\n  - ".join(obstacles)
                + "\nrun it again: it observes and plans anew from what is there"
            )
        await asyncio.sleep(POLL_SECONDS)


async def pass_gate(
    run: Run, members: tuple[DesiredMember, ...], host: str, *, restarts: bool
) -> None:
    """Read every member's health and raise MemberFailed when the cluster cannot lose this one."""
    async with etcd_client(run, members) as client:

        async def look() -> tuple[str, ...]:
            health = await client.observe_cluster()
            return find_obstacles(members, health, host, restarts=restarts)

        await stand_at_gate(look, f"{host} is not touched, for the gate stays shut")


@step("move leadership away from {host}")
async def move_leader_away(
    run: Run,
    host: HostConnection,
    members: tuple[DesiredMember, ...],
    preferred: str | None = None,
) -> bool:
    """Hand leadership to the follower that is furthest, or preferred, if this host's member leads.

    Raises EtcdUnavailable when none takes it in time. An only member leads whatever is done.
    """
    if len(members) == 1:
        return False
    async with etcd_client(run, members) as client:
        return await hand_over(client, host.name, preferred=preferred)


@step("read the cluster's health")
async def read_health(run: Run, client: EtcdClient, *, fenced: bool = False) -> ClusterHealth:
    """Ask every member at once, again while one is elected; what is wrong is in the answer.

    Raises Refused where members serve what a restore has ended, unless these may be `fenced`.
    """
    found = await client.observe_settled(run.inventory.etcd.settings.election_seconds)
    if not fenced:
        refuse_others(run, found)
    return found


def refuse_others(run: Run, found: ClusterHealth) -> None:
    """Raise Refused where old members came back that a restore has ended: they are no cluster."""
    refuse_fenced(run.inventory, found, recall(run.inventory.name).fenced)


@step("verify the cluster")
async def verify_cluster(
    _run: Run,
    client: EtcdClient,
    expected: tuple[DesiredMember, ...],
    timeout_seconds: float,
    without: frozenset[str] = frozenset(),
) -> ClusterHealth:
    """Wait until all members are healthy and agree; raises MemberFailed with what is missing.

    Members in `without` could not be reached and are not waited for.
    """
    return await client.wait_until_healthy(expected, timeout_seconds, without=without)
