"""What of the things that runs leave behind may go by an inventory's rules. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tasks.model.inventory import Inventory
from tasks.model.plan import Plan, Stage, Step
from tasks.model.retention import Backup, Retention
from tasks.model.snapshots import Manifest

TIDY = Stage(1, "compress and remove")
TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveJournals(Step):
    """Compress journals on the runner."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSnapshots(Step):
    """Remove the snapshots that no rule keeps."""

    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveBackups(Step):
    """Remove on a host what runs have replaced there."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leavings:
    """What there is: journals that nobody writes, with their times; snapshots that no rule keeps.

    `settled` are the beginnings of the ids of runs whose work is done, by them or by a later run;
    `unseen` are hosts that could not be asked, with the reason.
    """

    journals: Mapping[str, datetime]
    expired: tuple[Manifest, ...]
    backups: Mapping[str, tuple[Backup, ...]]
    settled: Collection[str]
    unseen: Mapping[str, str] = field(default_factory=dict)


def choose_backups(
    backups: Iterable[Backup], settled: Collection[str], rules: Retention, now: datetime
) -> tuple[Backup, ...]:
    """Choose what may go of a host's, the oldest first.

    Never what a run has replaced that is not known to be done: it is unfinished, or another
    machine's. Never the newest so many, and no directory that is none of a run's.
    """
    if rules.backups_days is None:
        return ()
    ours = [(one.taken, one) for one in backups if one.taken is not None]
    newest_first = [one for _, one in sorted(ours, key=lambda row: row[0], reverse=True)]
    limit = now - timedelta(days=rules.backups_days)
    return tuple(
        one
        for one in reversed(newest_first[rules.backups_keep :])
        if one.taken is not None and one.taken < limit and one.run in settled
    )


def plan_housekeeping(inventory: Inventory, seen: Leavings, now: datetime) -> Plan:
    """Plan what is compressed and removed."""
    rules = inventory.retention
    limit = now - timedelta(days=rules.journals_days)
    steps: list[Step] = []
    if old := tuple(sorted(name for name, at in seen.journals.items() if at < limit)):
        sentence = f"compress {len(old)} journal(s) from before {limit:%Y-%m-%d}: {_told(old)}"
        steps.append(ArchiveJournals(stage=TIDY, host=None, sentence=sentence, names=old))
    if files := tuple(one.file for one in seen.expired):
        sentence = f"remove {len(files)} snapshot(s) that no rule keeps: {_told(files)}"
        steps.append(RemoveSnapshots(stage=TIDY, host=None, sentence=sentence, files=files))
    for host, backups in seen.backups.items():
        if not (chosen := choose_backups(backups, seen.settled, rules, now)):
            continue
        names = tuple(one.name for one in chosen)
        size = sum(one.kibibytes for one in chosen) / 1024
        sentence = f"remove what {len(names)} run(s) have replaced, {size:.1f} MB: {_told(names)}"
        steps.append(RemoveBackups(stage=TIDY, host=host, sentence=sentence, names=names))
    goal = "journals, snapshots and replaced files stay as long as the inventory says"
    return Plan("apply_retention", inventory.name, goal, tuple(steps), _warnings(seen))


def _warnings(seen: Leavings) -> tuple[str, ...]:
    return tuple(f"{host} is not looked at: {why}" for host, why in seen.unseen.items())


def _told(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return ", ".join(names[:TOLD]) + more
