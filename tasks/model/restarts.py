"""What runs as a member, and what its unit would start next: facts of one host."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RunningEtcd:
    """The unit's main process: its program's version, its arguments and its ETCD_* variables.

    `program` is the path that it was started from; `is_deleted` when there is no file any more,
    `is_replaced` when that is another file now.
    """

    program: str
    version: str | None
    arguments: tuple[str, ...]
    environment: dict[str, str]
    is_replaced: bool
    is_deleted: bool


@dataclass(frozen=True, slots=True)
class NextStart:
    """What systemd would start now, from the unit as it is loaded and its files as they are.

    `program` has no version where it is missing or does not run. `faults` say why etcd would not
    start with the settings, `ignored` which of them its version would pass over, `skipped` the
    lines of its files that systemd passes over.
    """

    program: str
    version: str | None
    arguments: tuple[str, ...]
    environment: dict[str, str]
    missing_files: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trust:
    """The authorities of a member, by name: `held` by each trusted file, `loaded` by its process.

    `loaded` are the different lists of its listeners; `changed` the files that were changed after
    its start, be it their mode alone.
    """

    held: dict[str, tuple[str, ...]]
    loaded: tuple[tuple[str, ...], ...]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StartObservation:
    """One host's member as it runs (None: not at all) and as it would start.

    `unit_file_state` is systemd's (enabled, disabled, masked); `needs_daemon_reload` when the
    unit's files are not those that systemd has loaded.
    """

    host: str
    unit: str
    running: RunningEtcd | None
    next: NextStart
    unit_file_state: str
    needs_daemon_reload: bool = False
    unread: tuple[str, ...] = field(default=())
    """EnvironmentFiles that the unit needs and that are not there."""
    trust: Trust | None = None
