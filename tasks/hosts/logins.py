"""Logging in to hosts: each leg of a way opened, and what each objects to.

A run has one connection to each jump host, which all its hosts share. Host keys are verified; an
unknown one is refused, never learnt. Library errors are translated here, with the leg they are of.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, NoReturn

import asyncssh

from tasks.hosts import refusals
from tasks.hosts.dialling import ANSWER_SECONDS, Unanswered, Unresolved, dial
from tasks.hosts.keys import Keys, Read, find_keys
from tasks.model.errors import (
    AccessRefused,
    HostKeyRefused,
    HostSilent,
    HostUnreachable,
)

if TYPE_CHECKING:
    from tasks.hosts.ways import Leg, Way
    from tasks.model.machines import Ssh

KEEPALIVE_SECONDS = 5
CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes256-ctr"
"""Before asyncssh's other ones: several times as fast in Python as its own first choice."""
CROWDED_DELAYS_SECONDS = (0.3, 1.0, 2.0)
"""A server that has too many logins at once (MaxStartups) drops new ones by chance."""
SILENCES = {os.strerror(errno.EHOSTUNREACH), os.strerror(errno.ETIMEDOUT)}
"""What a jump host's sshd says of a host that does not answer it."""


class _Greeted(asyncssh.SSHClient):
    """Remembers the connection, to ask whether a server said who it is."""

    connection: asyncssh.SSHClientConnection | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self.connection = conn


class Logins:
    """The logins of one run; `read` reads the secrets that the inventory points to."""

    def __init__(self, read: Read | None = None) -> None:
        self._read = read
        self._opened: dict[tuple[object, ...], Keys] = {}
        self._opening = asyncio.Lock()
        self._jumps: dict[tuple[Leg, ...], asyncio.Task[asyncssh.SSHClientConnection]] = {}

    async def open(self, name: str, way: Way, ssh: Ssh) -> asyncssh.SSHClientConnection:
        """Log in to a host, by its way.

        Raises HostUnreachable, HostSilent, HostKeyRefused and AccessRefused, which say of the jump
        host what is the jump host's.
        """
        tunnel = None
        for count in range(1, len(way.jumps) + 1):
            tunnel = await self._jump(name, way.jumps[:count], way.proxy, ssh, tunnel)
        return await self._open(name, way.host, None if way.jumps else way.proxy, ssh, tunnel)

    async def close(self) -> None:
        """Close the connections to jump hosts."""
        for task in self._jumps.values():
            task.cancel()
        for opened in await asyncio.gather(*self._jumps.values(), return_exceptions=True):
            if isinstance(opened, asyncssh.SSHClientConnection):
                opened.close()
                await opened.wait_closed()
        self._jumps.clear()

    async def _jump(
        self,
        name: str,
        legs: tuple[Leg, ...],
        proxy: str | None,
        ssh: Ssh,
        tunnel: asyncssh.SSHClientConnection | None,
    ) -> asyncssh.SSHClientConnection:
        """Get the one connection to a jump host; those who ask while it is opened share it."""
        task = self._jumps.get(legs)
        if task is None or (task.done() and _is_over(task)):
            opening = self._open(name, legs[-1], proxy if len(legs) == 1 else None, ssh, tunnel)
            task = self._jumps[legs] = asyncio.ensure_future(opening)
        try:
            return await asyncio.shield(task)
        except (AccessRefused, HostKeyRefused, HostUnreachable) as error:
            raise type(error)(error.message, host=name) from error

    async def _keys(self, leg: Leg) -> Keys:
        """Get a leg's keys; each is opened once, for that takes long with a passphrase."""
        which = (leg.keys, leg.passphrase, leg.is_named)
        async with self._opening:
            if which not in self._opened:
                self._opened[which] = await find_keys(leg, self._read)
        return self._opened[which]

    async def _open(
        self,
        name: str,
        leg: Leg,
        proxy: str | None,
        ssh: Ssh,
        tunnel: asyncssh.SSHClientConnection | None,
    ) -> asyncssh.SSHClientConnection:
        _check_known_hosts(name, leg)
        keys, held = await self._keys(leg)
        options = asyncssh.SSHClientConnectionOptions(
            config=[str(ssh.config)] if ssh.config else None,
            host=leg.alias,
            tunnel=None,
            known_hosts=[str(path) for path in leg.known_hosts],
            client_keys=keys,
            ignore_encrypted=True,
            agent_path=None if leg.is_named and keys else (),
            agent_identities=held or None,
            connect_timeout=ssh.connect_timeout_seconds,
            login_timeout=ssh.connect_timeout_seconds,
            keepalive_interval=KEEPALIVE_SECONDS,
            gss_host=None,
            preferred_auth="publickey",
            encryption_algs=() if ssh.config else CIPHERS,
            # Of a session the file decides nothing: a terminal, a command, what is forwarded.
            request_pty=False,
            command=None,
            env=None,
            send_env=None,
            agent_forwarding=False,
            x11_forwarding=False,
        )
        for delay in (*CROWDED_DELAYS_SECONDS, None):
            greeted = _Greeted()
            try:
                return await asyncssh.connect(
                    leg.address,
                    leg.port,
                    username=leg.user,
                    config=None,
                    options=options,
                    client_factory=lambda greeted=greeted: greeted,
                    tunnel=tunnel,
                    proxy_command=proxy,
                    sock=None if tunnel or proxy else await _dial(leg, ssh),
                )
            except (OSError, asyncssh.Error, TimeoutError) as error:
                is_dropped = _is_dropped(error, greeted)
                if delay is None or not is_dropped:
                    _raise(error, name, leg, tunnel is not None, is_dropped=is_dropped)
            await asyncio.sleep(delay)
        raise AssertionError


