"""Leaf certificates: keys born on the host, requests checked and signed here, pairs installed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from tasks.engine.authority import signing_authority, trust_bundle
from tasks.engine.run import Run, step
from tasks.hosts import clients, files, leaves, rooms, served, system
from tasks.hosts.batch import Command
from tasks.hosts.connection import HostConnection, now
from tasks.hosts.supervisors import supervisor
from tasks.model.certificates import FileAccess, Role
from tasks.model.clients import Client
from tasks.model.errors import CertificateRefused, RunbookError
from tasks.model.inventory import Inventory
from tasks.model.layout import Pair
from tasks.model.members import DesiredMember
from tasks.model.observation import HostObservation, LeafFiles, PairsObservation
from tasks.model.urls import split_url
from tasks.pki.inspect import find_differences, read_certificate
from tasks.pki.leaf import WantedLeaf
from tasks.pki.requests import openssl_key_command, openssl_request_config
from tasks.pki.targets import LeafTarget, member_targets, wanted_leaves
from tasks.plans.bootstrap import IssueCertificates, trust_text
from tasks.plans.leaves import StageLeaves, SwapLeaves

RENEW_BEFORE = timedelta(days=1)
"""Bootstrap reissues only what is about to expire; renewing in time is another runbook's work."""
SERVED_SECONDS = 10.0
DISCARD_SECONDS = 5.0
PEER_DELAYS_SECONDS = (0.0, 1.0, 3.0)
"""A host that is busy may not answer in time; one that rejects does so each time."""


def leaf_differences(
    inventory: Inventory, member: DesiredMember, seen: HostObservation, authority: bytes | None
) -> dict[Role, tuple[str, ...]]:
    """Say for each role why the pair on the host is not the wanted one; empty where it is."""
    wanted = wanted_leaves(inventory, inventory.host(seen.host), member)
    return {
        role: _differences(
            seen.leaves[role], want, authority, RENEW_BEFORE, _key_mode(inventory, seen.host, role)
        )
        for role, want in wanted.items()
    }


def pair_differences(
    inventory: Inventory, target: LeafTarget, seen: LeafFiles, authority: bytes, *, early: bool
) -> tuple[str, ...]:
    """Say why a pair is to be replaced: what differs, or that it is about to end.

    `early` takes the inventory's warning for that, otherwise only a day is left.
    """
    renew_before = RENEW_BEFORE
    if early and seen.certificate and seen.certificate.text:
        try:
            facts = read_certificate(seen.certificate.text)
            renew_before = inventory.expiry.warn_before(facts.not_after - facts.not_before)
        except CertificateRefused:
            pass  # find_differences says so
    return _differences(seen, target.want, authority, renew_before, target.key_mode)


def _key_mode(inventory: Inventory, host: str, role: Role) -> str:
    role = inventory.layout(host).pair(role).roles[0]
    return (inventory.leaf_policy(host, role).access or FileAccess()).key_mode


def _differences(
    seen: LeafFiles,
    want: WantedLeaf,
    authority: bytes | None,
    renew_before: timedelta,
    key_mode: str,
) -> tuple[str, ...]:
    text = seen.certificate.text if seen.certificate else None
    found = find_differences(
        text, want, authority, seen.key_public, datetime.now(UTC), renew_before
    )
    if not found and seen.key and seen.key.mode != key_mode:
        return (f"its key has mode {seen.key.mode}, not {key_mode}",)
    return found


