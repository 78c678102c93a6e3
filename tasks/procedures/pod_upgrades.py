"""Bringing a static pod's etcd to another image: out, edited, in, by the kubelet's laws."""

from __future__ import annotations

from dataclasses import replace

from tasks.config.images import name_image
from tasks.config.translation import translated
from tasks.engine.run import Run
from tasks.hosts.connection import HostConnection
from tasks.model.errors import MemberFailed, RunbookError
from tasks.model.member_settings import SettingsFiles
from tasks.model.members import DesiredMember
from tasks.plans.upgrade_routes import minor_of
from tasks.plans.upgrades import UpgradeMember
from tasks.procedures import rotation
from tasks.steps import health, pods


async def upgrade_pod(
    run: Run,
    host: HostConnection,
    step: UpgradeMember,
    *,
    members: tuple[DesiredMember, ...],
    image: str,
) -> None:
    """Give a pod another image, and settings that it knows; raises MemberFailed.

    Where the member does not come back with it, or is another version, it gets its old manifest.
    """
    old: list[SettingsFiles] = []

    def edit(files: SettingsFiles) -> SettingsFiles:
        old.append(files)
        return name_image(translated(files, minor_of(step.version)), image)

    changes = bool(await pods.differs(run, host, edit))
    if changes:
        await pods.take_out(run, host)
        await pods.edit_manifest(run, host, edit)
    try:
        await _begin(run, host, members, step.version)
    except RunbookError as error:
        if not changes:
            raise
        raise MemberFailed(
            f"{error.message}\n{await _put_back(run, host, members, old[0], image)}",
            host=host.name,
        ) from error
    await pods.resume(run, host)


async def _begin(
    run: Run, host: HostConnection, members: tuple[DesiredMember, ...], version: str
) -> None:
    """Put etcd in, and see all healthy and this one of its version; raises MemberFailed."""
    await pods.put_in(run, host)
    found = await rotation.wait_for_start(run, host, members)
    told = next((e.status.version for e in found.endpoints if e.name == host.name and e.status), "")
    if told != version:
        said = f"what its image has is etcd {told or '?'}, and not {version}"
        raise MemberFailed(said, host=host.name)


async def _put_back(
    run: Run,
    host: HostConnection,
    members: tuple[DesiredMember, ...],
    old: SettingsFiles,
    image: str,
) -> str:
    """Write the old manifest's text again; tells what became of it, and the way on."""
    again = f"find out why {image} does not serve there, then run {run.runbook} again"

    def edit(files: SettingsFiles) -> SettingsFiles:
        if files.manifest is None or old.manifest is None:
            return files
        return replace(files, manifest=replace(files.manifest, text=old.manifest.text))

    try:
        await health.move_leader_away(run, host, members)
        await pods.take_out(run, host)
        await pods.edit_manifest(run, host, edit)
        await pods.put_in(run, host)
        await rotation.wait_until_healthy(run, members)
        await pods.resume(run, host)
    except RunbookError as error:
        return f"with its old manifest it does not come back either: {error.message}\n{again}"
    return f"its old manifest is in place again, and etcd runs with it\n{again}"
