"""Changing a static pod's manifest: out, edited, in, by the kubelet's laws. Composes steps."""

from __future__ import annotations

from tasks.config.annotations import readdress_annotation
from tasks.config.editing import (
    name_at_its_address,
    name_existing,
    name_itself_alone,
    readdress,
)
from tasks.config.probes import lengthen_startup, restore_startup
from tasks.engine.run import Run
from tasks.hosts.connection import HostConnection
from tasks.model.member_settings import SettingsFiles
from tasks.model.members import DesiredMember
from tasks.plans.hardening import HardenMember
from tasks.plans.reconfiguration import SettleMember
from tasks.procedures import rotation
from tasks.steps import health, pods

LOG_BYTES_A_SECOND = 5 << 20
"""Of a learner that gets the whole database, with its disk and the network at their worst."""


async def join_member(
    run: Run, host: HostConnection, members: tuple[DesiredMember, ...], size: int
) -> None:
    """Start a member that joins, its manifest naming exactly these; its API server stays out.

    The database's `size`, in bytes, says how long the kubelet must let it start.
    """

    def edit(files: SettingsFiles) -> SettingsFiles:
        return lengthen_startup(name_existing(files, members), size / LOG_BYTES_A_SECOND)

    if await pods.differs(run, host, edit):
        await pods.take_out(run, host)
        await pods.edit_manifest(run, host, edit)
    await pods.put_in(run, host)


async def settle_member(
    run: Run,
    host: HostConnection,
    _step: SettleMember,
    *,
    members: tuple[DesiredMember, ...],
    without: frozenset[str],
) -> None:
    """Write the manifest of a member that has joined as it is to stay."""
    if await pods.differs(run, host, _settled):
        await health.move_leader_away(run, host, members)
        await pods.take_out(run, host)
        await pods.edit_manifest(run, host, _settled)
        await pods.put_in(run, host)
        await rotation.wait_for_start(run, host, members, without)


async def readdress_member(
    run: Run,
    host: HostConnection,
    member: DesiredMember,
    former: tuple[str, ...],
    *,
    members: tuple[DesiredMember, ...],
    without: frozenset[str],
) -> None:
    """Write a member's new address into its manifest; its API server stays out.

    `former` URLs are those that had the old one. Where the run dies, the manifests are in or kept.
    """

    def edit(files: SettingsFiles) -> SettingsFiles:
        moved = name_at_its_address(readdress(files, member, former), member)
        return readdress_annotation(moved, member.client_url)

    if await pods.differs(run, host, edit):
        await pods.take_out(run, host)
        await pods.edit_manifest(run, host, edit)
    await pods.put_in(run, host)
    await rotation.wait_for_start(run, host, members, without)


def _settled(files: SettingsFiles) -> SettingsFiles:
    return restore_startup(name_itself_alone(files))


async def harden_member(
    run: Run, host: HostConnection, _step: HardenMember, *, members: tuple[DesiredMember, ...]
) -> None:
    """Let a member's manifest name it alone; where the run dies, the manifests are in or kept."""
    await health.move_leader_away(run, host, members)
    await pods.take_out(run, host)
    await pods.edit_manifest(run, host, _settled)
    await pods.put_in(run, host)
    await rotation.wait_for_start(run, host, members)
    await pods.resume(run, host)
