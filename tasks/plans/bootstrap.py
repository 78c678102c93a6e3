"""Bootstrap: from bare hosts, or from wherever an earlier run stopped, to a running cluster.

Data is never touched. A host whose data directory holds anything takes part only when its
etcd.conf is this very cluster's; otherwise the whole run is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.model.certificates import Role
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.observation import (
    DataDirectory,
    Directory,
    FileState,
    HostObservation,
    HostTarget,
    ServiceState,
)
from tasks.model.plan import Plan, Stage, Step
from tasks.model.settings import InstalledBinaries

AUTHORITY = Stage(1, "on the runner")
STATE_MODE = "0700"
PREPARE = Stage(2, "prepare, all hosts at once")
START = Stage(3, "start, all at once")

NO_UPGRADE = (
    "the inventory wants {0.etcd.version}: bootstrap_cluster neither upgrades nor downgrades a "
    "member. upgrade_cluster does; else write the version that runs into etcd.version (and its "
    "binaries)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeAuthority(Step):
    """Make the certificate authority on the runner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeAccount(Step):
    """Make the system accounts that etcd runs as, and that its files belong to."""

    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPrograms(Step):
    """Upload etcd's programs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDirectories(Step):
    """Make directories with their owners: those that are named, or our own layout's.

    Of the latter, `own` are those of the account's that are neither the state's nor in it.
    """

    directories: tuple[Directory, ...] = ()
    own: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueCertificates(Step):
    """Make keys on the host, sign for them, install the pairs and the trusted authority.

    `like` is the trusted file of the member that this one is made like: whose it is, and its mode.
    """

    roles: tuple[Role, ...]
    like: FileState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteConfiguration(Step):
    """Write etcd.conf and the unit where they differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartMember(Step):
    """Enable and start etcd without waiting for quorum."""


def plan_bootstrap(
    inventory: Inventory,
    observed: tuple[HostObservation, ...],
    targets: tuple[HostTarget, ...],
    *,
    authority_exists: bool,
    health: ClusterHealth | None,
    warnings: tuple[str, ...] = (),
) -> Plan:
    """Plan the missing steps of every host; raises Refused for data that is not this cluster's.

    `health` is the live members' answer where any member runs, so that a member that has joined
    and lost its data is not started as new.
    """
    by_name = {target.host: target for target in targets}
    reasons = [
        reason
        for host in observed
        for reason in _other_program(inventory, host)
        or _reasons_against(inventory, host, by_name[host.host], health)
    ]
    if not authority_exists:
        reasons += [
            f"{host.host}: trusts an authority already ({inventory.layout(host.host).trusted}), "
            "but the "
            f"runner has none at {inventory.authority.certificate}; put that authority's "
            "certificate and key there, or move the host's files away"
            for host in observed
            if host.authority is not None
        ]
    reasons += find_other_versions(inventory, health)
    if reasons:
        raise Refused(f"{inventory.name} cannot be bootstrapped:\n  - " + "\n  - ".join(reasons))
    steps: list[Step] = []
    if not authority_exists:
        steps.append(
            MakeAuthority(
                stage=AUTHORITY,
                host=None,
                sentence=f"make the authority '{inventory.certificates.authority.common_name}' "
                f"({inventory.certificates.authority.key}) at {inventory.authority.certificate}, "
                "its key encrypted",
            )
        )
    for host in observed:
        steps += _host_steps(inventory, host, by_name[host.host])
    count = len(inventory.hosts)
    goal = f"{count} healthy etcd {inventory.etcd.version} member(s) with mutual TLS"
    return Plan("bootstrap_cluster", inventory.name, goal, tuple(steps), warnings)


def find_other_versions(inventory: Inventory, health: ClusterHealth | None) -> list[str]:
    """Say for each running member of another version that this is no upgrade, and the way out."""
    return [
        f"{endpoint.name}: etcd {endpoint.status.version} runs, and {NO_UPGRADE.format(inventory)}"
        for endpoint in (health.endpoints if health else ())
        if endpoint.status and endpoint.status.version != inventory.etcd.version
    ]


