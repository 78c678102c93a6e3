"""What a restored snapshot must be like, by the manifest that was written when it was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.model.restores import Mark, RestoreSource
from tasks.model.snapshots import DataHash, Manifest


@dataclass(frozen=True, slots=True)
class Restored:
    """What etcd says of restored data: keys and hash are of the manifest's revision.

    None where its version does not tell, or has it compacted.
    """

    revision: int
    keys: int | None
    hash_kv: DataHash | None


def find_differences(manifest: Manifest, restored: Restored) -> tuple[str, ...]:
    """List in what restored data is not what was saved; none: it is proven.

    A hash counts where both were made after the same compaction, which is part of it.
    """
    found = []
    if restored.revision < manifest.revision:
        found.append(
            f"its revision is {restored.revision}, and {manifest.revision} had been reached when "
            "it was taken"
        )
    if _count_too(manifest, restored) and restored.keys != manifest.key_count:
        found.append(
            f"at revision {manifest.revision} it has {restored.keys} keys, and the cluster had "
            f"{manifest.key_count}"
        )
    if _hash_too(manifest, restored) and restored.hash_kv != manifest.hash_kv:
        found.append(f"etcd's hash of it at revision {manifest.revision} is another one")
    return tuple(found)


def compared(manifest: Manifest, restored: Restored) -> str:
    """Say by what a restored snapshot was compared."""
    words = ["revision"]
    words += ["keys"] if _count_too(manifest, restored) else []
    words += ["hash"] if _hash_too(manifest, restored) else []
    return ", ".join(words)


def find_disagreement(told: Sequence[Restored]) -> str | None:
    """Say in what members that were restored alike differ; None: they do not.

    Hashes count where both were made after the same compaction.
    """
    if len({one.keys for one in told}) > 1:
        return "the members have not all as many keys"
    hashes = {one.hash_kv for one in told if one.hash_kv is not None}
    if len(hashes) > len({each.compact_revision for each in hashes}):
        return "the members' data have not all the same hash"
    return None


def _count_too(manifest: Manifest, restored: Restored) -> bool:
    return restored.keys is not None and manifest.key_count is not None


def _hash_too(manifest: Manifest, restored: Restored) -> bool:
    here, there = restored.hash_kv, manifest.hash_kv
    return (
        here is not None and there is not None and (here.compact_revision == there.compact_revision)
    )


def find_unlike(
    mark: Mark | None,
    source: RestoreSource | None,
    told: tuple[Restored, ...],
    clusters: frozenset[str],
) -> list[str]:
    """Say in what restored members differ from their snapshot, and from what the mark says.

    `clusters` are the ids that they have.
    """
    head, problems = told[0].revision, list[str]()
    if mark is not None and head < mark.revision:
        problems.append(f"the revision is {head}, and {mark.revision} was to be reached")
    if differs := find_disagreement(told):
        problems.append(differs)
    if source is not None and source.keys is not None and told[0].keys != source.keys:
        problems.append(f"there are {told[0].keys} keys, and the snapshot has {source.keys}")
    manifest = source.manifest if source else None
    if manifest is not None and manifest.cluster_id in clusters:
        problems.append(f"the cluster's id is still {manifest.cluster_id}")
    return problems