@step("look at the pairs on {host}", retry_delays_seconds=(1.0,))
async def observe_pairs(
    run: Run,
    host: HostConnection,
    name: str,
    pairs: tuple[Pair, ...],
    trusted: PurePosixPath,
    member: DesiredMember | None,
    *,
    only_looks: bool = False,
    with_settings: bool = False,
) -> PairsObservation:
    """See the pairs of a host or a client, what it trusts, and what its member serves.

    Whether their places take files is tried, by writing one, unless it `only_looks`.
    """
    inventory = run.inventory
    own = supervisor(inventory.layout(host.name))
    commands = {
        "service": own.status_command(),
        "account": system.account_command(inventory.etcd.run_as),
        "trusted": files.read_file_command(trusted),
        "pending": clients.pending_command(name),
    }
    if not only_looks:
        places = [trusted, *(path for pair in pairs for path in (pair.certificate, pair.key))]
        commands["rooms"] = rooms.rooms_command((*places, inventory.paths.backups))
    if with_settings:
        commands["settings"] = own.settings_command()
    for pair in pairs:
        commands[f"{pair.label} certificate"] = files.read_file_command(pair.certificate)
        commands[f"{pair.label} key"] = files.read_file_command(pair.key, with_text=False)
        commands[f"{pair.label} public"] = leaves.key_public_command(pair.key)
    ports = _ports(member) if member else {}
    for port, address in ports.items():
        commands[f"port {port}"] = served.served_command(address, port)
    sent = now()
    batch = await host.run(*commands.values(), keep_going=True)
    received = now()
    seen = dict(zip(commands, batch, strict=True))
    offset, uncertainty = batch.clock_offset(sent, received)
    settings = seen.get("settings")
    return PairsObservation(
        host=name,
        clock_offset=offset,
        clock_uncertainty=uncertainty,
        service=own.parse_status(seen["service"]),
        trusted=files.parse_file(seen["trusted"]),
        group=system.parse_account(seen["account"])[1],
        pairs={
            pair.label: LeafFiles(
                files.parse_file(seen[f"{pair.label} certificate"]),
                files.parse_file(seen[f"{pair.label} key"], with_text=False),
                leaves.parse_key_public(seen[f"{pair.label} public"]),
            )
            for pair in pairs
        },
        served={port: served.parse_served(seen[f"port {port}"]) for port in ports},
        has_pending_change=clients.parse_pending(seen["pending"]),
        rooms=() if only_looks else rooms.parse_rooms(seen["rooms"]),
        settings=own.parse_settings(settings) if settings and not settings.status else None,
    )


def _ports(member: DesiredMember) -> dict[int, str]:
    """Say at which address each port is, the clients' first."""
    ends = (split_url(url) for url in (member.client_url, member.peer_url))
    return {port: address for address, port in ends}


@step("issue certificates on {host}")
async def issue_certificates(
    run: Run, host: HostConnection, planned: IssueCertificates, members: dict[str, DesiredMember]
) -> bool:
    """Make new keys on the host, sign their requests, install the pairs and the authority.

    The authority is opened for the signing alone. Raises CertificateRefused when a request is
    not what the plan says. A pair that was replaced is kept aside on the host; on failure a pair
    is the old one or the new one.
    """
    inventory, account, like = run.inventory, run.inventory.etcd.run_as, planned.like
    (found,) = await host.run(system.account_command(account))
    group = system.parse_account(found)[1] or account
    targets = [
        target
        for target in member_targets(inventory, members[host.name], group).values()
        if set(target.pair.roles) & set(planned.roles)
    ]
    staging = await _signed(run, host, targets)
    backup = inventory.paths.backups / run.backup
    await host.run(
        *(
            files.write_file_command(
                path,
                trust_text(trust_bundle(run).decode(), like) or "",
                mode=like.mode if like else "0644",
                owner=like.owner if like else "root",
                group=like.group if like else group,
                backup=backup,
                keeps_access=like is not None,
            )
            for path in inventory.layout(host.name).trusted_files
        ),
        *staging,
        *_swaps(targets, backup),
        changes=True,
    )
    return True


@step("make and sign pairs on {host}")
async def stage_leaves(
    run: Run, host: HostConnection, planned: StageLeaves, targets: dict[str, dict[str, LeafTarget]]
) -> bool:
    """Make new keys on the host, sign their requests, and put both beside the live pairs.

    Raises CertificateRefused when a request is not what the plan says. Nothing live is touched; a
    client that has nothing yet gets its directories, and what it trusts.
    """
    chosen = [targets[planned.name][label] for label in planned.labels]
    client = _find_client(run, planned.name)
    if client is not None:
        await host.run(*await _places(run, host, client, chosen), changes=True)
    await host.run(*await _signed(run, host, chosen), changes=True)
    return True


@step("swap pairs on {host}", retry_delays_seconds=())
async def swap_leaves(
    run: Run, host: HostConnection, planned: SwapLeaves, targets: dict[str, dict[str, LeafTarget]]
) -> bool:
    """Put the staged pairs in place of the live ones; a client is told afterwards.

    What is replaced is kept aside on the host. On failure each pair is the old one or the new one.
    Not tried again by itself: a second swap would find nothing staged.
    """
    chosen = [targets[planned.name][label] for label in planned.labels]
    commands = _swaps(chosen, run.inventory.paths.backups / run.backup)
    client = _find_client(run, planned.name)
    if client is not None:
        commands = [
            clients.mark_pending_command(client.name),
            *commands,
            clients.tell_command(client.name, client.after_change),
        ]
    await host.run(*commands, changes=True)
    return True


def _find_client(run: Run, name: str) -> Client | None:
    return next((client for client in run.inventory.clients if client.name == name), None)