def _other_program(inventory: Inventory, host: HostObservation) -> list[str]:
    """Refuse to put another version under data: etcd never starts below its cluster's version."""
    there = next((p.version for p in host.programs if p.name == "etcd"), None)
    if host.data is not DataDirectory.INITIALISED or there in (None, inventory.etcd.version):
        return []
    return [
        f"{host.host}: {inventory.layout(host.host).binaries}/etcd is {there} and has data, and "
        + NO_UPGRADE.format(inventory)
    ]


def _reasons_against(
    inventory: Inventory, host: HostObservation, target: HostTarget, health: ClusterHealth | None
) -> list[str]:
    if host.data is not DataDirectory.INITIALISED:
        joined = {
            m.name for e in (health.endpoints if health else ()) for m in e.members if m.client_urls
        }
        if inventory.layout(host.host).member in joined:
            return [
                f"{host.host}: has been a member and has no data any more; "
                "bootstrap_cluster does not replace members"
            ]
    if host.data not in (DataDirectory.LEFTOVERS, DataDirectory.INITIALISED):
        return []
    layout = inventory.layout(host.host)
    holds = f"{host.host}: {layout.data} holds data"
    if host.configuration is None:
        return [f"{holds} of an etcd that this inventory does not know; move it away first"]
    foreign = [
        f"{key} is {have or 'missing'}, not {want}"
        for key, (have, want) in target.configuration_identity.items()
        if have != want
    ]
    if foreign:
        return [f"{holds} of another cluster ({'; '.join(foreign)}); it is left alone"]
    if host.data is DataDirectory.INITIALISED:
        differing = [
            what
            for what, have, want in (
                (str(layout.configuration), host.configuration.text, target.configuration),
                (str(layout.unit), host.unit and host.unit.text, target.unit),
                (
                    str(layout.trusted),
                    host.authority and host.authority.text,
                    target.authority,
                ),
            )
            if have is not None and want is not None and have != want
        ]
        if differing:
            return [
                f"{holds} and is bootstrapped already; {' and '.join(differing)} differ from the "
                "inventory, and bootstrap_cluster does not reconfigure a member"
            ]
    return []


def preparation_steps(
    inventory: Inventory, host: HostObservation, target: HostTarget, stage: Stage
) -> list[Step]:
    """Plan what a host lacks before etcd.conf and the start: all that may be done early."""
    steps: list[Step] = []
    etcd, layout = inventory.etcd, inventory.layout(host.host)
    prepare = {"stage": stage, "host": host.host}

    def add(kind: type[Step], sentence: str, **more: object) -> None:
        steps.append(kind(**prepare, sentence=sentence, **more))  # type: ignore[arg-type]

    likeness = target.likeness
    accounts = likeness.accounts if likeness else inventory.accounts(host.host)
    # Whether there are other owners of certificates is not seen; a host that has some has those.
    is_bare = not any(pair.certificate for pair in host.leaves.values())
    has_all = not accounts if likeness else host.account_uid is not None
    if not has_all or (not likeness and is_bare and set(accounts) - {etcd.run_as}):
        plural = "s" if len(accounts) > 1 else ""
        said = f"make the system account{plural} {', '.join(accounts)}"
        add(MakeAccount, said, accounts=accounts)
    have = {program.name: program.sha256 for program in host.programs}
    missing = [p for p, digest in target.program_sums.items() if have.get(p) != digest]
    if missing and not isinstance(etcd.binaries, InstalledBinaries):
        add(InstallPrograms, f"install {', '.join(missing)} {etcd.version} in {layout.binaries}")
    if likeness and likeness.directories:
        said = f"make {', '.join(each.path for each in likeness.directories)}"
        add(MakeDirectories, f"{said} as on {likeness.model}", directories=likeness.directories)
    elif not likeness and _directories_differ(inventory, host):
        own = own_directories(inventory, host)
        made = ", ".join((str(layout.state), *own))
        add(MakeDirectories, f"make {made} and {inventory.paths.certificates}", own=own)
    roles = tuple(role for role, why in target.leaf_differences.items() if why)
    trust_differs = host.authority is None or (
        trusts_others(host, target.authority)
        if likeness
        else host.authority.text != target.authority or host.authority.mode != "0644"
    )
    if roles or trust_differs:
        why = "; ".join(f"{role}: {', '.join(target.leaf_differences[role])}" for role in roles)
        what = f"issue certificates ({why})" if roles else "install the trusted authority"
        where = dict.fromkeys(str(pair.certificate.parent) for pair in layout.pairs)
        like = likeness.trusted if likeness else None
        add(IssueCertificates, f"{what} in {', '.join(where)}", roles=roles, like=like)
    return steps


