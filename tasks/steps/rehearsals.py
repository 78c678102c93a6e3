"""Rehearsing a snapshot: it is really restored on the runner, compared, and thrown away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tasks.engine.run import Run, step
from tasks.engine.secret import read_secret
from tasks.etcd import scratch
from tasks.etcd.databases import find_fault
from tasks.model.errors import CheckFailed, Refused
from tasks.model.record import Event
from tasks.model.snapshots import Manifest
from tasks.plans.rehearsal import Restored, compared, find_differences
from tasks.store.opening import Sealed, unseal
from tasks.store.places import Store, Unstorable
from tasks.store.temporary import temporary

PURPOSE = "rehearsal"


@step("restore a snapshot where no client is, and compare it")
async def rehearse(
    run: Run, store: Store, manifest: Manifest, programs: Mapping[str, bytes] | Path
) -> str:
    """Restore a snapshot in a temporary directory of the runner; says what was compared.

    Raises CheckFailed when it is not what was saved, or etcd does not serve it; Refused when
    it cannot be opened or there is no room. Whatever happens, nothing of it is left, and neither
    the snapshot nor the cluster is touched.
    """
    # Its mode is 0700: only this account enters it.
    with temporary(PURPOSE) as directory:
        bare = directory / "snapshot.db"
        await fetch_snapshot(run, store, manifest, bare)
        if (fault := await asyncio.to_thread(find_fault, bare, manifest)) is not None:
            raise CheckFailed(f"{store.url(manifest.file)}: {fault.sentence}")
        restored, _ = await _restore(
            run, directory, bare, programs, store.url(manifest.file), manifest.revision
        )
    _compare(manifest, restored, store.url(manifest.file))
    told = compared(manifest, restored)
    run.journal.append(Event.REHEARSED, url=store.url(manifest.file), compared=told)
    return told


@step("restore the snapshot where no client is")
async def rehearse_file(
    run: Run,
    bare: Path,
    url: str,
    manifest: Manifest | None,
    programs: Mapping[str, bytes] | Path,
) -> Restored:
    """Restore a checked file in a temporary directory of the runner; returns what its head holds.

    Compared with its manifest where there is one. Raises CheckFailed; the file stays.
    """
    with temporary(PURPOSE) as directory:
        at = manifest.revision if manifest else None
        restored, head = await _restore(run, directory, bare, programs, url, at)
    if manifest is not None:
        _compare(manifest, restored, url)
    return head


async def _restore(
    run: Run,
    directory: Path,
    bare: Path,
    programs: Mapping[str, bytes] | Path,
    url: str,
    revision: int | None,
) -> tuple[Restored, Restored]:
    """Restore into a directory and ask what is there: at a revision, and at the head."""
    login = run.login.apart() if run.login else None
    tools = programs if isinstance(programs, Path) else _write(directory / "bin", programs)
    data = directory / "data"
    try:
        await scratch.restore(tools, bare, data)
        async with scratch.running(tools, directory, data, login) as client:
            (endpoint,) = client.endpoints
            head = (await client.get_status(endpoint)).revision
            found = [
                Restored(head, *await client.read_data(endpoint, at))
                for at in (head if revision is None else revision, head)
            ]
            return found[0], found[1]
    except scratch.Unrestorable as error:
        raise CheckFailed(f"{url}: {error.message}") from error


def _compare(manifest: Manifest, restored: Restored, url: str) -> None:
    if differences := find_differences(manifest, restored):
        raise CheckFailed(f"{url}: " + "; ".join(differences))


@step("note that a snapshot is proven")
async def note_proven(run: Run, store: Store, manifest: Manifest) -> None:
    """Write the time into the manifest; raises Refused. Only such a snapshot counts as proven."""
    proven = manifest.model_copy(update={"proven": datetime.now(UTC)})
    try:
        await asyncio.to_thread(store.write, proven.beside, proven.render())
    except Unstorable as error:
        raise Refused(f"snapshots: {error}; the snapshot is sound, and not marked so") from error
    run.journal.append(Event.PROVEN, file=manifest.file)


async def fetch_snapshot(run: Run, store: Store, manifest: Manifest, bare: Path) -> None:
    """Copy a snapshot to this machine, and open it where it is encrypted; raises Refused."""
    sealed = bare.with_name("sealed")
    try:
        with (sealed if manifest.recipients else bare).open("wb") as file:
            await asyncio.to_thread(store.copy, manifest.file, file)
        if not manifest.recipients:
            return
        await open_sealed(run, sealed, bare, store.url(manifest.file))
        sealed.unlink()
    except Unstorable as error:
        raise Refused(f"snapshots: {error}; nothing was changed") from error
    except OSError as error:
        raise Refused(
            f"{bare.parent} does not take the snapshot ({error.strerror or error}); make room, or "
            "set TMPDIR to a directory with three times the database's size"
        ) from error


async def open_sealed(run: Run, sealed: Path, bare: Path, url: str) -> None:
    """Decrypt a file with the inventory's key; raises Refused where it does not open."""
    identity = run.inventory.snapshots.identity
    if identity is None:
        raise Refused(
            f"{url} is encrypted: name in the inventory where a key that opens it lies "
            "(snapshots.identity: {env: ...}, {file: ...} or {block: ...})"
        )
    try:
        key = await read_secret(identity, "snapshots.identity")
        await asyncio.to_thread(unseal, sealed, bare, key)
    except Sealed as error:
        raise Refused(f"snapshots.identity: {error}: {url}") from error


def _write(directory: Path, programs: Mapping[str, bytes]) -> Path:
    directory.mkdir(mode=0o700)
    for name, content in programs.items():
        path = directory / name
        path.write_bytes(content)
        path.chmod(0o700)
    return directory
