"""A cluster's authority whose files lie on its hosts, as kubeadm leaves it.

Each host that has the key has all of it; the truth is what they hold together. A key is in this
process's memory while it signs or is copied to the other hosts, and nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tasks.engine.run import Run, together
from tasks.hosts import authorities, files
from tasks.hosts.connection import HostConnection
from tasks.hosts.served import CERTIFICATE
from tasks.model.certificates import Generation
from tasks.model.errors import AuthorityRefused, CertificateRefused, RunbookError
from tasks.model.layout import Pair, generation_files
from tasks.pki.authority import Authority, open_authority
from tasks.pki.inspect import read_certificate

OTHERS = (Generation.NEXT, Generation.PREVIOUS)


@dataclass(frozen=True, slots=True)
class HostAuthority:
    """What one host has: the certificate, PEM, of each generation whose key is there too.

    `bundle` is all that it trusts, which may be more.
    """

    host: HostConnection
    pair: Pair
    certificates: dict[Generation, bytes]
    bundle: tuple[bytes, ...]

    @property
    def fingerprints(self) -> dict[Generation, str]:
        """Name them."""
        return {g: read_certificate(pem).fingerprint for g, pem in self.certificates.items()}


async def see_authorities(run: Run) -> dict[Generation, bytes]:
    """See the authorities that the hosts hold together; `run.authorities` has them from then on.

    Raises AuthorityRefused when no host has one, or when hosts have keys of different ones.
    """
    return _note(run, await _see_hosts(run))


def _note(run: Run, seen: tuple[HostAuthority, ...]) -> dict[Generation, bytes]:
    run.authorities = combine(seen)
    run.trusted = b"".join(dict.fromkeys(pem for one in seen for pem in one.bundle))
    return run.authorities


def combine(seen: Iterable[HostAuthority]) -> dict[Generation, bytes]:
    """Say which authority signs, which shall, and which did, from what each host has.

    A successor counts when every host has it. While an exchange is half done the one that signed
    before it still is the current one: every host can sign with it, or has what could.
    """
    hosts = _as_renewed(tuple(seen))
    currents = {name: one for one in hosts for name in (one.fingerprints[Generation.CURRENT],)}
    if len(currents) == 1:
        found = {Generation.CURRENT: hosts[0].certificates[Generation.CURRENT]}
        nexts = {one.fingerprints.get(Generation.NEXT) for one in hosts}
        if len(nexts) == 1 and None not in nexts:
            found[Generation.NEXT] = hosts[0].certificates[Generation.NEXT]
        previous = (one.certificates.get(Generation.PREVIOUS) for one in hosts)
        if (pem := next(filter(None, previous), None)) is not None:
            found[Generation.PREVIOUS] = pem
        return found
    for name, behind in currents.items():
        successor = behind.fingerprints.get(Generation.NEXT)
        if successor in currents and len(currents) == len({name, successor}):
            return {g: behind.certificates[g] for g in (Generation.CURRENT, Generation.NEXT)}
    listed = "\n  - ".join(
        f"{one.host}: {one.fingerprints[Generation.CURRENT][:12]}" for one in hosts
    )
    raise AuthorityRefused(
        f"the hosts have keys of different authorities:\n  - {listed}\ncopy certificate and key of "
        "the one that all members trust to every host; nothing was changed"
    )


def _as_renewed(hosts: tuple[HostAuthority, ...]) -> tuple[HostAuthority, ...]:
    """Take all for renewed where some are: the same key with a certificate that lasts longer."""
    facts = [read_certificate(one.certificates[Generation.CURRENT]) for one in hosts]
    if len({each.public_key_pem for each in facts}) != 1:
        return hosts
    _, last = max(zip((each.not_after for each in facts), range(len(hosts)), strict=True))
    newest = hosts[last].certificates[Generation.CURRENT]
    return tuple(
        replace(one, certificates=one.certificates | {Generation.CURRENT: newest}) for one in hosts
    )


async def open_expired_on_hosts(run: Run) -> Authority | None:
    """Open the hosts' authority to renew it; None while it is valid."""
    now = datetime.now(UTC)
    current = (await see_authorities(run))[Generation.CURRENT]
    if read_certificate(current).not_after > now:
        return None
    return await open_on_hosts(run, Generation.CURRENT, to_renew=True)


async def renew_on_hosts(run: Run, expired: Authority) -> bool:
    """Write a renewed certificate on the first host that has the key; the others get it as trust.

    It lasts as long as the old one did. A run that dies then finds it there, and goes on with it.
    """
    life = expired.facts.not_after - expired.facts.not_before
    renewed = expired.renewed(life, datetime.now(UTC)).certificate_pem
    one = (await _see_hosts(run))[0]
    others = (pem for pem in one.bundle if pem != one.certificates[Generation.CURRENT])
    await one.host.run(
        files.write_file_command(
            one.pair.certificate,
            b"".join((renewed, *others)).decode(),
            mode="0644",
            owner="root",
            group="root",
            backup=run.inventory.paths.backups / run.backup,
        ),
        changes=True,
    )
    await see_authorities(run)
    return True


async def open_on_hosts(run: Run, generation: Generation, *, to_renew: bool = False) -> Authority:
    """Open an authority in memory, from the first host that has its key; raises AuthorityRefused.

    Nothing is told of a key but that it does not open.
    """
    seen = await _see_hosts(run)
    wanted = _note(run, seen).get(generation)
    for one in seen:
        place = next((g for g, pem in one.certificates.items() if pem == wanted), None)
        if wanted is not None and place is not None:
            (key,) = await one.host.run(authorities.read_key_command(one.pair, place))
            return open_authority(
                wanted, key.stdout.encode(), None, datetime.now(UTC), to_renew=to_renew
            )
    raise AuthorityRefused(f"no host of {run.inventory.name} has the {generation} authority")


