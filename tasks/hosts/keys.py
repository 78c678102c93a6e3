"""Private keys of SSH on the runner: those in the clear, with a passphrase, and in an agent.

A passphrase comes from where the inventory says, from the command line, where it was typed, or is
not needed because an agent has the key. It is in memory alone, and in no message.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

from tasks.model.credentials import SecretSource
from tasks.model.errors import AccessRefused, InvalidInventory

if TYPE_CHECKING:
    from tasks.hosts.ways import Leg

typed: dict[Path, bytes] = {}
"""Passphrases as they were typed at the command line."""

_MAGIC = b"openssh-key-v1\0"

Read = Callable[[SecretSource, str], Awaitable[bytes]]
"""Reads a secret of the inventory's field."""
Keys = tuple[list[asyncssh.SSHKey], list[bytes]]
"""Opened ones, and the public halves of those that an agent has."""


async def find_keys(leg: Leg, read: Read | None) -> Keys:
    """Get the keys to log in with, and the public halves of those that only the agent can use.

    Raises InvalidInventory for one that the inventory names and that is not there, and
    AccessRefused for one that cannot be opened.
    """
    opened: list[asyncssh.SSHKey] = []
    held: list[bytes] = []
    for path in leg.keys:
        if not path.is_file():
            if leg.is_named:
                raise InvalidInventory("ssh.key", (f"{path} does not exist",))
            continue
        key = await _open(path, leg.passphrase, read)
        if isinstance(key, bytes):
            held.append(key)
        else:
            opened.append(key)
    return opened, held


async def _open(
    path: Path, source: SecretSource | None, read: Read | None
) -> asyncssh.SSHKey | bytes:
    try:
        return asyncssh.read_private_key(path)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        half = _public_half(path)
        if half is not None and await _agent_has(half):
            return half
        if not _is_encrypted(path):
            raise AccessRefused(f"ssh.key {path} cannot be read: {error}") from error
    secret = typed.get(path)
    if secret is None and source is not None and read is not None:
        secret = await read(source, "ssh.key_passphrase")
    if secret is None:
        raise AccessRefused(
            f"ssh.key {path} has a passphrase, and no agent has the key: `ssh-add {path}`, or say "
            "in ssh.key_passphrase where the passphrase is; the command line asks for it where "
            "there is a terminal"
        )
    try:
        # Deriving the key from the passphrase takes long on purpose.
        return await asyncio.to_thread(asyncssh.read_private_key, path, secret)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise AccessRefused(f"the passphrase of ssh.key {path} is wrong") from error


async def find_locked(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Tell which keys have a passphrase and are in no agent."""
    return tuple([path for path in paths if _is_encrypted(path) and not await _is_held(path)])


def try_passphrase(path: Path, passphrase: bytes) -> bool:
    """Keep a passphrase that was typed, if it is the key's."""
    try:
        asyncssh.read_private_key(path, passphrase)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
        return False
    typed[path] = passphrase
    return True


async def _is_held(path: Path) -> bool:
    half = _public_half(path)
    return half is not None and await _agent_has(half)


async def _agent_has(half: bytes) -> bool:
    if os.environ.get("SSH_AUTH_SOCK"):
        with suppress(OSError, asyncssh.Error, ValueError):
            async with asyncssh.connect_agent() as agent:
                return bool(await agent.get_keys([half]))
    return False


def _is_encrypted(path: Path) -> bool:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return False
    if "BEGIN OPENSSH PRIVATE KEY" in text:
        return not _body(text).startswith(_MAGIC + b"\0\0\0\x04none")
    return "PRIVATE KEY" in text and "ENCRYPTED" in text


def _public_half(path: Path) -> bytes | None:
    """Read the public half of a key, encrypted or not; None where its file does not have it."""
    for place in (f"{path}.pub", path):
        with suppress(OSError, asyncssh.KeyImportError):
            return asyncssh.read_public_key(place).public_data
    with suppress(OSError):
        return _half(_body(path.read_text(errors="replace")))
    return None


def _half(body: bytes) -> bytes | None:
    """Find the public half in OpenSSH's own format, where it is never encrypted (PROTOCOL.key).

    After the magic: cipher, derivation and its options, each with its length; the count; the half.
    """
    at = len(_MAGIC)
    for _ in range(3):
        at += 4 + int.from_bytes(body[at : at + 4], "big")
    at += 4
    size = int.from_bytes(body[at : at + 4], "big")
    return body[at + 4 : at + 4 + size] if body.startswith(_MAGIC) else None


def _body(text: str) -> bytes:
    lines = [line for line in text.splitlines() if line and "-----" not in line]
    try:
        return base64.b64decode("".join(lines))
    except ValueError:
        return b""
