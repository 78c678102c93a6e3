"""Seeing what is: each host in one round trip, and the ways between the hosts."""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tasks.engine.run import Run, step, together
from tasks.hosts import files, leaves, rooms, sessions, system
from tasks.hosts.connection import HostConnection, now
from tasks.hosts.supervisors import supervisor
from tasks.model.certificates import Role
from tasks.model.errors import Refused, RunbookError, Transient
from tasks.model.fields import is_ip_address
from tasks.model.inventory import Inventory
from tasks.model.machines import Host
from tasks.model.members import DesiredMember
from tasks.model.observation import HostObservation, LeafFiles, Path, Reachability
from tasks.model.plan import Finding, Severity
from tasks.model.urls import split_url
from tasks.plans.addresses import desired_member
from tasks.plans.preflight import find_reasons

PROGRAMS = ("etcd", "etcdctl", "etcdutl")
LISTENER_SECONDS = 10.0
RESOLVE_SECONDS = 3.0


@step("observe {host}", retry_delays_seconds=(1.0,))
async def observe_host(run: Run, host: HostConnection) -> HostObservation:
    """See everything about one host that a plan or preflight asks; changes nothing.

    The disk probe writes and removes one small file beside the data directory.
    """
    inventory = run.inventory
    paths, layout = inventory.paths, inventory.layout(host.name)
    own = supervisor(layout)
    commands = {
        "system": system.system_command(),
        "addresses": system.addresses_command(),
        "listeners": system.listeners_command(own.group),
        "disk": system.disk_command(layout.data),
        "programs": system.programs_command(layout.binaries, PROGRAMS),
        "account": system.account_command(inventory.etcd.run_as),
        "data": system.data_directory_command(layout.state, layout.data, layout.wal),
        "certificates": files.directory_mode_command(paths.certificates),
        "resolve": system.resolve_command(_names(inventory)),
        "service": own.status_command(),
        "unit": files.read_file_command(layout.unit),
        "configuration": files.read_file_command(layout.configuration),
        "authority": files.read_file_command(layout.trusted),
        "settings": own.settings_command(),
        "rooms": rooms.rooms_command((*layout.places, paths.backups)),
    }
    for role in Role:
        pair = layout.pair(role)
        commands[f"{role} certificate"] = files.read_file_command(pair.certificate)
        commands[f"{role} key"] = files.read_file_command(pair.key, with_text=False)
        commands[f"{role} public"] = leaves.key_public_command(pair.key)
    sent = now()
    batch = await host.run(*commands.values(), keep_going=True)
    received = now()
    seen = dict(zip(commands, batch, strict=True))
    machine = system.parse_system(seen["system"])
    detected, addresses = system.parse_addresses(seen["addresses"])
    free, fsync = system.parse_disk(seen["disk"])
    uid, group = system.parse_account(seen["account"])
    state_mode, data = system.parse_data_directory(seen["data"])
    offset, uncertainty = batch.clock_offset(sent, received)
    return HostObservation(
        host=host.name,
        hostname=machine.hostname,
        operating_system=machine.operating_system,
        architecture=machine.architecture,
        systemd_version=machine.systemd_version,
        clock_offset=offset,
        clock_uncertainty=uncertainty,
        detected_address=detected,
        addresses=addresses,
        missing_tools=machine.missing_tools,
        disk_free=free,
        fsync_mean=fsync,
        listeners=system.parse_listeners(seen["listeners"]),
        programs=system.parse_programs(seen["programs"]),
        account_uid=uid,
        account_group=group,
        data=data,
        state_mode=state_mode,
        resolved=system.parse_resolved(seen["resolve"]),
        service=own.parse_status(seen["service"]),
        unit=files.parse_file(seen["unit"]),
        configuration=files.parse_file(seen["configuration"]),
        authority=files.parse_file(seen["authority"]),
        leaves={
            role: LeafFiles(
                files.parse_file(seen[f"{role} certificate"]),
                files.parse_file(seen[f"{role} key"], with_text=False),
                leaves.parse_key_public(seen[f"{role} public"]),
            )
            for role in Role
        },
        certificates_mode=files.parse_directory_mode(seen["certificates"]),
        settings=own.parse_settings(seen["settings"]),
        rooms=rooms.parse_rooms(seen["rooms"]),
    )


def _names(inventory: Inventory) -> tuple[str, ...]:
    named = [host.name for host in inventory.hosts]
    extra = [*inventory.extra_sans, *(san for host in inventory.hosts for san in host.extra_sans)]
    extra += [a for h in inventory.hosts for a in (h.peer_address, h.client_address) if a]
    return tuple(dict.fromkeys([*named, *(san for san in extra if not is_ip_address(san))]))