async def make_on_hosts(run: Run) -> bool:
    """Make the next authority and put it beside the current one on every host that has a key.

    It is what the current one is, but for key and times. One that a run which died has left on some
    hosts goes to the others. Raises CommandFailed; a host then has it whole, or is as it was.
    """
    seen = await _see_hosts(run, all_of_them=True)
    having = next((one for one in seen if Generation.NEXT in one.certificates), None)
    if having is None:
        current = await open_on_hosts(run, Generation.CURRENT)
        successor = current.succeeded(datetime.now(UTC))
        certificate, key = successor.certificate_pem, successor.bare_key()
    else:
        (read,) = await having.host.run(authorities.read_key_command(having.pair, Generation.NEXT))
        certificate, key = having.certificates[Generation.NEXT], read.stdout.encode()
    backup = run.inventory.paths.backups / run.backup
    commands = {
        one.host.name: authorities.write_successor_commands(
            one.pair, certificate.decode(), key.decode(), backup
        )
        for one in seen
    }
    results = await together(one.host.run(*commands[one.host.name], changes=True) for one in seen)
    await see_authorities(run)
    return any(files.parse_change(result) for batch in results for result in batch)


async def exchange_on_hosts(run: Run, incoming: Generation) -> bool:
    """Let another authority sign on every host that has a key, on one after the other.

    A host on which it does so already is left alone. The one that signed is kept beside it.
    """
    seen, changed = await _see_hosts(run, all_of_them=True), False
    known = _note(run, seen)
    if incoming not in known:
        return False
    target = read_certificate(known[incoming]).fingerprint
    for one in seen:
        changed |= await _let_sign(one, target)
    await see_authorities(run)
    return changed


async def retire_on_hosts(run: Run) -> bool:
    """Move the authority that nobody trusts any more from the hosts' directory to the backups.

    A host on which it still signs, because an exchange was interrupted and taken back, is brought
    along first.
    """
    seen = await _see_hosts(run, all_of_them=True)
    target = read_certificate(_note(run, seen)[Generation.CURRENT]).fingerprint
    for one in seen:
        await _let_sign(one, target)
    backup = run.inventory.paths.backups / run.backup
    results = await together(
        one.host.run(
            *(authorities.retire_command(one.pair, each, backup) for each in OTHERS), changes=True
        )
        for one in seen
    )
    await see_authorities(run)
    return any(files.parse_change(result) for batch in results for result in batch)


async def _let_sign(one: HostAuthority, target: str) -> bool:
    names = one.fingerprints
    if names[Generation.CURRENT] == target:
        return False
    incoming = next((g for g in OTHERS if names.get(g) == target), None)
    if incoming is None:
        raise AuthorityRefused(
            f"{one.host}: authority {target[:12]} is not there; copy its certificate and key from "
            f"another host, as {generation_files(one.pair, Generation.NEXT)[1].name}"
        )
    outgoing = next(g for g in OTHERS if g is not incoming)
    old, new = one.certificates[Generation.CURRENT], one.certificates[incoming]
    await one.host.run(
        authorities.exchange_command(
            one.pair, incoming, outgoing, old.decode(), (new + old).decode()
        ),
        changes=True,
    )
    return True


async def _see_hosts(run: Run, *, all_of_them: bool = False) -> tuple[HostAuthority, ...]:
    """See what each host has; those that have no key are left out.

    Those that cannot be reached are left out too, but where `all_of_them` are about to change.
    """
    reasons: list[str] = []

    async def see(host: HostConnection, pair: Pair) -> HostAuthority | None:
        try:
            answers = await host.run(*authorities.see_authority_commands(pair))
        except RunbookError as error:
            if all_of_them:
                raise
            reasons.append(str(error))
            return None
        told = authorities.parse_authority(tuple(answers))
        found = _match(told)
        if Generation.CURRENT in found:
            return HostAuthority(host, pair, found, _certificates(told[Generation.CURRENT][0]))
        reasons.append(f"{host}: {pair.key} is not there, or not the key of {pair.certificate}")
        return None

    pairs = {name: run.inventory.layout(name).authority for name in run.hosts}
    asked = [see(run.hosts[name], pair) for name, pair in pairs.items() if pair is not None]
    seen = tuple(one for one in await together(asked) if one is not None)
    if not seen:
        listed = "\n  - ".join(reasons)
        raise AuthorityRefused(
            f"no host of {run.inventory.name} gives the authority's key, without which nothing can "
            f"be signed:\n  - {listed}\nwhere it is an external authority, put its certificate and "
            "key on the runner, and name them and a passphrase under `authority` in the inventory"
        )
    return seen


def _certificates(text: str) -> tuple[bytes, ...]:
    return tuple(pem.strip().encode() + b"\n" for pem in CERTIFICATE.findall(text))


def _match(found: dict[Generation, tuple[str, str]]) -> dict[Generation, bytes]:
    """Find the certificate that belongs to each key; a copy of the current one does not count."""
    matched: dict[Generation, bytes] = {}
    for generation, (text, public) in found.items():
        for pem in _certificates(text):
            with contextlib.suppress(CertificateRefused):
                if read_certificate(pem).public_key_pem.split() == public.encode().split():
                    matched[generation] = pem
                    break
    current = matched.get(Generation.CURRENT)
    return {
        generation: pem
        for generation, pem in matched.items()
        if generation is Generation.CURRENT or pem != current
    }
