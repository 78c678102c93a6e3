"""The cluster's authority on the runner: its files, its passphrase, opened only to sign.

The key is encrypted at rest and never leaves the runner. Nothing here returns it to Prefect: an
opened authority lives inside one task. While one authority follows another, there are two: the
current one signs, and its successor or predecessor lies beside it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tasks.engine import checkout, host_authority
from tasks.engine.run import Run, step
from tasks.engine.secret import read_secret
from tasks.model.certificates import Generation
from tasks.model.credentials import Passphrase
from tasks.model.errors import AuthorityRefused, InvalidInventory
from tasks.model.inventory import Inventory
from tasks.pki.authority import Authority, create_authority, is_encrypted, open_authority
from tasks.pki.inspect import read_certificate
from tasks.plans.bootstrap import MakeAuthority

NEEDS_NO_KEY = "check_health needs no key: it asks on the hosts"


def authority_files(inventory: Inventory, generation: Generation) -> tuple[Path, Path]:
    """Get the paths of an authority's certificate and key: ca.pem, ca.next.pem, ca.previous.pem."""
    paths = (inventory.authority.certificate, inventory.authority.key)
    if generation is Generation.CURRENT:
        return paths
    certificate, key = (path.with_name(f"{path.stem}.{generation}{path.suffix}") for path in paths)
    return certificate, key


def read_authority_certificate(inventory: Inventory) -> bytes | None:
    """Read the certificate of the authority that signs, PEM; None when there is none yet.

    A key without a certificate is a creation that was interrupted: the certificate is written
    last. Raises AuthorityRefused for a certificate without its key.
    """
    certificate, key = authority_files(inventory, Generation.CURRENT)
    if not certificate.is_file():
        return None
    if not key.is_file() and not inventory.authority.on_hosts:
        raise AuthorityRefused(
            f"authority.certificate {certificate} is there, but authority.key {key} is not; put "
            "the key that belongs to it there; only where no cluster has been made with it yet, "
            "move the certificate away, and bootstrap_cluster makes both"
        )
    return certificate.read_bytes()


def require_authority(inventory: Inventory) -> None:
    """Raise AuthorityRefused where there is none yet, or a certificate without its key."""
    if read_authority_certificate(inventory) is None:
        certificate, key = authority_files(inventory, Generation.CURRENT)
        raise AuthorityRefused(
            f"there is no authority at {certificate}; put the one there that signed this "
            f"cluster's certificates, and its key at {key}; only for a cluster that is not made "
            "yet, bootstrap_cluster makes one"
        )


def find_authority_certificate(inventory: Inventory) -> bytes | None:
    """Read the certificate of the authority that signs, also where its key is not (yet) there."""
    certificate, _ = authority_files(inventory, Generation.CURRENT)
    return certificate.read_bytes() if certificate.is_file() else None


def read_authorities(inventory: Inventory) -> dict[Generation, bytes]:
    """Read the certificates of all the authorities that there are, PEM, the current one first.

    A successor or predecessor that equals the current one is what an exchange left behind that
    was interrupted; it does not count. Raises as `read_authority_certificate` does.
    """
    current = read_authority_certificate(inventory)
    if current is None:
        return {}
    found = {Generation.CURRENT: current}
    for generation in (Generation.NEXT, Generation.PREVIOUS):
        certificate, _ = authority_files(inventory, generation)
        if certificate.is_file() and (pem := certificate.read_bytes()) != current:
            found[generation] = pem
    return found


async def read_passphrase(source: Passphrase) -> bytes:
    """Read the passphrase from where the inventory says; raises AuthorityRefused."""
    return await read_secret(source, "authority.passphrase", NEEDS_NO_KEY, AuthorityRefused)


async def opened_authority(
    inventory: Inventory, generation: Generation = Generation.CURRENT
) -> Authority:
    """Open an authority to sign; an adopted key that is not encrypted is encrypted in place.

    An exchange of authorities that was interrupted between its two files is ended first. Raises
    AuthorityRefused: missing files, wrong passphrase, expired, not an authority.
    """
    certificate, key = authority_files(inventory, generation)
    require_authority(inventory)
    passphrase = await read_passphrase(inventory.authority.passphrase)
    try:
        authority = _open(certificate, key, passphrase)
    except AuthorityRefused:
        other = _find_certificate_of(inventory, key, passphrase)
        if generation is not Generation.CURRENT or other is None:
            raise
        write_private(certificate, other, 0o644)
        authority = _open(certificate, key, passphrase)
    if not is_encrypted(key.read_bytes()):
        write_private(key, authority.seal_key(passphrase), 0o600)
    return authority


