"""Rehearsing a snapshot: it is really restored on the runner, compared, and thrown away."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.engine.run import Run, step
from tasks.engine.secret import read_secret
from tasks.etcd import scratch
from tasks.etcd.snapshots import CHECKSUM_BYTES, PAGE_BYTES
from tasks.model.errors import CheckFailed, Refused
from tasks.model.record import Event
from tasks.model.snapshots import Manifest
from tasks.plans.rehearsal import Restored, compared, find_differences
from tasks.store.opening import Sealed, unseal
from tasks.store.places import Store, Unstorable

PREFIX = "etcd-runbooks-rehearsal-"


@step("restore a snapshot where no client is, and compare it")
async def rehearse(
    run: Run, store: Store, manifest: Manifest, programs: Mapping[str, bytes] | Path
) -> str:
    """Restore a snapshot in a temporary directory of the runner; says what was compared.

    Raises CheckFailed when it is not what was saved, or etcd does not serve it; Refused when
    it cannot be opened or there is no room. Whatever happens, nothing of it is left, and neither
    the snapshot nor the cluster is touched.
    """
    login = run.login.apart() if run.login else None
    # Its mode is 0700: only this account enters it.
    with TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        directory = Path(name)
        bare = directory / "snapshot.db"
        await _fetch(run, store, manifest, bare)
        if (fault := await asyncio.to_thread(_find_fault, bare, manifest)) is not None:
            raise CheckFailed(f"{store.url(manifest.file)}: {fault}")
        tools = programs if isinstance(programs, Path) else _write(directory / "bin", programs)
        data = directory / "data"
        try:
            await scratch.restore(tools, bare, data)
            bare.unlink()
            async with scratch.running(tools, directory, data, login) as client:
                (endpoint,) = client.endpoints
                status = await client.get_status(endpoint)
                keys, data_hash = await client.read_data(endpoint, manifest.revision)
                restored = Restored(status.revision, keys, data_hash)
        except scratch.Unrestorable as error:
            raise CheckFailed(f"{store.url(manifest.file)}: {error.message}") from error
    if differences := find_differences(manifest, restored):
        raise CheckFailed(f"{store.url(manifest.file)}: " + "; ".join(differences))
    told = compared(manifest, restored)
    run.journal.append(Event.REHEARSED, url=store.url(manifest.file), compared=told)
    return told


@step("note that a snapshot is proven")
async def note_proven(run: Run, store: Store, manifest: Manifest) -> None:
    """Write the time into the manifest; raises Refused. Only such a snapshot counts as proven."""
    proven = manifest.model_copy(update={"proven": datetime.now(UTC)})
    try:
        await asyncio.to_thread(store.write, proven.beside, proven.render())
    except Unstorable as error:
        raise Refused(f"snapshots: {error}; the snapshot is sound, and not marked so") from error
    run.journal.append(Event.PROVEN, file=manifest.file)


async def _fetch(run: Run, store: Store, manifest: Manifest, bare: Path) -> None:
    """Copy a snapshot to this machine, and open it where it is encrypted."""
    rules = run.inventory.snapshots
    sealed = bare.with_name("sealed")
    try:
        with (sealed if manifest.recipients else bare).open("wb") as file:
            await asyncio.to_thread(store.copy, manifest.file, file)
        if not manifest.recipients:
            return
        if rules.identity is None:
            raise Refused(
                f"{store.url(manifest.file)} is encrypted: name in the inventory where a key that "
                "opens it lies (snapshots.identity: {env: ...}, {file: ...} or {block: ...})"
            )
        key = await read_secret(rules.identity, "snapshots.identity")
        await asyncio.to_thread(unseal, sealed, bare, key)
        sealed.unlink()
    except Sealed as error:
        raise Refused(f"snapshots.identity: {error}: {store.url(manifest.file)}") from error
    except Unstorable as error:
        raise Refused(f"snapshots: {error}; nothing was changed") from error
    except OSError as error:
        raise Refused(
            f"{bare.parent} does not take the snapshot ({error.strerror or error}); make room, or "
            "set TMPDIR to a directory with three times the database's size"
        ) from error


def _find_fault(bare: Path, manifest: Manifest) -> str | None:
    """Say what is wrong with the file itself, before etcd sees it."""
    size = bare.stat().st_size
    if size % PAGE_BYTES == 0:
        return "it is a database without a checksum, as one that was copied from a member's disk"
    if size != manifest.size + CHECKSUM_BYTES:
        return f"it has {size} bytes, and {manifest.size + CHECKSUM_BYTES} were saved"
    digest, left = hashlib.sha256(), manifest.size
    with bare.open("rb") as file:
        while left:
            part = file.read(min(left, 1 << 20))
            digest.update(part)
            left -= len(part)
        trailer = file.read().hex()
    if digest.hexdigest() != trailer:
        return "its content does not match its own checksum: it has been changed or is damaged"
    if trailer != manifest.sha256:
        return "it is another snapshot than its manifest's: the checksums differ"
    return None


def _write(directory: Path, programs: Mapping[str, bytes]) -> Path:
    directory.mkdir(mode=0o700)
    for name, content in programs.items():
        path = directory / name
        path.write_bytes(content)
        path.chmod(0o700)
    return directory
