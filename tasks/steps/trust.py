"""Who trusts which authority: seen, written, and checked at the barriers of a succession."""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.engine.authority import known_authorities, trust_bundle, write_private
from tasks.engine.run import Run, step
from tasks.hosts import clients, files, system
from tasks.hosts.connection import HostConnection
from tasks.model.certificates import Generation
from tasks.model.errors import CertificateRefused, MemberFailed, Refused
from tasks.model.observation import PairsObservation
from tasks.model.pointers import parameter
from tasks.model.trust import TrustView
from tasks.pki.inspect import find_issuer, read_bundle, read_certificate
from tasks.plans.succession import Direction, WriteTrust, choose_direction


def fingerprints(run: Run) -> dict[Generation, str]:
    """Get the fingerprints of the authorities that there are."""
    return {
        generation: read_certificate(pem).fingerprint
        for generation, pem in known_authorities(run).items()
    }


def choose(run: Run, replace: str | None, *, reverse: bool) -> Direction | None:
    """Choose which authority is to be the only one; None when there is nothing to do.

    Raises Refused when nothing is under way, the authority is not due, and `replace` does not ask
    for its replacement.
    """
    inventory, names = run.inventory, fingerprints(run)
    current = names[Generation.CURRENT]
    direction = choose_direction(names, reverse=reverse)
    if reverse or len(names) > 1:
        return direction
    facts = read_certificate(known_authorities(run)[Generation.CURRENT])
    is_due = facts.not_after - datetime.now(UTC) <= inventory.expiry.warn_before(
        facts.not_after - facts.not_before
    )
    if replace is None and not is_due:
        raise Refused(
            f"the authority {current[:12]} of {inventory.name} is valid until "
            f"{facts.not_after:%Y-%m-%d} and no rotation is under way; to replace it all the same, "
            f"run it with {parameter(replace=current[:12])}"
        )
    return direction if replace is None or current.startswith(replace.lower()) else None


def settled(run: Run) -> str:
    """Say that there is nothing to do, and which authority signs."""
    current = fingerprints(run)[Generation.CURRENT]
    return f"authority {current[:12]} signs already, and no rotation is under way"


def view_trust(
    run: Run, seen: PairsObservation, accepted: frozenset[Generation] | None
) -> TrustView:
    """Say in fingerprints what a host or client trusts, and who signed what it holds and serves.

    `accepted` is what its running member has loaded; None for a client.
    """
    names = fingerprints(run)
    authorities = {names[generation]: pem for generation, pem in known_authorities(run).items()}
    trusted: frozenset[str] = frozenset()
    if seen.trusted and seen.trusted.text:
        try:
            trusted = frozenset(each.fingerprint for each in read_bundle(seen.trusted.text))
        except CertificateRefused:
            trusted = frozenset()  # what cannot be read is written anew
    return TrustView(
        name=seen.host,
        trusted=trusted,
        accepted=trusted if accepted is None else frozenset(names[g] for g in accepted),
        issuers={
            label: find_issuer(pair.certificate.text, authorities)
            if pair.certificate and pair.certificate.text
            else None
            for label, pair in seen.pairs.items()
        },
        served=frozenset(
            find_issuer(pem, authorities) if pem else None for pem in seen.served.values()
        ),
        has_pending_change=seen.has_pending_change,
    )


def find_strangers(run: Run, seen: PairsObservation) -> tuple[str, ...]:
    """Tell which authorities a trusted file holds beside the cluster's.

    Whoever has a certificate of one would be locked out by another file. What has expired lets
    nobody in; a file without any of the cluster's own is wrong as a whole.
    """
    known, now = set(fingerprints(run).values()), datetime.now(UTC)
    try:
        found = read_bundle((seen.trusted.text if seen.trusted else None) or "")
    except CertificateRefused:
        return ()
    if known.isdisjoint(each.fingerprint for each in found):
        return ()
    return tuple(
        f"{seen.host}: its trusted file has a further authority, '{each.common_name}' "
        f"({each.fingerprint[:12]}), valid until {each.not_after:%Y-%m-%d}, which would go"
        for each in found
        if each.fingerprint not in known and each.not_after > now
    )


@step("write the trusted authorities on {host}")
async def write_trust(run: Run, host: HostConnection, planned: WriteTrust) -> bool:
    """Write a member's or a client's trusted file; a client is told afterwards.

    A running etcd has what it read at its start, and so has an API server: a note on the host says
    that it is not restarted yet. The file is whole or as it was; its mode and owner stay.
    """
    inventory = run.inventory
    text = trust_bundle(run) if planned.both else known_authorities(run)[Generation.CURRENT]
    backup = inventory.paths.backups / run.backup
    client = next((c for c in inventory.clients if c.name == planned.name), None)
    if client is None or client.trusted is None:
        account = inventory.etcd.run_as
        (found,) = await host.run(system.account_command(account))
        # The peers' own file first: the other is what is looked at, and so says that both are.
        paths = inventory.layout(host.name).trusted_files[::-1]
        owner, group = "root", system.parse_account(found)[1] or account
    else:
        paths, owner, group = (client.trusted,), client.owner, client.group
    writes = [
        files.write_file_command(
            path,
            text.decode(),
            mode="0644",
            owner=owner,
            group=group,
            backup=backup,
            keeps_access=True,
        )
        for path in paths
    ]
    if client is None:
        if inventory.layout(host.name).has_apiserver:
            await host.run(clients.mark_pending_command(planned.name), changes=True)
        results = list(await host.run(*writes, changes=True))
    else:
        _, *results, _ = await host.run(
            clients.mark_pending_command(client.name),
            *writes,
            clients.tell_command(client.name, client.after_change),
            changes=True,
        )
    return any(map(files.parse_change, results))


@step("write the bundle of both authorities")
async def write_bundle(run: Run) -> str:
    """Write both authorities' certificates to one file on the runner, for machines not managed.

    Returns its path.
    """
    path = run.inventory.authority.certificate.with_name("ca.bundle.pem")
    write_private(path, trust_bundle(run), 0o644)
    return str(path)


@step("stand at the barrier", retry_delays_seconds=())
async def stand_at_barrier(_run: Run, obstacles: tuple[str, ...]) -> bool:
    """Raise MemberFailed when anything keeps the next stage from starting."""
    if obstacles:
        raise MemberFailed(
            "the next stage is not started:\n  - "
            + "\n  - ".join(obstacles)
            + "\nwhat was done so far holds; run it again when this is seen to"
        )
    return False