def trusts_others(host: HostObservation, authority: str | None) -> bool:
    """Whether a host's trusted file holds other certificates, whatever stands between them."""
    return host.authority is not None and _blocks(host.authority.text) != _blocks(authority)


def _blocks(text: str | None) -> set[str]:
    found = re.findall(r"-----BEGIN CERTIFICATE-----(.*?)-----END", text or "", re.DOTALL)
    return {"".join(block.split()) for block in found}


def trust_text(authority: str | None, like: FileState | None) -> str | None:
    """Say what a member trusts that is made like another one: all that this one does."""
    if like is None or like.text is None or not _blocks(authority) <= _blocks(like.text):
        return authority
    return like.text


def _host_steps(inventory: Inventory, host: HostObservation, target: HostTarget) -> list[Step]:
    steps = preparation_steps(inventory, host, target, PREPARE)
    layout, name = inventory.layout(host.host), host.host
    unit, configuration = host.unit, host.configuration
    texts = [
        str(path)
        for path, file, want in (
            (layout.configuration, configuration, target.configuration),
            (layout.unit, unit, target.unit),
        )
        if file is None or file.text != want or file.mode != "0644"
    ]
    service = host.service
    if texts or (service is not None and service.needs_daemon_reload):
        sentence = f"write {' and '.join(texts)}" if texts else "let systemd read the unit again"
        steps.append(WriteConfiguration(stage=PREPARE, host=name, sentence=sentence))
    running = service is not None and service.state in (
        ServiceState.ACTIVE,
        ServiceState.ACTIVATING,
    )
    if service is None or not running or not service.is_enabled:
        steps.append(
            StartMember(stage=START, host=name, sentence=f"enable and start {layout.service}")
        )
    return steps


def _directories_differ(inventory: Inventory, host: HostObservation) -> bool:
    group = host.account_group or inventory.etcd.run_as
    return (
        host.state_mode != state_mode(inventory, group)
        or host.certificates_mode != certificates_mode(group)
        or bool(own_directories(inventory, host))
    )


def own_directories(inventory: Inventory, host: HostObservation) -> tuple[str, ...]:
    """List directories that etcd's account is to have and has not, beside the state's.

    A data directory that is no part of the state's, and where the log's directory is made: the
    root of a file system of its own, as long as nobody has anything there.
    """
    layout = inventory.layout(host.host)
    data = () if layout.data in (layout.state, layout.state / "default.etcd") else (layout.data,)
    log = () if layout.wal is None or layout.wal.parent == layout.state else (layout.wal.parent,)
    rooms = {room.path: room for room in host.rooms}
    found = []
    for path in dict.fromkeys((*data, *log)):
        room = rooms.get(str(path))
        if room is None:
            continue
        is_missing = room.directory != room.real
        is_free = room.is_empty and (room.is_mount or path in data)
        wrong = (room.mode, room.owner) != (STATE_MODE, inventory.etcd.run_as)
        if is_missing or (is_free and wrong):
            found.append(str(path))
    return tuple(found)


def state_mode(inventory: Inventory, group: str) -> str:
    """Mode and owner of the state directory, as `stat` prints them: etcd refuses wider ones."""
    return f"{STATE_MODE} {inventory.etcd.run_as} {group}"


def certificates_mode(group: str) -> str:
    """Mode and owner of the certificates' directory, as `stat` prints them."""
    return f"0750 root {group}"
