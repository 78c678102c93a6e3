"""The snapshot of a restore: fetched to the runner, and everything about the file checked.

Composes the steps of snapshots and rehearsals. Nothing of the cluster is touched.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tasks.engine.run import Run
from tasks.etcd import scratch
from tasks.etcd.databases import (
    Wrong,
    add_digest,
    digest_file,
    find_fault,
    find_peer_urls,
    read_digest,
)
from tasks.etcd.snapshots import CHECKSUM_BYTES
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.members import DesiredMember
from tasks.model.pointers import parameter
from tasks.model.restores import RestoreSource
from tasks.model.snapshots import ENCRYPTED, Manifest, manifest_name, parse_manifest
from tasks.procedures import rehearsing
from tasks.steps import rehearsals, snapshots
from tasks.store.places import Unstorable
from tasks.store.temporary import temporary

PURPOSE = "restore"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """Which snapshot an operator wants: by its name in the store, or a file; and what is taken."""

    snapshot: str | None
    file: Path | None
    accept: frozenset[str]


def known(found: T | None) -> T:
    """Get what an earlier step has found; raises Refused where it was not, which no plan does."""
    if found is None:
        raise Refused("the snapshot is not known yet")
    return found


async def find_programs(run: Run) -> Mapping[str, bytes] | Path | None:
    """Find what restores on the runner, of the cluster's version; None where there is none."""
    try:
        found = await asyncio.to_thread(rehearsing.find_programs, run.inventory)
    except Refused:
        return None
    if isinstance(found, Path) and await scratch.read_version(found) != run.inventory.etcd.version:
        return None
    return found


async def lend_programs(run: Run) -> dict[str, bytes]:
    """Read the programs that the runner has, for hosts that have none to restore with."""
    found = await find_programs(run)
    if isinstance(found, Path):
        names = ("etcd", "etcdutl") if (found / "etcdutl").is_file() else ("etcd", "etcdctl")
        return {name: await asyncio.to_thread((found / name).read_bytes) for name in names}
    return dict(found or {})


async def fetch(run: Run, request: Request) -> RestoreSource:
    """Fetch a snapshot and check all of it; raises Refused, and nothing was changed.

    It lies in a directory of mode 0700 that goes with the run.
    """
    if request.file is not None and request.snapshot is not None:
        raise Refused(
            f"{parameter(snapshot=request.snapshot)} and {parameter(file=str(request.file))}: one "
            "of them is meant"
        )
    bare = run.on_exit.enter_context(temporary(PURPOSE)) / "snapshot.db"
    if request.file is not None:
        url, manifest = str(request.file), await _take_file(run, request.file, bare)
    else:
        url, manifest = await _take_stored(run, request.snapshot, bare)
    has_checksum = await asyncio.to_thread(_check, bare, url, manifest, request)
    digest, _ = await asyncio.to_thread(read_digest, bare)
    size = bare.stat().st_size - CHECKSUM_BYTES
    taken = f", taken {manifest.taken:%Y-%m-%d %H:%M}Z" if manifest else ""
    return RestoreSource(
        file=bare,
        file_sha256=await asyncio.to_thread(digest_file, bare),
        told=f"{url}{taken}",
        size=size,
        sha256=digest,
        revision=manifest.revision if manifest else 0,
        keys=None,
        manifest=manifest,
        has_checksum=has_checksum,
    )


async def _take_stored(run: Run, name: str | None, bare: Path) -> tuple[str, Manifest]:
    store = snapshots.open_snapshots(run.inventory)
    try:
        every = await snapshots.read_manifests(store)
    except Unstorable as error:
        raise snapshots.unstorable(run.inventory, error) from error
    chosen = rehearsing.choose(run.inventory, every, name, store.url(""))
    await rehearsals.fetch_snapshot(run, store, chosen, bare)
    return store.url(chosen.file), chosen


async def _take_file(run: Run, file: Path, bare: Path) -> Manifest | None:
    """Copy a file of the runner's, and read the manifest beside it if it has one."""

    def take() -> Manifest | None:
        sealed = file.name.endswith(ENCRYPTED)
        shutil.copyfile(file, bare.with_name("sealed") if sealed else bare)
        beside = file.with_name(manifest_name(file.name))
        return parse_manifest(beside.read_bytes()) if beside.is_file() else None

    try:
        manifest = await asyncio.to_thread(take)
    except OSError as error:
        raise Refused(
            f"{file} cannot be read ({error.strerror or error}), or {bare.parent} has no room for "
            "it (TMPDIR names another place); nothing was changed"
        ) from error
    if file.name.endswith(ENCRYPTED):
        await rehearsals.open_sealed(run, bare.with_name("sealed"), bare, str(file))
    return manifest


def _check(bare: Path, url: str, manifest: Manifest | None, request: Request) -> bool:
    """Check the file, and say whether it had a checksum; raises Refused."""
    fault = find_fault(bare, manifest)
    if fault is None:
        return True
    if fault.kind is not Wrong.UNHASHED:
        raise Refused(f"{url}: {fault.sentence}. Nothing was changed")
    if "no-checksum" not in request.accept:
        raise Refused(
            f"{url}: {fault.sentence}. Whether it is whole cannot be told: a copy that was made "
            "while etcd ran may be torn. Nothing was changed; with "
            f"{parameter(accept=['no-checksum'])} it is taken if etcd starts on it"
        )
    add_digest(bare)
    return False


def refuse_other_cluster(
    inventory: Inventory,
    source: RestoreSource,
    members: tuple[DesiredMember, ...],
    request: Request,
) -> None:
    """Raise Refused for another cluster's snapshot, by its manifest or by the members in it."""
    if "other-cluster" in request.accept:
        return
    way = f"Nothing was changed; with {parameter(accept=['other-cluster'])} it is taken"
    manifest = source.manifest
    if manifest is not None and manifest.cluster != inventory.name:
        raise Refused(
            f"{source.told}: it is a snapshot of the cluster {manifest.cluster}, and this is "
            f"{inventory.name}. {way}"
        )
    listed = find_peer_urls(source.file)
    if listed and not listed & {member.peer_url for member in members}:
        raise Refused(
            f"{source.told}: none of its members is one of {inventory.name}'s: it has "
            f"{', '.join(sorted(listed)[:5])}. {way}"
        )


async def rehearse(run: Run, source: RestoreSource) -> RestoreSource:
    """Restore it on the runner, where no client is; raises CheckFailed.

    Returns it with the keys and the revision that its head really has.
    """
    programs = await find_programs(run)
    if programs is None:
        return source
    head = await rehearsals.rehearse_file(run, source.file, source.told, source.manifest, programs)
    return replace(source, keys=head.keys, revision=head.revision)