async def _dial(leg: Leg, ssh: Ssh) -> object:
    return await dial(leg.address, leg.port, min(ANSWER_SECONDS, ssh.connect_timeout_seconds))


def _is_over(task: asyncio.Task[asyncssh.SSHClientConnection]) -> bool:
    if task.cancelled() or task.exception() is not None:
        return True
    return task.result().is_closed()


def _is_dropped(error: Exception, greeted: _Greeted) -> bool:
    """Whether a server took the connection and ended it before it said who it is."""
    if not isinstance(error, asyncssh.ConnectionLost | ConnectionResetError | BrokenPipeError):
        return False
    connection = greeted.connection
    return connection is not None and not connection.get_extra_info("server_version")


def _check_known_hosts(name: str, leg: Leg) -> None:
    if any(path.is_file() for path in leg.known_hosts):
        return
    raise HostKeyRefused(
        f"{leg.told}ssh.known_hosts names {', '.join(map(str, leg.known_hosts))}, which does not "
        f"exist; write the hosts' keys into it (`ssh-keyscan {leg.address}` shows them) after "
        "comparing their fingerprints on the console",
        host=name,
    )


def _raise(error: Exception, name: str, leg: Leg, tunnelled: bool, *, is_dropped: bool) -> NoReturn:
    """Raise what an attempt met as ours, and say of which leg it is."""
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        known = ", ".join(map(str, leg.known_hosts))
        raise HostKeyRefused(
            f"{leg.told}the SSH host key of {leg.address} is not in {known}, or is another there; "
            "compare its fingerprint on the console, and put its line in (if the machine was "
            "reinstalled, in place of the old one)",
            host=name,
        ) from error
    if isinstance(error, asyncssh.PermissionDenied):
        raise AccessRefused(
            f"{leg.told}SSH login as {leg} is denied; is the public key in authorized_keys?",
            host=name,
        ) from error
    if isinstance(error, asyncssh.KeyExchangeFailed):
        raise AccessRefused(f"{leg.told}no SSH with {leg}: {error}", host=name) from error
    reason, is_unanswered = str(error), isinstance(error, Unanswered)
    if isinstance(error, asyncssh.ChannelOpenError):
        if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            raise AccessRefused(refusals.no_forwarding(str(leg)), host=name) from error
        reason, is_unanswered = f"the jump host says: {error.reason}", error.reason in SILENCES
    elif is_dropped:
        reason = refusals.DROPPED
    elif isinstance(error, TimeoutError):
        reason, is_unanswered = "no answer in time", tunnelled or is_unanswered
    elif isinstance(error, Unresolved):
        is_unanswered = True  # a name that leads nowhere does so for the length of a run
        reason = (
            f"the runner does not resolve {leg.address} ({error}); put the name into DNS or its "
            "/etc/hosts, or the address into the inventory"
        )
    elif isinstance(error, ConnectionRefusedError):
        reason = "nothing listens there; is sshd running, and ssh.port right?"
    kind = HostSilent if is_unanswered else HostUnreachable
    raise kind(f"{leg.told}no SSH connection to {leg}: {reason}", host=name) from error
