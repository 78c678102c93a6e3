"""The way to a host: each login on it, from the inventory and an OpenSSH client's file.

What the inventory says comes first. Where it names a file as ~/.ssh/config is (`ssh.config`), that
fills in the rest: HostName, User, Port, IdentityFile, UserKnownHostsFile, ProxyJump, ProxyCommand,
and, by asyncssh itself, ciphers and the like. Without one none is read. Nothing is connected here.
"""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from asyncssh.config import ConfigParseError, SSHClientConfig

from tasks.model.errors import InvalidInventory

if TYPE_CHECKING:
    from tasks.model.credentials import SecretSource
    from tasks.model.machines import Host, Ssh

_HOP = re.compile(r"(?:ssh://)?(?:(?P<user>.+)@)?(?P<address>\[[^]]+\]|[^:@]+)(?::(?P<port>\d+))?")


@dataclass(frozen=True, slots=True)
class Leg:
    """One login: where, as whom, and with which files."""

    address: str
    port: int
    user: str
    known_hosts: tuple[Path, ...]
    keys: tuple[Path, ...]
    passphrase: SecretSource | None
    is_named: bool
    """Whether the inventory names the key, so that one that is missing is a mistake."""
    alias: str
    """What the file is asked for, as ssh would be called with."""
    is_jump: bool

    def __str__(self) -> str:
        return f"{self.user}@{self.address} port {self.port}"

    @property
    def told(self) -> str:
        """What a message calls it before it says more: nothing where it is the host itself."""
        return f"the jump host {self}: " if self.is_jump else ""


@dataclass(frozen=True, slots=True)
class Way:
    """All legs, the host's own last; `proxy` is a command in place of the first connection."""

    jumps: tuple[Leg, ...]
    host: Leg
    proxy: str | None = None


def find_way(host: Host, ssh: Ssh) -> Way:
    """Find the way to a host; raises InvalidInventory for a file that cannot be read."""
    said = _read(ssh, host.ssh_address)
    user = host.ssh.user or (ssh.user if "user" in ssh.model_fields_set else None)
    port = host.ssh.port or (ssh.port if "port" in ssh.model_fields_set else None)
    key = host.ssh.key or ssh.key
    own = _leg(host.ssh_address, said, ssh, user=user, port=port, key=key)
    if host.ssh.key and host.ssh.key_passphrase:
        own = replace(own, passphrase=host.ssh.key_passphrase)
    if host.address is not None:
        own = replace(own, address=host.address.lower())
    if ssh.jump_host is not None:
        jump = ssh.jump_host
        there = _read(ssh, jump.address)
        user = jump.user or _text(there.get("User")) or ssh.user
        fixed = jump.port if "port" in jump.model_fields_set else None
        leg = _leg(jump.address, there, ssh, user=user, port=fixed, key=ssh.key, is_jump=True)
        return Way((leg,), own)
    if through := _text(said.get("ProxyJump")):
        return Way(_jumps(through, ssh, frozenset({host.ssh_address})), own)
    return Way((), own, _text(said.get("ProxyCommand")))


def _jumps(through: str, ssh: Ssh, seen: frozenset[str]) -> tuple[Leg, ...]:
    """Read a ProxyJump; its first hop may have one of its own. Nobody is reached by itself."""
    legs: tuple[Leg, ...] = ()
    for hop in through.split(","):
        found = _HOP.fullmatch(hop.strip().rstrip("/"))
        if found is None:
            raise InvalidInventory("ssh.config", (f"{ssh.config}: ProxyJump {through}: {hop}?",))
        address = found["address"].strip("[]")
        if address in seen:
            continue
        said = _read(ssh, address)
        further = _text(said.get("ProxyJump"))
        if not legs and further:
            legs = _jumps(further, ssh, seen | {address})
        user = found["user"] or _text(said.get("User")) or ssh.user
        port = int(found["port"]) if found["port"] else None
        legs += (_leg(address, said, ssh, user=user, port=port, key=ssh.key, is_jump=True),)
    return tuple(dict.fromkeys(legs))


def _leg(
    address: str,
    said: SSHClientConfig,
    ssh: Ssh,
    *,
    user: str | None,
    port: int | None,
    key: Path | None,
    is_jump: bool = False,
) -> Leg:
    known, files = said.get("UserKnownHostsFile"), said.get("IdentityFile")
    if "known_hosts" in ssh.model_fields_set or not isinstance(known, list):
        known = [ssh.known_hosts]
    keys = [key] if key else files if isinstance(files, list) else []
    asked = said.get("Port")
    return Leg(
        # As OpenSSH looks for it in known_hosts, where names stand in lower case.
        address=str(said.get("Hostname", address)).replace("%h", address).lower(),
        port=port or (asked if isinstance(asked, int) else 22),
        user=user or _text(said.get("User")) or ssh.user,
        known_hosts=tuple(Path(path).expanduser() for path in known),
        keys=tuple(Path(path).expanduser() for path in keys),
        passphrase=ssh.key_passphrase,
        is_named=key is not None,
        alias=address,
        is_jump=is_jump,
    )


def _read(ssh: Ssh, name: str) -> SSHClientConfig:
    """Read what the file says of a name; nothing where there is no file."""
    if ssh.config is not None and not ssh.config.is_file():
        raise InvalidInventory("ssh.config", (f"there is no {ssh.config}",))
    files = [ssh.config] if ssh.config else []
    try:
        loaded = SSHClientConfig.load(
            None, files, False, False, False, getpass.getuser(), (), name, ()
        )
    except (ConfigParseError, OSError) as error:
        raise InvalidInventory("ssh.config", (str(error),)) from error
    return cast(SSHClientConfig, loaded)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
