"""The cluster's authority on the runner: its files, its passphrase, opened only to sign.

The key is encrypted at rest and never leaves the runner. Nothing here returns it to Prefect: an
opened authority lives inside one task.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.blocks.system import Secret

from tasks.engine import Run, step
from tasks.model.errors import AuthorityRefused, InvalidInventory
from tasks.model.inventory import Inventory, Passphrase
from tasks.pki.authority import Authority, create_authority, is_encrypted, open_authority
from tasks.plans.bootstrap import MakeAuthority

_SECRET: Any = Secret  # Secret[str] would be another block type, which no server knows


def read_authority_certificate(inventory: Inventory) -> bytes | None:
    """Read the authority's certificate, PEM; None when there is no authority yet.

    A key without a certificate is a creation that was interrupted: the certificate is written
    last. Raises AuthorityRefused for a certificate without its key.
    """
    certificate, key = inventory.authority.certificate, inventory.authority.key
    if not certificate.is_file():
        return None
    if not key.is_file():
        raise AuthorityRefused(
            f"authority.certificate {certificate} is there, but authority.key {key} is not; put "
            "the key there, or move the certificate away to have a new authority made"
        )
    return certificate.read_bytes()


async def read_passphrase(source: Passphrase) -> bytes:
    """Read the passphrase from where the inventory says; raises AuthorityRefused."""
    if source.block is not None:
        try:
            block: Any = await _SECRET.aload(source.block)
        except ValueError as error:
            raise AuthorityRefused(
                f"authority.passphrase.block: there is no Secret block '{source.block}'; make it "
                "in the Prefect UI under Blocks"
            ) from error
        text = str(block.get())
    elif source.env is not None:
        text = os.environ.get(source.env, "")
        if not text:
            raise AuthorityRefused(
                f"authority.passphrase.env: the environment variable {source.env} is not set"
            )
    else:
        text = _read_passphrase_file(source.file)
    if not text:
        raise AuthorityRefused("authority.passphrase: the passphrase is empty")
    return text.encode()


def _read_passphrase_file(path: Path | None) -> str:
    if path is None or not path.is_file():
        raise AuthorityRefused(f"authority.passphrase.file: there is no {path}")
    if path.stat().st_mode & 0o077:
        raise AuthorityRefused(
            f"authority.passphrase.file: {path} can be read by others; chmod 600 {path}"
        )
    return path.read_text().rstrip("\n")


async def opened_authority(inventory: Inventory) -> Authority:
    """Open the authority to sign; an adopted key that is not encrypted is encrypted in place.

    Raises AuthorityRefused: missing files, wrong passphrase, expired, not an authority.
    """
    certificate = read_authority_certificate(inventory)
    if certificate is None:
        raise AuthorityRefused(
            f"there is no authority at {inventory.authority.certificate}; bootstrap_cluster makes "
            "one, or put an existing one there"
        )
    passphrase = await read_passphrase(inventory.authority.passphrase)
    key = inventory.authority.key.read_bytes()
    authority = open_authority(
        certificate, key, passphrase if is_encrypted(key) else None, datetime.now(UTC)
    )
    if not is_encrypted(key):
        _write(inventory.authority.key, authority.seal_key(passphrase), 0o600)
    return authority


async def check_authority(inventory: Inventory) -> None:
    """Raise what would keep the authority from signing; nothing is changed."""
    certificate = read_authority_certificate(inventory)
    passphrase = await read_passphrase(inventory.authority.passphrase)
    if certificate is not None:
        key = inventory.authority.key.read_bytes()
        secret = passphrase if is_encrypted(key) else None
        open_authority(certificate, key, secret, datetime.now(UTC))
    for path in (inventory.authority.key, inventory.authority.certificate):
        parent = next(p for p in path.parents if p.exists())
        if not os.access(parent, os.W_OK):
            raise InvalidInventory("authority", (f"{parent} cannot be written to",))


@step("make the authority")
async def make_authority(run: Run, _step: MakeAuthority) -> bool:
    """Make the authority's key and certificate on the runner.

    The key is written first, the certificate last; dying between them leaves a key that nothing
    has been signed with, which the next run keeps aside.
    """
    paths = run.inventory.authority
    passphrase = await read_passphrase(paths.passphrase)
    authority = create_authority(run.inventory.certificates.authority, datetime.now(UTC))
    if paths.key.is_file():
        paths.key.rename(f"{paths.key}.unused-{run.backup}")
    _write(paths.key, authority.seal_key(passphrase), 0o600)
    _write(paths.certificate, authority.certificate_pem, 0o644)
    return True


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.{secrets.token_hex(4)}", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
