"""What runs have left behind: journals on the runner, replaced files on the hosts."""

from __future__ import annotations

import asyncio
from datetime import datetime

from tasks.engine.archive import archive, list_files, name_of
from tasks.engine.history import began, find_settled
from tasks.engine.journal import is_held
from tasks.engine.recording import journal_directory
from tasks.engine.run import Run, step
from tasks.hosts import backups, files
from tasks.hosts.connection import HostConnection
from tasks.model.retention import Backup
from tasks.plans.housekeeping import ArchiveJournals, RemoveBackups


@step("list what runs have replaced on {host}")
async def list_backups(run: Run, host: HostConnection) -> tuple[Backup, ...]:
    """List the directories under `paths.backups`."""
    (result,) = await host.run(backups.list_command(run.inventory.paths.backups))
    return backups.parse_list(result)


@step("read the journals")
async def read_past(run: Run) -> tuple[dict[str, datetime], frozenset[str]]:
    """Find the cluster's journals that nobody writes and that are not archived, with their times.

    And the beginnings of the ids of runs whose work is done.
    """

    def read() -> tuple[dict[str, datetime], frozenset[str]]:
        folder = journal_directory() / run.inventory.name
        plain = [path for path in list_files(folder) if path.name == name_of(path)]
        free = {path.name: began(path) for path in plain if not is_held(path)}
        return free, find_settled(journal_directory(), run.inventory.name)

    return await asyncio.to_thread(read)


@step("compress journals")
async def archive_journals(run: Run, planned: ArchiveJournals) -> bool:
    """Compress them; one that is gone or archived meanwhile is no error."""
    folder = journal_directory() / run.inventory.name
    there = [folder / name for name in planned.names if (folder / name).exists()]
    for path in there:
        await asyncio.to_thread(archive, path)
    return bool(there)


@step("remove what runs have replaced on {host}")
async def remove_backups(run: Run, host: HostConnection, planned: RemoveBackups) -> bool:
    """Remove the directories that the plan names."""
    command = backups.remove_command(run.inventory.paths.backups, planned.names)
    (result,) = await host.run(command, changes=True)
    return files.parse_change(result)
