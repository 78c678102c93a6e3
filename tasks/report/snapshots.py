"""Snapshots as a table: what was saved of which cluster, from whom, and where it is."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.model.snapshots import Manifest
from tasks.report.tables import Table

Saved = tuple[str, Manifest | str]
"""A cluster, and its snapshot or why there is none."""


def snapshot_table(saved: Iterable[Saved]) -> Table:
    """List the clusters with the snapshot of each, what failed first."""
    rows = [
        (cluster, "-", "-", "-", f"failed: {found}")
        if isinstance(found, str)
        else (cluster, found.source, str(found.revision), _size(found.size), found.file)
        for cluster, found in sorted(saved, key=lambda one: not isinstance(one[1], str))
    ]
    return Table(("cluster", "taken from", "revision", "size", "snapshot"), tuple(rows))


def snapshots_markdown(saved: Iterable[Saved]) -> str:
    """Write the artifact of all clusters."""
    return "\n".join(("# Snapshots", "", snapshot_table(saved).to_markdown()))


def snapshot_remarks(one: Manifest, url: str, removed: Iterable[str]) -> tuple[str, ...]:
    """Say what the table has no room for."""
    keys = "keys not counted" if one.key_count is None else f"{one.key_count} keys"
    seal = f"encrypted for {len(one.recipients)}" if one.recipients else "not encrypted"
    gone = tuple(removed)
    told = (
        f"{url}: sha256 {one.sha256}, {keys} at revision {one.revision}, {seal}; the source "
        f"was {one.behind} entries behind the furthest member",
    )
    return (*told, f"removed by snapshots.keep: {', '.join(gone)}") if gone else told


def rehearsal_table(one: Manifest, compared: str) -> Table:
    """Tell which snapshot was restored, and by what it was compared."""
    return Table(
        ("cluster", "snapshot", "of", "revision", "compared"),
        ((one.cluster, one.file, f"{one.taken:%Y-%m-%d %H:%M}Z", str(one.revision), compared),),
    )


def _size(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
