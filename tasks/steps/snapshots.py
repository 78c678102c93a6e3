"""Verified snapshots: before what could not be taken back, and by themselves on a schedule."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect.events import emit_event
from prefect.settings import get_current_settings
from pydantic import TypeAdapter, ValidationError

from tasks.engine import metrics
from tasks.engine.authority import client_trust
from tasks.engine.remembered import recall, remember
from tasks.engine.run import Run, step, together
from tasks.etcd.client import HASH_SECONDS, EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.etcd.snapshots import SnapshotStream
from tasks.hosts.connection import HostConnection
from tasks.hosts.dependents import encryption_command, parse_encryption
from tasks.model.cluster import ClusterHealth
from tasks.model.endpoints import EndpointStatus
from tasks.model.errors import EtcdUnavailable, Refused, RunbookError
from tasks.model.inventory import Inventory
from tasks.model.members import format_id
from tasks.model.pointers import parameter
from tasks.model.record import Event
from tasks.model.restores import RestoreSource
from tasks.model.snapshots import (
    MANIFEST,
    EncryptionFile,
    Manifest,
    SnapshotMember,
    parse_manifest,
    snapshot_name,
    taken_order,
)
from tasks.pki.inspect import read_bundle
from tasks.plans.fences import refuse_fenced
from tasks.plans.health import order_sources
from tasks.plans.rehearsal import Restored
from tasks.plans.retention import choose_expired
from tasks.report.metrics import of_snapshots
from tasks.report.snapshots import proven_sentence
from tasks.store.places import PART_BYTES, Store, Unstorable, open_store
from tasks.store.streaming import store_stream

FENCED = "fenced-ids"
"""In the store: which clusters' ids restores have ended, and by what."""
UNFINISHED_HOURS = 24
LOOKED_AT = 200
"""Manifests, each a request to an S3 server: of some weeks at one every six hours."""


Encryption = tuple[tuple[EncryptionFile, ...], tuple[str, ...]]
"""With what API servers encrypt, and which machines could not be asked."""


def open_snapshots(inventory: Inventory) -> Store:
    """Open where a cluster's snapshots lie; by default in PREFECT_HOME, beside the journal."""
    rules = inventory.snapshots
    default = get_current_settings().home / "etcd-runbooks" / "snapshots"
    return open_store(rules.store or str(default), inventory.name, rules.endpoint)


def check_skip(snapshot: str | None, reason: str | None) -> None:
    """Raise Refused when the snapshot is to be skipped without a reason."""
    if snapshot == "skip" and not reason:
        raise Refused(
            f"{parameter(snapshot='skip')} needs a reason, which is kept in the record: add "
            + parameter(reason="TEXT")
        )


@step("save a snapshot")
async def save_snapshot(run: Run, client: EtcdClient) -> Manifest:
    """Save and verify a snapshot, from the healthy follower that is furthest.

    The next one is asked where one fails. Snapshot and manifest are whole, or not there. Raises
    EtcdUnavailable when no member gives one, Refused when the store does not take it, or where old
    members came back that a restore has ended; nothing of the cluster is changed.
    """
    health, (encryption, unseen) = await asyncio.gather(
        client.observe_settled(), see_encryption(run)
    )
    refuse_fenced(run.inventory, health, recall(run.inventory.name).fenced)
    failures: list[str] = []
    for url in order_sources(health):
        endpoint = next(e for e in client.endpoints if e.url == url)
        try:
            described = await _describe(run, client, endpoint, health)
            manifest = await _save_from(
                run,
                client,
                endpoint,
                described.model_copy(
                    update={"encryption": encryption, "encryption_unseen": unseen}
                ),
            )
        except RunbookError as error:
            if isinstance(error, Refused):
                raise
            failures.append(error.message)
            continue
        run.snapshot = open_snapshots(run.inventory).url(manifest.file)
        run.journal.append(
            Event.SNAPSHOT,
            url=run.snapshot,
            failed_before=failures,
            **manifest.model_dump(mode="json"),
        )
        return manifest
    reasons = "\n  - ".join(failures) or "no healthy voter answers"
    raise EtcdUnavailable(f"no member of {run.inventory.name} gives a snapshot:\n  - {reasons}")


async def _save_from(
    run: Run, client: EtcdClient, endpoint: Endpoint, manifest: Manifest
) -> Manifest:
    store, stream = open_snapshots(run.inventory), SnapshotStream(client, endpoint)
    try:
        await store_stream(store, manifest.file, stream.parts(), manifest.recipients)
        whole = manifest.model_copy(update={"size": stream.size, "sha256": stream.sha256})
        await asyncio.to_thread(store.write, whole.beside, whole.render())
    except Unstorable as error:
        raise unstorable(run.inventory, error) from error
    return whole


