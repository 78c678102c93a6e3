"""Snapshots as a table: what was saved of which cluster, from whom, and where it is."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import groupby

from tasks.model.pointers import pointer
from tasks.model.snapshots import Manifest
from tasks.report.tables import Table

DAYS_FROM = 48
"""Hours from which an age is told in days."""

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
    told: tuple[str, ...] = (
        f"{url}: sha256 {one.sha256}, {keys} at revision {one.revision}, {seal}; the source "
        f"was {one.behind} entries behind the furthest member",
        *_encryption_sentences(one),
    )
    return (*told, f"removed by snapshots.keep: {', '.join(gone)}") if gone else told


def _encryption_sentences(one: Manifest) -> tuple[str, ...]:
    """Say what is needed to read what API servers have encrypted, which the snapshot lacks."""
    by_sum = sorted(one.encryption, key=lambda file: file.sha256)
    kinds = [
        (", ".join(f"{file.path} on {file.host}" for file in files), sha256)
        for sha256, files in groupby(by_sum, key=lambda file: file.sha256)
    ]
    told = [
        f"API servers encrypt by {where} (sha256 {sha256}): keep it elsewhere, the snapshot is "
        "unreadable to them without it"
        for where, sha256 in kinds
    ]
    if len(kinds) > 1:
        told.append("the API servers do not encrypt by the same configuration")
    if one.encryption_unseen:
        names = ", ".join(one.encryption_unseen)
        told.append(f"whether the API servers of {names} encrypt is not known: not reached")
    return tuple(told)


def proven_sentence(
    cluster: str, place: str, newest: Manifest | None, proven: Manifest | None, now: datetime
) -> str:
    """Say how old what the last proven snapshot holds is, or how one comes to be proven."""
    if newest is None:
        return f"there is no snapshot in {place}: {pointer('take_snapshot', clusters=(cluster,))}"
    if proven is None:
        proving = pointer("rehearse_snapshot", clusters=(cluster,))
        age = format_age(now - newest.taken)
        return f"no snapshot is proven; the newest, {newest.file}, is of {age} ago: {proving}"
    last = (
        "" if newest == proven else f"; the newest one is of {format_age(now - newest.taken)} ago"
    )
    return (
        f"the last proven snapshot, {proven.file}, is of {format_age(now - proven.taken)} ago{last}"
    )


def format_age(length: timedelta) -> str:
    """Write an age in hours, or in days from two on."""
    hours = int(length.total_seconds()) // 3600
    return f"{hours // 24} days" if hours >= DAYS_FROM else f"{hours} h"


def rehearsal_table(one: Manifest, compared: str) -> Table:
    """Tell which snapshot was restored, and by what it was compared."""
    return Table(
        ("cluster", "snapshot", "of", "revision", "compared"),
        ((one.cluster, one.file, f"{one.taken:%Y-%m-%d %H:%M}Z", str(one.revision), compared),),
    )


def _size(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
