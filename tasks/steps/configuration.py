"""etcd.conf and etcd.service: validated before they replace anything, written where they differ."""

from __future__ import annotations

from tasks.config.editing import edit_addresses, edit_initial_cluster
from tasks.config.parsing import identity, parse_configuration
from tasks.config.rendering import InitialState, render_configuration, render_unit
from tasks.engine.authority import read_authority_certificate
from tasks.engine.run import Run, step
from tasks.hosts import files, services
from tasks.hosts.connection import HostConnection
from tasks.model.certificates import Role
from tasks.model.cluster import DesiredMember
from tasks.model.errors import CommandFailed
from tasks.model.inventory import Inventory
from tasks.model.observation import DataDirectory, HostObservation, HostTarget
from tasks.plans.bootstrap import WriteConfiguration
from tasks.plans.member_changes import RefreshConfiguration


def new_member_target(
    inventory: Inventory,
    member: DesiredMember,
    members: tuple[DesiredMember, ...],
    seen: HostObservation,
    program_sums: dict[str, str],
    leaf_differences: dict[Role, tuple[str, ...]],
    state: InitialState | None = None,
) -> HostTarget:
    """Render what a member shall hold; `members` is its initial cluster.

    Without a state it is a new cluster's, unless the host has joined a running one before.
    """
    if state is None:
        state = InitialState.EXISTING if _has_joined(seen) else InitialState.NEW
    configuration = render_configuration(inventory, member, members, state)
    authority = read_authority_certificate(inventory)
    found = seen.configuration.text if seen.configuration else None
    return HostTarget(
        host=seen.host,
        unit=render_unit(inventory),
        configuration=configuration,
        authority=authority.decode() if authority else None,
        program_sums=program_sums,
        leaf_differences=leaf_differences,
        configuration_identity=identity(found, configuration),
    )


def _has_joined(seen: HostObservation) -> bool:
    if seen.data is not DataDirectory.INITIALISED or seen.configuration is None:
        return False
    try:
        found = parse_configuration(seen.configuration.text or "")
    except ValueError:
        return False
    return found.get("ETCD_INITIAL_CLUSTER_STATE") == InitialState.EXISTING


@step("write configuration on {host}")
async def write_configuration(
    run: Run, host: HostConnection, _step: WriteConfiguration, targets: dict[str, HostTarget]
) -> bool:
    """Write what differs of both files; systemd reads its units again only if the unit changed.

    The unit is checked by systemd-analyze first, and each file is whole or as it was.
    """
    paths, target = run.inventory.paths, targets[host.name]
    backup = paths.backups / run.backup
    results = await host.run(
        files.write_file_command(
            paths.configuration,
            target.configuration,
            mode="0644",
            owner="root",
            group="root",
            backup=backup,
        ),
        files.write_file_command(
            paths.unit,
            target.unit,
            mode="0644",
            owner="root",
            group="root",
            backup=backup,
            validate=services.verify_unit(paths.service),
        ),
        services.daemon_reload_command(paths.service),
        changes=True,
    )
    return any(map(files.parse_change, results))


@step("write the new addresses on {host}")
async def readdress(run: Run, host: HostConnection, member: DesiredMember) -> bool:
    """Set a member's URLs in its etcd.conf; raises CommandFailed for a file that lacks them."""
    paths = run.inventory.paths
    (result,) = await host.run(files.read_file_command(paths.configuration))
    found = files.parse_file(result)
    text = edit_addresses(found.text or "", member) if found else None
    if found is None or text is None:
        raise CommandFailed(
            host.name, f"edit {paths.configuration}", 1, "it does not set the member's URLs"
        )
    (written,) = await host.run(
        files.rewrite_file_command(
            paths.configuration, found, text, backup=paths.backups / run.backup
        ),
        changes=True,
    )
    return files.parse_change(written)


@step("bring etcd.conf up to date on {host}")
async def refresh_configuration(
    run: Run, host: HostConnection, _step: RefreshConfiguration, members: tuple[DesiredMember, ...]
) -> bool:
    """Name the members in ETCD_INITIAL_CLUSTER and leave the rest of the file; no restart.

    Etcd reads it at a first start only. Whether it changed; a file that does not set it stays.
    """
    paths = run.inventory.paths
    (result,) = await host.run(files.read_file_command(paths.configuration))
    found = files.parse_file(result)
    text = edit_initial_cluster(found.text or "", members) if found else None
    if found is None or text is None:
        return False
    (written,) = await host.run(
        files.rewrite_file_command(
            paths.configuration, found, text, backup=paths.backups / run.backup
        ),
        changes=True,
    )
    return files.parse_change(written)
