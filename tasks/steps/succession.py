"""One authority follows another, on the runner or on the hosts: made, exchanged, retired.

Nothing is deleted: the one that is done is kept under the name ca.retired-<run>.pem. Each step
can be repeated, and a runner that dies within one leaves what `authority` knows how to read.
"""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.engine import checkout, host_authority
from tasks.engine.authority import (
    authority_files,
    expired_authority,
    known_authorities,
    opened_authority,
    read_authorities,
    read_passphrase,
    write_private,
)
from tasks.engine.run import Run, step
from tasks.model.certificates import Generation
from tasks.pki.authority import create_authority
from tasks.plans.recovery import RenewAuthority
from tasks.plans.succession import ExchangeAuthorities, MakeSuccessor, RetireAuthority


def pin_authority(run: Run) -> None:
    """Let the runner's copy of a certificate that lies on hosts be the one that signs now.

    Before the other one is retired: until then the runner may go by either.
    """
    path = run.inventory.authority.certificate
    if path.is_file():
        write_private(path, known_authorities(run)[Generation.CURRENT], 0o644)


@step("make the next authority")
async def make_successor(run: Run, _step: MakeSuccessor) -> bool:
    """Make the next authority's key and certificate on the runner, beside the current one.

    The key is written first. Dying between them leaves a key that nothing was signed with.
    """
    inventory = run.inventory
    if inventory.authority.on_hosts:
        return await host_authority.make_on_hosts(run)
    if Generation.NEXT in read_authorities(inventory):
        return False
    passphrase = await read_passphrase(inventory.authority.passphrase)
    authority = create_authority(inventory.certificates.authority, datetime.now(UTC))
    certificate, key = authority_files(inventory, Generation.NEXT)
    write_private(key, authority.seal_key(passphrase), 0o600)
    write_private(certificate, authority.certificate_pem, 0o644)
    # Before any host hears of it: another worker must be able to go on.
    await checkout.synchronize(f"the next authority of {inventory.name}")
    return True


@step("let the other authority sign")
async def exchange_authorities(run: Run, planned: ExchangeAuthorities) -> bool:
    """Make the other authority the one that signs, and keep the one that signed until now.

    Copies first, then the key, then the certificate: dying in between leaves a key whose
    certificate lies beside it, which `opened_authority` finds.
    """
    inventory = run.inventory
    incoming, outgoing = planned.incoming, planned.outgoing
    if inventory.authority.on_hosts:
        return await host_authority.exchange_on_hosts(run, incoming)
    if incoming not in read_authorities(inventory):
        return False
    await opened_authority(inventory)
    await opened_authority(inventory, incoming)
    current = authority_files(inventory, Generation.CURRENT)
    kept, taken = authority_files(inventory, outgoing), authority_files(inventory, incoming)
    for source, target, mode in (
        (current[1], kept[1], 0o600),
        (current[0], kept[0], 0o644),
        (taken[1], current[1], 0o600),
        (taken[0], current[0], 0o644),
    ):
        write_private(target, source.read_bytes(), mode)
    for left in taken:
        left.unlink()
    return True


@step("renew the authority")
async def renew_authority(run: Run, _step: RenewAuthority) -> bool:
    """Give an expired authority a new life with the same key; its old certificate is kept aside."""
    inventory = run.inventory
    expired = await expired_authority(run)
    if expired is None:
        return False
    if inventory.authority.on_hosts:
        return await host_authority.renew_on_hosts(run, expired)
    certificate, _ = authority_files(inventory, Generation.CURRENT)
    renewed = expired.renewed(inventory.certificates.authority.validity, datetime.now(UTC))
    kept = certificate.with_name(f"{certificate.stem}.retired-{run.backup}{certificate.suffix}")
    write_private(kept, expired.certificate_pem, 0o644)
    write_private(certificate, renewed.certificate_pem, 0o644)
    return True


@step("retire the other authority")
async def retire_authority(run: Run, planned: RetireAuthority) -> bool:
    """Put the authority that nobody trusts any more out of use; its files are kept."""
    if run.inventory.authority.on_hosts:
        pin_authority(run)
        return await host_authority.retire_on_hosts(run)
    paths = run.inventory.authority.certificate, run.inventory.authority.key
    changed = False
    for path, kept in zip(authority_files(run.inventory, planned.generation), paths, strict=True):
        if path.is_file():
            path.rename(kept.with_name(f"{kept.stem}.retired-{run.backup}{kept.suffix}"))
            changed = True
    return changed
