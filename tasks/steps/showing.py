"""Seeing what a unit's files say of its member, and what runs; looks only."""

from __future__ import annotations

from tasks.config.settings import read_process, read_settings
from tasks.engine.run import Run, step
from tasks.hosts.connection import HostConnection
from tasks.hosts.supervisors import supervisor
from tasks.plans.showing import MemberSight

LOOK_SECONDS = 30.0


@step("see the member of {host}", retry_delays_seconds=(1.0,))
async def see_member(run: Run, host: HostConnection) -> MemberSight:
    """Read a unit's settings in its files, and its process's; nothing is changed."""
    own = supervisor(run.inventory.layout(host.name))
    asked, written = await host.run(
        own.next_command(), own.settings_command(), timeout_seconds=LOOK_SECONDS
    )
    seen, files = own.parse_next(asked), own.parse_settings(written)
    running = seen.running if seen else None
    process = None
    if running is not None:
        words = (running.program, *running.arguments)
        process = read_process(words, running.environment, files, f"{own.name}'s process")
    version = running.version if running else None
    return MemberSight(host.name, own.name, read_settings(files), process, version)