async def _places(
    run: Run, host: HostConnection, client: Client, targets: list[LeafTarget]
) -> list[Command]:
    """Make the directories of a client's files, and what it trusts where it has no such file."""
    paths = [path for t in targets for path in (t.pair.certificate, t.pair.key)]
    commands = [clients.places_command(paths)]
    if client.trusted is None:
        return commands
    (seen,) = await host.run(files.read_file_command(client.trusted, with_text=False))
    if files.parse_file(seen, with_text=False) is None:
        commands.append(
            files.write_file_command(
                client.trusted,
                trust_bundle(run).decode(),
                mode="0644",
                owner=client.owner,
                group=client.group,
                backup=run.inventory.paths.backups / run.backup,
            )
        )
    return commands


async def _signed(run: Run, host: HostConnection, targets: list[LeafTarget]) -> list[Command]:
    """Make keys and requests on the host and sign them; returns the commands that stage them.

    What is staged is taken away at the end of a run that failed, on whichever host it did.
    """
    requests = [
        leaves.request_leaf_command(
            target.pair.key,
            openssl_key_command(target.want.key),
            openssl_request_config(target.want),
        )
        for target in targets
    ]
    if not requests:
        return []
    pairs = [(target.pair.certificate, target.pair.key) for target in targets]

    async def discard(_kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            with contextlib.suppress(RunbookError, TimeoutError):
                async with asyncio.timeout(DISCARD_SECONDS):
                    await host.run(leaves.discard_staged_command(pairs), changes=True)

    run.on_exit.push_async_exit(discard)
    answers = await host.run(*requests, changes=True)
    authority = await signing_authority(run)
    return [
        leaves.stage_leaf_command(
            target.pair.certificate,
            target.pair.key,
            authority.sign(leaves.parse_request(answer), target.want, datetime.now(UTC)).decode(),
            owner=target.owner,
            group=target.group,
            certificate_mode=target.certificate_mode,
            key_mode=target.key_mode,
        )
        for target, answer in zip(targets, answers, strict=True)
    ]


def _swaps(targets: Iterable[LeafTarget], backup: PurePosixPath) -> list[Command]:
    return [
        leaves.swap_leaf_command(target.pair.certificate, target.pair.key, backup=backup)
        for target in targets
    ]


@step("verify what is served on {host}")
async def verify_served(run: Run, host: HostConnection, member: DesiredMember) -> bool:
    """See that both ports present the certificates on disk; raises CertificateRefused.

    Etcd reads its files at each handshake, so there is nothing to wait for.
    """
    layout = run.inventory.layout(host.name)
    pairs = {role: layout.pair(role) for role in (Role.SERVER, Role.PEER)}
    ports = _ports(member)
    *on_disk, client_port, peer_port = await host.run(
        *(files.read_file_command(pair.certificate) for pair in pairs.values()),
        *(served.served_command(address, port) for port, address in ports.items()),
    )
    for role, disk, port, seen in zip(pairs, on_disk, ports, (client_port, peer_port), strict=True):
        file, presented = files.parse_file(disk), served.parse_served(seen)
        if file is None or file.text is None or presented is None:
            raise CertificateRefused(f"port {port} presents no certificate", host=host.name)
        wanted, found = read_certificate(file.text), read_certificate(presented)
        if wanted.fingerprint != found.fingerprint:
            raise CertificateRefused(
                f"port {port} presents serial {found.serial:x}, not {wanted.serial:x} of "
                f"{pairs[role].certificate}; what was replaced is kept under "
                f"{run.inventory.paths.backups / run.backup}",
                host=host.name,
            )
    return False


@step("reach the other members on {host}")
async def verify_peers(run: Run, host: HostConnection, members: tuple[DesiredMember, ...]) -> bool:
    """Ask every other member's peer port with this host's own pair; raises CertificateRefused.

    A bad peer pair leaves /health true on every member for a while, so it is asked here.
    """
    others = tuple(
        (member.name, *split_url(member.peer_url)) for member in members if member.name != host.name
    )
    if not others:
        return False
    layout = run.inventory.layout(host.name)
    pair = layout.pair(Role.PEER)
    ask = served.peers_command(pair.certificate, pair.key, layout.peer_trusted, others)
    for delay in PEER_DELAYS_SECONDS:
        await asyncio.sleep(delay)
        (result,) = await host.run(ask)
        met = served.parse_peers(result)
        refused = [f"{name} ({said})" for name, said in met.items() if said is not None]
        if not refused and len(met) == len(others):
            break
    else:
        raise CertificateRefused(
            f"does not reach the peer port of {', '.join(refused) or 'the others'} with its own "
            "certificate",
            host=host.name,
        )
    return False