async def signing_authority(run: Run, generation: Generation = Generation.CURRENT) -> Authority:
    """Open an authority to sign, wherever its key lies; raises AuthorityRefused.

    One that kubeadm left on the hosts is read from the first that has it, and stays in memory.
    """
    if not run.inventory.authority.on_hosts:
        return await opened_authority(run.inventory, generation)
    authority = await host_authority.open_on_hosts(run, generation)
    own = find_authority_certificate(run.inventory)
    known = map(read_certificate, known_authorities(run).values())
    if own is not None and read_certificate(own) not in known:
        path = run.inventory.authority.certificate
        raise AuthorityRefused(
            f"the hosts' authority is {authority.facts.fingerprint[:16]}, and this runner knows "
            f"another one, {path}; where kubeadm's was replaced on purpose, move that file away"
        )
    return authority


def known_authorities(run: Run) -> dict[Generation, bytes]:
    """Get the certificates of all the authorities that there are, PEM, the current one first.

    Those on hosts are the ones that were seen last: at the run's opening, or after they changed.
    """
    if run.inventory.authority.on_hosts:
        return run.authorities
    return read_authorities(run.inventory)


def client_trust(run: Run) -> bytes:
    """Get the certificates of all the authorities that the members' own may be of, PEM."""
    return run.trusted if run.inventory.authority.on_hosts else trust_bundle(run)


def trust_bundle(run: Run) -> bytes:
    """Get the certificates of all the authorities as one PEM text, the current one first."""
    return b"".join(known_authorities(run).values())


def _open(certificate: Path, key: Path, passphrase: bytes, *, to_renew: bool = False) -> Authority:
    key_pem = key.read_bytes()
    secret = passphrase if is_encrypted(key_pem) else None
    try:
        return open_authority(
            certificate.read_bytes(), key_pem, secret, datetime.now(UTC), to_renew=to_renew
        )
    except AuthorityRefused as error:
        raise AuthorityRefused(
            f"{error.message} (authority.certificate is {certificate}, authority.key {key})"
        ) from error


async def find_authorities(run: Run) -> None:
    """See the authorities that lie on hosts, valid or not; those of the runner are read at need.

    Raises AuthorityRefused when there is none, or when hosts have keys of different ones.
    """
    if run.inventory.authority.on_hosts:
        await host_authority.see_authorities(run)
    else:
        require_authority(run.inventory)


async def expired_authority(run: Run) -> Authority | None:
    """Open the authority that signs if it has expired, to renew it; None while it is valid.

    Raises AuthorityRefused for what no renewal cures.
    """
    inventory = run.inventory
    if inventory.authority.on_hosts:
        return await host_authority.open_expired_on_hosts(run)
    if read_authority_certificate(inventory) is None:
        return None
    passphrase = await read_passphrase(inventory.authority.passphrase)
    files = authority_files(inventory, Generation.CURRENT)
    try:
        _open(*files, passphrase)
    except AuthorityRefused:
        authority = _open(*files, passphrase, to_renew=True)
        return authority if authority.facts.not_after <= datetime.now(UTC) else None
    return None


def _find_certificate_of(inventory: Inventory, key: Path, passphrase: bytes) -> bytes | None:
    for generation in (Generation.NEXT, Generation.PREVIOUS):
        certificate, _ = authority_files(inventory, generation)
        if certificate.is_file():
            with contextlib.suppress(AuthorityRefused):
                return _open(certificate, key, passphrase).certificate_pem
    return None


async def check_authority(inventory: Inventory) -> None:
    """Raise what would keep the authority from signing; nothing is changed."""
    certificate = read_authority_certificate(inventory)
    passphrase = await read_passphrase(inventory.authority.passphrase)
    if certificate is not None:
        _open(*authority_files(inventory, Generation.CURRENT), passphrase)
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
    write_private(paths.key, authority.seal_key(passphrase), 0o600)
    write_private(paths.certificate, authority.certificate_pem, 0o644)
    # Before any host hears of it: another worker must be able to go on.
    await checkout.synchronize(f"the authority of {run.inventory.name}")
    return True


def write_private(path: Path, content: bytes, mode: int) -> None:
    """Write a file of the runner's whole or not at all, never readable wider than `mode`."""
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