@step("reach every member's ports")
async def probe_paths(
    run: Run, observed: tuple[HostObservation, ...], members: tuple[DesiredMember, ...]
) -> tuple[Path, ...]:
    """Connect from every host to every other's peer and client port.

    Where nothing listens yet a listener answers for these few seconds (systemd-socket-activate),
    since a refused connection does not tell a free port from a firewall.
    """
    targets = [
        (member.name, *split_url(url))
        for member in members
        for url in (member.peer_url, member.client_url)
    ]
    async with AsyncExitStack() as stack:

        async def listen(seen: HostObservation) -> None:
            taken = {listener.port for listener in seen.listeners}
            layout = run.inventory.layout(seen.host)
            free = tuple({layout.peer_port, layout.client_port} - taken)
            if free:
                script = sessions.listener_session(seen.host, free)
                session = await stack.enter_async_context(run.hosts[seen.host].hold(script))
                await session.read_line(LISTENER_SECONDS)

        async def dial(seen: HostObservation) -> list[Path]:
            others = tuple(target for target in targets if target[0] != seen.host)
            if not others:
                return []
            (result,) = await run.hosts[seen.host].run(sessions.dial_command(others))
            met = sessions.parse_dials(result)
            return [
                Path(seen.host, name, address, port, met.get((name, port), Reachability.TIMED_OUT))
                for name, address, port in others
            ]

        await asyncio.gather(*map(listen, observed))
        found = await asyncio.gather(*map(dial, observed))
    return tuple(path for paths in found for path in paths)


@step("see from where {host} reaches the others", retry_delays_seconds=(1.0,))
async def find_sources(
    _run: Run, host: HostConnection, addresses: tuple[str, ...]
) -> dict[str, str]:
    """Tell from which of its own addresses a host reaches each of others."""
    (result,) = await host.run(system.sources_command(addresses))
    return system.parse_sources(result)


@dataclass(frozen=True, slots=True)
class Examination:
    """What was seen of all hosts, the members that it makes, and every finding."""

    observed: tuple[HostObservation, ...]
    members: tuple[DesiredMember, ...]
    findings: tuple[Finding, ...]


async def examine_hosts(run: Run) -> Examination:
    """Observe every host at once, probe the ways between them, and judge it all together.

    A host that cannot be seen is a finding like any other; its way is not probed.
    """
    outcomes = await asyncio.gather(
        *(observe_host(run, host) for host in run.hosts.values()), return_exceptions=True
    )
    observed = []
    problems: list[RunbookError] = []
    for outcome in outcomes:
        if isinstance(outcome, HostObservation):
            observed.append(outcome)
        elif isinstance(outcome, RunbookError):
            problems.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
    members: list[DesiredMember] = []
    for seen in observed:
        try:
            members.append(
                desired_member(run.inventory, run.inventory.host(seen.host), seen.detected_address)
            )
        except Refused as error:
            problems.append(error)
    paths = await probe_paths(run, tuple(observed), tuple(members))
    unseen = tuple(Finding(Severity.REFUSAL, p.host, p.message) for p in problems)
    findings = unseen + find_reasons(run.inventory, tuple(observed), paths)
    return Examination(tuple(observed), tuple(members), findings)


@step("detect the address of {host}", retry_delays_seconds=(0.5,))
async def detect_address(_run: Run, host: HostConnection) -> str | None:
    """Detect the default route's address, as the procedures do; None without a route."""
    (result,) = await host.run(system.addresses_command())
    return system.parse_addresses(result)[0]


async def locate_members(run: Run) -> tuple[tuple[DesiredMember, ...], frozenset[str]]:
    """Get the members that the inventory names; only hosts without an address are asked.

    Of one that cannot be asked the address is what its name resolves to here, or the name itself;
    those are named, since the host may tell its members another one.
    """
    guessed: set[str] = set()

    async def locate(host: Host) -> DesiredMember:
        if host.fixed_address or (host.peer_address and host.client_address):
            return desired_member(run.inventory, host, None)
        try:
            return desired_member(
                run.inventory, host, await detect_address(run, run.hosts[host.name])
            )
        except Transient:
            guessed.add(host.name)
            address = await _resolve(host.ssh_address) or host.ssh_address
            return desired_member(run.inventory, host, address)

    members = await together(map(locate, run.inventory.hosts))
    return members, frozenset(guessed)


async def _resolve(name: str) -> str | None:
    """Resolve a host's name on the runner; None where it has no address but the runner's own."""
    if is_ip_address(name):
        return name
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(name, None)
    except (OSError, TimeoutError):
        return None
    addresses = [str(entry[4][0]) for entry in found]
    return next((a for a in addresses if not ipaddress.ip_address(a).is_loopback), None)
