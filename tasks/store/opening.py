"""Opening what is encrypted with age, on the disk; the key is in memory alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyrage


class Sealed(Exception):
    """A file that a key does not open; the message says why, and nothing of the key."""


def unseal(source: Path, target: Path, identity: bytes) -> None:
    """Decrypt a file into another; raises Sealed, also where the key is none."""
    try:
        with source.open("rb") as sealed, target.open("wb") as bare:
            pyrage.decrypt_io(sealed, bare, _identities(identity))
    except pyrage.DecryptError as error:
        msg = f"the key does not open it ({error})"
        raise Sealed(msg) from error


def _identities(text: bytes) -> list[Any]:
    """Read what age-keygen writes, comments and all, or an SSH key."""
    try:
        if b"PRIVATE KEY" in text:
            return [pyrage.ssh.Identity.from_buffer(text)]
        lines = [line for line in text.decode().split() if line.startswith("AGE-SECRET-KEY-")]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines]
    except (pyrage.IdentityError, UnicodeDecodeError):
        found = []
    if not found:
        msg = "what is there is no key of age's (AGE-SECRET-KEY-1...) and no SSH key"
        raise Sealed(msg)
    return found