@step("put the survivor's snapshot into the store", retry_delays_seconds=())
async def store_source(run: Run, source: RestoreSource, manifest: Manifest) -> bool:
    """Copy a snapshot that was taken for a recovery into the store, with its manifest.

    Raises Unstorable: the cluster serves by then, and the survivor's data lie beside its own.
    """
    store = open_snapshots(run.inventory)
    whole = manifest.model_copy(update={"size": source.size, "sha256": source.sha256})
    await store_stream(store, whole.file, _parts(source.file), whole.recipients)
    await asyncio.to_thread(store.write, whole.beside, whole.render())
    run.snapshot = store.url(whole.file)
    run.journal.append(Event.SNAPSHOT, url=run.snapshot, **whole.model_dump(mode="json"))
    return True


async def _parts(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while part := await asyncio.to_thread(file.read, PART_BYTES):
            yield part


async def describe_source(
    run: Run, client: EtcdClient, found: Restored, encryption: Encryption
) -> Manifest:
    """Describe the snapshot of a survivor, whose copy runs alone."""
    (endpoint,) = client.endpoints
    health = await client.observe_cluster()
    described = await describe(run, client, endpoint, health, await client.get_status(endpoint))
    files, unseen = encryption
    return described.model_copy(
        update={
            "revision": found.revision,
            "key_count": found.keys,
            "hash_kv": found.hash_kv,
            "encryption": files,
            "encryption_unseen": unseen,
        }
    )


async def see_encryption(run: Run) -> Encryption:
    """Ask the API servers that are known for what they encrypt with; then who did not answer."""
    inventory = run.inventory
    nodes = [h for name, h in run.hosts.items() if inventory.layout(name).manifest is not None]
    asked = [*nodes, *(run.clients[one.name] for one in inventory.kube_apiservers)]
    unseen: list[str] = []

    async def see(host: HostConnection) -> tuple[EncryptionFile, ...]:
        try:
            (result,) = await host.run(encryption_command())
        except RunbookError:
            unseen.append(host.name)
            return ()
        return parse_encryption(host.name, result)

    found = await together(map(see, asked))
    return tuple(one for files in found for one in files), tuple(sorted(unseen))


async def _describe(
    run: Run, client: EtcdClient, endpoint: Endpoint, health: ClusterHealth
) -> Manifest:
    """Ask for what a restored snapshot is compared with, at a revision that it surely has."""
    status = await client.get_status(endpoint)
    patient = replace(endpoint, patience_seconds=HASH_SECONDS)
    described, (keys, data_hash) = await asyncio.gather(
        describe(run, client, endpoint, health, status),
        client.read_data(patient, status.revision),
    )
    return described.model_copy(update={"key_count": keys, "hash_kv": data_hash})


async def describe(
    run: Run, client: EtcdClient, endpoint: Endpoint, health: ClusterHealth, status: EndpointStatus
) -> Manifest:
    """Ask for what is in a manifest beside the data themselves."""
    version, members = await asyncio.gather(
        client.get_version(endpoint), client.list_members(endpoint, linearizable=False)
    )
    statuses = {e.status.member_id: e.status for e in health.endpoints if e.status}
    furthest = max(s.raft_applied_index for s in (*statuses.values(), status))
    name, recipients = run.inventory.name, run.inventory.snapshots.recipients
    return Manifest(
        file=snapshot_name(name, status.revision, run.started, encrypted=bool(recipients)),
        cluster=name,
        cluster_id=format_id(status.cluster_id),
        revision=status.revision,
        taken=run.started,
        source=endpoint.member or endpoint.name,
        behind=furthest - status.raft_applied_index,
        size=0,
        sha256="",
        key_count=None,
        hash_kv=None,
        cluster_version=version.cluster,
        members=tuple(
            SnapshotMember(
                id=format_id(m.id),
                name=m.name,
                peer_urls=m.peer_urls,
                is_learner=m.is_learner,
                version=statuses[m.id].version if m.id in statuses else None,
            )
            for m in members
        ),
        authorities=tuple(facts.fingerprint for facts in read_bundle(client_trust(run))),
        recipients=recipients,
        runbook=run.runbook,
        run=run.id,
    )


def unstorable(inventory: Inventory, error: Unstorable) -> Refused:
    """Say that the place of the snapshots fails, and how it is mended."""
    place = "`snapshots.store` in the inventory" if inventory.snapshots.store else "PREFECT_HOME"
    return Refused(
        f"snapshots: {error}. Make room or mend the way there, or let {place} name another place, "
        "and run it again; nothing of the cluster was changed"
    )


async def read_manifests(store: Store) -> tuple[Manifest, ...]:
    """Read what is beside each snapshot, the oldest first; what is none of ours is left out.

    Raises Unstorable.
    """

    def read() -> tuple[Manifest, ...]:
        names = store.names()
        found = (parse_manifest(store.read(n)) for n in names if n.endswith(MANIFEST))
        there = [one for one in found if one is not None and one.file in names]
        return tuple(sorted(there, key=lambda one: one.taken))

    return await asyncio.to_thread(read)


async def find_newest_of(run: Run, minor: str) -> Manifest | None:
    """Find the newest snapshot of a cluster of a minor version; raises Unstorable."""
    found = await read_manifests(open_snapshots(run.inventory))
    return next((m for m in found[::-1] if m.cluster_version.startswith(f"{minor}.")), None)


async def find_proven(run: Run) -> tuple[Manifest | None, Manifest | None]:
    """Find the newest snapshot, and the newest that was proven; raises Unstorable."""
    newest, proven = await asyncio.to_thread(_find_proven, open_snapshots(run.inventory))
    is_stale = run.inventory.snapshots.is_stale(proven, datetime.now(UTC))
    metrics.write(run.inventory.name, "snapshots", is_stale, of_snapshots(newest, proven))
    return newest, proven


@step("look for the last proven snapshot")
async def tell_proven(run: Run) -> str:
    """Say how old the last proven snapshot is, and send an event where it is too old.

    A store that does not answer is what is said then; nothing is raised.
    """
    rules, name, now = run.inventory.snapshots, run.inventory.name, datetime.now(UTC)
    store = open_snapshots(run.inventory)
    try:
        newest, proven = await find_proven(run)
        await asyncio.to_thread(_learn_fenced, run, store)
    except Unstorable as error:
        return f"how old the last proven snapshot is, is not known: {error}"
    sentence = proven_sentence(name, store.url(""), newest, proven, now)
    if not rules.is_stale(proven, now):
        return sentence
    emit_event(
        event="etcd.snapshot.stale",
        resource={
            "prefect.resource.id": f"etcd.snapshot.{name}",
            "prefect.resource.name": f"snapshots of {name}",
            "etcd.cluster": name,
        },
        payload={
            "cluster": name,
            "sentence": sentence,
            "taken": proven.taken.isoformat() if proven else None,
            "allowed_hours": rules.proven_within_hours,
        },
    )
    return f"{sentence} (snapshots.proven_within_hours: {rules.proven_within_hours})"


def _find_proven(store: Store) -> tuple[Manifest | None, Manifest | None]:
    """Find the newest snapshot, and the newest that was proven, among the last LOOKED_AT."""
    names = store.names()
    manifests = sorted((n for n in names if n.endswith(MANIFEST)), key=taken_order, reverse=True)
    newest = None
    for name in manifests[:LOOKED_AT]:
        found = parse_manifest(store.read(name))
        if found is None or found.file not in names:
            continue
        newest = newest or found
        if found.proven:
            return newest, found
    return newest, None


async def share_fenced(run: Run, fenced: dict[str, str]) -> None:
    """Let other runners know, through the store, which clusters' ids a restore has ended.

    A store that does not take it is noted; this runner remembers it in any case.
    """
    store, content = open_snapshots(run.inventory), (json.dumps(fenced) + "\n").encode()
    try:
        await asyncio.to_thread(store.write, FENCED, content)
    except Unstorable as error:
        run.journal.append(Event.PROGRESS, text=f"other runners cannot know what ended: {error}")


def _learn_fenced(run: Run, store: Store) -> None:
    """Remember what another runner's restore has ended."""
    if FENCED in store.names():
        with suppress(ValidationError):
            known = TypeAdapter(dict[str, str]).validate_json(store.read(FENCED))
            name = run.inventory.name
            remember(name, fenced=known | recall(name).fenced)


@step("end uploads that were never finished")
async def end_unfinished(run: Run) -> str:
    """Remove what killed runs left in the store half-written; says which, or why it is not known.

    A run that still writes has begun within UNFINISHED_HOURS.
    """
    store = open_snapshots(run.inventory)
    before = datetime.now(UTC) - timedelta(hours=UNFINISHED_HOURS)
    try:
        ended = await asyncio.to_thread(store.end_unfinished, before)
    except Unstorable as error:
        return f"whether killed runs left unfinished uploads is not known: {error}"
    return f"removed what killed runs had half-written: {', '.join(ended)}" if ended else ""


async def find_expired(run: Run) -> tuple[Manifest, ...]:
    """Find what `snapshots.keep` does not keep; raises Refused."""
    keep = run.inventory.snapshots.keep
    if keep is None:
        return ()
    try:
        return choose_expired(await read_manifests(open_snapshots(run.inventory)), keep)
    except Unstorable as error:
        raise unstorable(run.inventory, error) from error


@step("remove the snapshots that no rule keeps")
async def remove_expired(run: Run) -> tuple[str, ...]:
    """Remove what `snapshots.keep` does not keep; returns the files' names.

    Raises Refused. The manifest goes first: what is left without one is no snapshot any more.
    """
    store, expired = open_snapshots(run.inventory), await find_expired(run)
    try:
        for one in expired:
            for name in (one.beside, one.file):
                await asyncio.to_thread(store.remove, name)
    except Unstorable as error:
        raise unstorable(run.inventory, error) from error
    return tuple(one.file for one in expired)
