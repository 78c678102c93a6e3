"""etcd.conf and etcd.service: validated before they replace anything, written where they differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath

from tasks.config import editing
from tasks.config.launch import NotUnderstood
from tasks.config.parsing import identity, parse_configuration
from tasks.config.rendering import InitialState, render_configuration, render_unit
from tasks.config.settings import changed_files
from tasks.engine.authority import read_authority_certificate
from tasks.engine.run import Run, step
from tasks.hosts import files
from tasks.hosts.batch import Command
from tasks.hosts.connection import HostConnection
from tasks.hosts.supervisors import supervisor
from tasks.model.certificates import Role
from tasks.model.errors import CommandFailed
from tasks.model.inventory import Inventory
from tasks.model.member_settings import SettingsFiles, TextFile
from tasks.model.members import DesiredMember
from tasks.model.observation import DataDirectory, HostObservation, HostTarget, Likeness
from tasks.plans.bootstrap import WriteConfiguration, trust_text
from tasks.plans.member_changes import RefreshConfiguration


def kept_target(
    inventory: Inventory,
    seen: HostObservation,
    program_sums: dict[str, str],
    leaf_differences: dict[Role, tuple[str, ...]],
    likeness: Likeness | None = None,
) -> HostTarget:
    """Say what a member shall hold whose unit and settings stay, or are made like another one's."""
    authority = read_authority_certificate(inventory)
    return HostTarget(
        host=seen.host,
        unit="",
        configuration="",
        authority=trust_text(
            authority.decode() if authority else None, likeness.trusted if likeness else None
        ),
        program_sums=program_sums,
        leaf_differences=leaf_differences,
        likeness=likeness,
    )


def new_member_target(
    inventory: Inventory,
    member: DesiredMember,
    members: tuple[DesiredMember, ...],
    seen: HostObservation,
    program_sums: dict[str, str],
    leaf_differences: dict[Role, tuple[str, ...]],
    state: InitialState | None = None,
    likeness: Likeness | None = None,
) -> HostTarget:
    """Say what a member shall hold, rendered unless it is made like another one.

    `members` is its initial cluster. Without a state it is a new cluster's, unless the host has
    joined a running one before.
    """
    if state is None:
        state = InitialState.EXISTING if _has_joined(seen) else InitialState.NEW
    target = kept_target(inventory, seen, program_sums, leaf_differences, likeness)
    if likeness is not None:
        return target
    configuration = render_configuration(inventory, member, members, state)
    found = seen.configuration.text if seen.configuration else None
    return replace(
        target,
        unit=render_unit(inventory, group=seen.account_group),
        configuration=configuration,
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
    """Write what differs of the files; systemd reads its units again only if the unit changed.

    The unit is checked by systemd-analyze first, and each file is whole or as it was.
    """
    layout, target = run.inventory.layout(host.name), targets[host.name]
    preset = (
        TextFile(str(layout.configuration), target.configuration),
        TextFile(str(layout.unit), target.unit),
    )
    return await _write(run, host, target.likeness.files if target.likeness else preset)


async def _write(run: Run, host: HostConnection, wanted: tuple[TextFile, ...]) -> bool:
    """Write files that say how a member starts, each checked before, and let that be read."""
    own = supervisor(run.inventory.layout(host.name))
    commands = [
        files.write_text_command(
            file,
            backup=run.inventory.paths.backups / run.backup,
            validate=own.verification(PurePosixPath(file.path)),
        )
        for file in wanted
    ]
    results = await host.run(*commands, own.reload_command(), changes=True)
    return any(map(files.parse_change, results))


@step("write the new addresses on {host}")
async def readdress(
    run: Run,
    host: HostConnection,
    member: DesiredMember,
    former: tuple[str, ...],
    listens: dict[str, str],
) -> bool:
    """Give a member its new address wherever its settings have the old one (`former` URLs).

    `listens` maps the old one to the new one where its URLs have names. Raises CommandFailed, with
    file and line, where that cannot be done; nothing is changed then.
    """
    return await _edit(
        run, host, partial(editing.readdress, member=member, former=former, listens=listens)
    )


@step("name the members in the settings of {host}")
async def refresh_configuration(
    run: Run, host: HostConnection, _step: RefreshConfiguration, members: tuple[DesiredMember, ...]
) -> bool:
    """Name the members in a member's settings, and leave the rest; no restart.

    Etcd reads them at a first start only. Whether they changed; raises CommandFailed, with file
    and line, where they cannot be changed.
    """
    return await _edit(run, host, partial(editing.name_members, members=members))


@step("edit the settings of {host}")
async def edit_settings(
    run: Run,
    host: HostConnection,
    edit: Callable[[SettingsFiles], SettingsFiles],
    before: Callable[[tuple[PurePosixPath, ...]], Command] | None = None,
) -> tuple[PurePosixPath, ...]:
    """Edit how a member starts, and tell which files that changed; nothing is restarted.

    `before` makes the command that is run before these files are written. Raises CommandFailed,
    with file and line, where they cannot be changed.
    """
    changed = await _edited(run, host, edit)
    paths = tuple(PurePosixPath(file.path) for file in changed)
    if changed and before is not None:
        await host.run(before(paths), changes=True)
    if changed:
        await _write(run, host, changed)
    return paths


async def _edit(
    run: Run, host: HostConnection, edit: Callable[[SettingsFiles], SettingsFiles]
) -> bool:
    """Edit what says how a member starts; whether that changed a file."""
    changed = await _edited(run, host, edit)
    return bool(changed) and await _write(run, host, changed)


async def _edited(
    run: Run, host: HostConnection, edit: Callable[[SettingsFiles], SettingsFiles]
) -> tuple[TextFile, ...]:
    """Make the texts of an edit; raises CommandFailed where one has changed meanwhile."""
    own = supervisor(run.inventory.layout(host.name))
    (result,) = await host.run(own.settings_command())
    before = own.parse_settings(result)
    try:
        changed = changed_files(before, edit(before))
    except NotUnderstood as error:
        raise CommandFailed(host.name, "edit etcd's settings", 1, str(error)) from error
    if not changed:
        return ()
    found = await host.run(*(files.read_file_command(PurePosixPath(f.path)) for f in changed))
    for file, result in zip(changed, found, strict=True):
        seen = files.parse_file(result)
        if seen is None or seen.text != before.text(file.path):
            raise CommandFailed(host.name, f"edit {file.path}", 1, "it has just been changed")
    return changed
