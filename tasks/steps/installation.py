"""What a host needs before etcd: the account, the directories, the programs."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path, PurePosixPath

from tasks.engine.run import Run, step
from tasks.hosts import files, system
from tasks.hosts.connection import HostConnection
from tasks.model.errors import CommandFailed, InvalidInventory
from tasks.model.inventory import Inventory
from tasks.model.observation import Directory, Places
from tasks.model.settings import ArchiveBinaries, DirectoryBinaries, InstalledBinaries
from tasks.plans.bootstrap import (
    InstallPrograms,
    MakeAccount,
    MakeDirectories,
    certificates_mode,
    state_mode,
)

UPLOADED = ("etcd", "etcdctl", "etcdutl")

ETCDS_OWN = b"go.etcd.io/etcd"
"""What a program shows from 3.4 on that is not packed; it shows its version, too."""


class Programs:
    """Etcd's programs on the runner; none where the hosts have them installed."""

    def __init__(self, contents: dict[str, bytes], sums: dict[str, str]) -> None:
        self.contents = contents
        self.sums = sums


def load_programs(inventory: Inventory) -> Programs:
    """Read the programs that are to be uploaded, as `load_binaries` does."""
    return load_binaries(inventory.etcd.binaries, inventory.etcd.version, "etcd.binaries")


def load_binaries(
    binaries: InstalledBinaries | ArchiveBinaries | DirectoryBinaries, version: str, field: str
) -> Programs:
    """Read the programs of one version, which `field` of the inventory names.

    Raises InvalidInventory for a wrong SHA-256, and for another version's program; what does not
    show that is found when a host is asked, before it is put in use.
    """
    if isinstance(binaries, InstalledBinaries):
        return Programs({}, {})
    if isinstance(binaries, ArchiveBinaries):
        contents = _from_archive(binaries, field)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    else:
        contents = _from_directory(binaries, field)
        sums = {str(name): wanted for name, wanted in binaries.sha256.items()}
    if ETCDS_OWN in contents["etcd"] and version.encode() not in contents["etcd"]:
        problem = f"{field}.path: etcd in {binaries.path} is not {version}, but of another version"
        raise InvalidInventory(
            "inventory", (f"{problem}; name what {version} is in, and its sums",)
        )
    return Programs(contents, sums)


def _from_directory(binaries: DirectoryBinaries, field: str) -> dict[str, bytes]:
    contents, problems = {}, []
    for name, wanted in binaries.sha256.items():
        path = binaries.path / name
        if not path.is_file():
            problems.append(f"{field}.path: there is no {path}")
            continue
        contents[str(name)] = path.read_bytes()
        problems += _mismatch(f"{field}.sha256.{name}", path, contents[name], wanted)
    if problems:
        raise InvalidInventory("inventory", tuple(problems))
    return contents


def _from_archive(binaries: ArchiveBinaries, field: str) -> dict[str, bytes]:
    path = binaries.path
    if not path.is_file():
        raise InvalidInventory("inventory", (f"{field}.path: there is no {path}",))
    packed = path.read_bytes()
    problems = _mismatch(f"{field}.sha256", path, packed, binaries.sha256)
    if problems:
        raise InvalidInventory("inventory", tuple(problems))
    contents = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for entry in archive:
                name = Path(entry.name).name
                if entry.isfile() and name in UPLOADED and (file := archive.extractfile(entry)):
                    contents[name] = file.read()
    except tarfile.TarError as error:
        problem = f"{field}.path: {path} is not a tar archive: {error}"
        raise InvalidInventory("inventory", (problem,)) from error
    if "etcd" not in contents:
        problem = f"{field}.path: {path} holds no file named etcd"
        raise InvalidInventory("inventory", (problem,))
    return contents


def _mismatch(field: str, path: Path, content: bytes, wanted: str) -> list[str]:
    found = hashlib.sha256(content).hexdigest()
    if found == wanted:
        return []
    return [f"{field}: {path} has the SHA-256 {found}, not {wanted}; fetch it again, or correct it"]


@step("make the account on {host}")
async def make_account(run: Run, host: HostConnection, planned: MakeAccount) -> bool:
    """Make the accounts of etcd and of its certificates; whether one was missing."""
    state = run.inventory.layout(host.name).state
    commands = [system.make_account_command(name, state) for name in planned.accounts]
    return any(map(files.parse_change, await host.run(*commands, changes=True)))


@step("make directories on {host}")
async def make_directories(run: Run, host: HostConnection, planned: MakeDirectories) -> bool:
    """Make directories with mode and owner; whether one changed."""
    wanted = planned.directories or await _own_directories(run, host, planned.own)
    commands = [
        files.make_directory_command(
            PurePosixPath(each.path), mode=each.mode, owner=each.owner, group=each.group
        )
        for each in wanted
    ]
    return any(map(files.parse_change, await host.run(*commands, changes=True)))


async def _own_directories(
    run: Run, host: HostConnection, own: tuple[str, ...]
) -> tuple[Directory, ...]:
    """Say which directories our own layout needs; the group is known once there is an account."""
    paths, account = run.inventory.paths, run.inventory.etcd.run_as
    (found,) = await host.run(system.account_command(account))
    group = system.parse_account(found)[1] or account
    state = run.inventory.layout(host.name).state
    return (
        Directory(str(paths.certificates), *certificates_mode(group).split(" ", 2)),
        *(
            Directory(path, *state_mode(run.inventory, group).split(" ", 2))
            for path in (str(state), *own)
        ),
    )


@step("see what there is on {host}")
async def see_places(
    _run: Run, host: HostConnection, paths: tuple[str, ...], accounts: tuple[str, ...]
) -> Places:
    """See which files, directories and accounts there are; changes nothing."""
    (result,) = await host.run(system.places_command(paths, accounts))
    return system.parse_places(result)


@step("install etcd on {host}")
async def install_programs(
    run: Run, host: HostConnection, _step: InstallPrograms, programs: Programs
) -> bool:
    """Upload the programs that differ, and see that etcd runs and is the wanted version.

    Each file is whole or as it was. Raises CommandFailed when the version is another one.
    """
    directory = run.inventory.layout(host.name).binaries
    changed = False
    for name, digest in programs.sums.items():
        changed |= await host.upload(
            programs.contents[name],
            directory / name,
            sha256=digest,
            mode="0755",
            backup=run.inventory.paths.backups / run.backup,
        )
    (result,) = await host.run(system.programs_command(directory, ("etcd",)))
    version = next((p.version for p in system.parse_programs(result)), None)
    if version != run.inventory.etcd.version:
        raise CommandFailed(
            host.name,
            f"{directory}/etcd --version",
            0,
            f"it is {version or 'not runnable here'}, but etcd.version in the inventory is "
            f"{run.inventory.etcd.version}; correct the one that is wrong",
        )
    return changed
