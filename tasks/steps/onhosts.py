"""What the hosts say when the runner's own authority cannot be used: asked over SSH, read-only.

Each member is asked on its host with its own pair, so that nothing depends on a key of the
runner's. So a cluster that only this runner cannot enter is told from one that is dead.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from tasks.config.settings import read_settings
from tasks.engine.authority import authority_files
from tasks.engine.run import Run, step
from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.etcd.relay import RelayTransport
from tasks.hosts import files
from tasks.hosts.batch import Command
from tasks.hosts.connection import HostConnection, now
from tasks.hosts.served import carry_command
from tasks.hosts.supervisors import supervisor
from tasks.model.certificates import Generation, Role
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import AuthorityRefused, CertificateRefused, Refused, RunbookError
from tasks.model.inventory import Inventory
from tasks.model.member_settings import Settings
from tasks.model.members import DesiredMember
from tasks.model.observation import ClockReading
from tasks.model.urls import split_url
from tasks.pki.inspect import find_issuer, find_signer, read_certificate

CALL_SECONDS = 12.0
"""openssl's own 5 s, and an SSH connection that is opened for it."""
SESSIONS = 4
"""sshd takes 10 at once (MaxSessions)."""


@asynccontextmanager
async def own_pairs_client(
    run: Run, members: tuple[DesiredMember, ...]
) -> AsyncIterator[EtcdClient]:
    """Open a client that asks each member on its own host, with that host's server pair.

    A member whose host cannot be reached is asked from another member's host.
    """
    slots = {name: asyncio.Semaphore(SESSIONS) for name in run.hosts}
    silent: dict[str, RunbookError] = {}
    owners = {m.client_url.removeprefix("https://"): m.name for m in members}

    async def carry(netloc: str, request: str) -> tuple[int, str, str]:
        owner = owners[netloc]
        address, port = split_url(netloc)
        names = sorted(run.hosts, key=lambda name: name != owner)
        for name in names:
            if name in silent:
                continue
            pair = run.inventory.layout(name).pair(Role.SERVER)
            command = carry_command(
                pair.certificate,
                pair.key,
                run.inventory.layout(name).trusted,
                address,
                port,
                request,
                is_own=name == owner,
            )
            try:
                async with slots[name]:
                    (result,) = await run.hosts[name].run(command, keep_going=True)
            except RunbookError as error:
                silent[name] = error
                continue
            return result.status, result.stdout, result.stderr
        raise silent[names[0]]

    endpoints = tuple(Endpoint(m.name, m.client_url, member=m.member) for m in members)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used: the hosts' openssl speaks
    async with EtcdClient(endpoints, tls, CALL_SECONDS, RelayTransport(carry)) as client:
        yield client


@step("ask the members on their hosts")
async def read_health_on_hosts(run: Run, members: tuple[DesiredMember, ...]) -> ClusterHealth:
    """Ask every member with its own pair; what is wrong is in the answer."""
    async with own_pairs_client(run, members) as client:
        return await client.observe_settled(run.inventory.etcd.settings.election_seconds)


@step("read the clock of {host}", retry_delays_seconds=())
async def read_clock(_run: Run, host: HostConnection) -> ClockReading:
    """Compare a host's clock with the runner's; raises HostUnreachable and such."""
    sent = now()
    batch = await host.run(Command("read the clock", ":"))
    offset, uncertainty = batch.clock_offset(sent, now())
    return ClockReading(host.name, offset, uncertainty)


@step("read the settings of {host}", retry_delays_seconds=())
async def read_member_settings(run: Run, host: HostConnection) -> Settings:
    """Read a member's settings, wherever they are written; none where there is no unit."""
    own = supervisor(run.inventory.layout(host.name))
    (result,) = await host.run(own.settings_command())
    return read_settings(own.parse_settings(result))


@dataclass(frozen=True, slots=True)
class _Signed:
    leaf: str
    trusted: str


@step("read who signed the pair of {host}", retry_delays_seconds=())
async def read_signed(run: Run, host: HostConnection) -> _Signed | None:
    """Read a host's server certificate and trusted file; None where there is none."""
    layout = run.inventory.layout(host.name)
    found = await host.run(
        files.read_file_command(layout.pair(Role.SERVER).certificate),
        files.read_file_command(layout.trusted),
    )
    leaf, trusted = map(files.parse_file, found)
    if leaf is None or trusted is None or not leaf.text or not trusted.text:
        return None
    return _Signed(leaf.text, trusted.text)


async def find_foreign(run: Run, members: tuple[DesiredMember, ...]) -> str | None:
    """Say that a serving cluster's authority is none of this runner's; None when that is not so.

    The hosts are read first; only where none of them has a pair of the runner's authorities are
    the members asked, with their own pairs, whether they serve.
    """
    own = _own_authorities(run.inventory)
    if not own:
        return None
    seen = await asyncio.gather(
        *(read_signed(run, host) for host in run.hosts.values()), return_exceptions=True
    )
    signed = [one for one in seen if isinstance(one, _Signed)]
    with suppress(AuthorityRefused, CertificateRefused):
        if not signed or any(find_issuer(one.leaf, own) for one in signed):
            return None
        health = await read_health_on_hosts(run, members)
        if not health.reads_linearizable:
            return None
        return _foreign_sentence(run.inventory, signed[0], own[Generation.CURRENT])
    return None


def _foreign_sentence(inventory: Inventory, signed: _Signed, current: bytes) -> str:
    signer = find_signer(signed.leaf, signed.trusted)
    theirs = f"authority {signer.fingerprint[:16]}" if signer else "an authority that is not here"
    path = inventory.authority.certificate
    return (
        f"{inventory.name} serves, under another authority than this runner's: its members' "
        f"certificates are signed by {theirs}, and {path} is "
        f"{read_certificate(current).fingerprint[:16]}. Another runner has rotated the authority "
        f"since this copy was made. Get the current authority's files from that runner into "
        f"{path.parent} ({path.name} and {inventory.authority.key.name}), keep these aside, and "
        "run this again"
    )


async def refuse_foreign(run: Run, members: tuple[DesiredMember, ...]) -> None:
    """Raise Refused when the cluster serves under another authority than the runner's."""
    if sentence := await find_foreign(run, members):
        raise Refused(f"{sentence}. Nothing was changed")


def _own_authorities(inventory: Inventory) -> dict[str, bytes]:
    files_of = {g: authority_files(inventory, g)[0] for g in Generation}
    found = {str(g): path.read_bytes() for g, path in files_of.items() if path.is_file()}
    return found if Generation.CURRENT in found else {}
