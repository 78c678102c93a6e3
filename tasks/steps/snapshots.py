"""Verified snapshots: before what could not be taken back, and by themselves on a schedule."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from prefect.settings import get_current_settings

from tasks.engine.authority import client_trust
from tasks.engine.run import Run, step
from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.etcd.snapshots import SnapshotStream
from tasks.model.cluster import ClusterHealth, format_id
from tasks.model.errors import EtcdUnavailable, Refused, RunbookError
from tasks.model.inventory import Inventory
from tasks.model.pointers import parameter
from tasks.model.record import Event
from tasks.model.snapshots import (
    MANIFEST,
    Manifest,
    SnapshotMember,
    parse_manifest,
    snapshot_name,
)
from tasks.pki.inspect import read_bundle
from tasks.plans.health import order_sources
from tasks.plans.retention import choose_expired
from tasks.store.places import Store, Unstorable, open_store
from tasks.store.streaming import store_stream

HASH_SECONDS = 60.0
"""Etcd reads all of its data for it: some seconds for two gigabytes."""


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
    EtcdUnavailable when no member gives one, Refused when the store does not take it; nothing of
    the cluster is changed.
    """
    health = await client.observe_settled()
    failures: list[str] = []
    for url in order_sources(health):
        endpoint = next(e for e in client.endpoints if e.url == url)
        try:
            manifest = await _save_from(run, client, endpoint, health)
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
    run: Run, client: EtcdClient, endpoint: Endpoint, health: ClusterHealth
) -> Manifest:
    manifest = await _describe(run, client, endpoint, health)
    store, stream = open_snapshots(run.inventory), SnapshotStream(client, endpoint)
    try:
        await store_stream(store, manifest.file, stream.parts(), manifest.recipients)
        whole = manifest.model_copy(update={"size": stream.size, "sha256": stream.sha256})
        await asyncio.to_thread(store.write, whole.beside, whole.render())
    except Unstorable as error:
        raise unstorable(run.inventory, error) from error
    return whole


async def _describe(
    run: Run, client: EtcdClient, endpoint: Endpoint, health: ClusterHealth
) -> Manifest:
    """Ask for what a restored snapshot is compared with, at a revision that it surely has."""
    status = await client.get_status(endpoint)
    patient = replace(endpoint, patience_seconds=HASH_SECONDS)
    version, members, (keys, data_hash) = await asyncio.gather(
        client.get_version(endpoint),
        client.list_members(endpoint, linearizable=False),
        client.read_data(patient, status.revision),
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
        key_count=keys,
        hash_kv=data_hash,
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


@step("remove the snapshots that no rule keeps")
async def remove_expired(run: Run) -> tuple[str, ...]:
    """Remove what `snapshots.keep` does not keep; returns the files' names.

    Raises Refused. The manifest goes first: what is left without one is no snapshot any more.
    """
    keep = run.inventory.snapshots.keep
    if keep is None:
        return ()
    store = open_snapshots(run.inventory)
    try:
        expired = choose_expired(await read_manifests(store), keep)
        for one in expired:
            for name in (one.beside, one.file):
                await asyncio.to_thread(store.remove, name)
    except Unstorable as error:
        raise unstorable(run.inventory, error) from error
    return tuple(one.file for one in expired)
