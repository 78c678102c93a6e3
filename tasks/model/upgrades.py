"""What an upgrade asks of a host: what runs there, from which file, and what is in its log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from tasks.model.layout import NOTES
from tasks.model.member_settings import SettingsFiles

FORCED = NOTES / "forced-snapshot"
"""Where a host keeps its settings as they were while its log is saved after each entry."""


class Accept(StrEnum):
    """What an operator takes upon himself for an upgrade."""

    SETTINGS = "settings"
    PACKAGE = "package"
    V2_CLIENTS = "v2-clients"
    OUTAGE = "outage"


@dataclass(frozen=True, slots=True)
class LogRemnants:
    """What of the v2 store is left in a member's log and in the newest snapshot of it.

    `entries` are those that 3.6 ends for, such as 3.4's /health leaves; `writes` are among them,
    of clients' keys; `has_keys`: the snapshot holds some, for which 3.6 does not start at all.
    `own` are etcd's, which it writes up to 3.5 when a member starts: 3.7 ends for them, too.
    `is_saved`: the snapshot is later than all of them, so that no start reads them again.
    """

    entries: int = 0
    writes: int = 0
    has_keys: bool = False
    own: int = 0
    is_saved: bool = False

    def ends(self, minor: tuple[int, int]) -> bool:
        """Whether a minor version ends while it reads the log, or for what is saved of it."""
        if self.is_saved and not self.has_keys:
            return False
        return bool(self.entries or (self.own and minor >= (3, 7)))


@dataclass(frozen=True, slots=True)
class UpgradeSight:
    """One host: what runs and what is on its disk; `free` and `data_free` in bytes.

    `running` is the version that runs, None where none does; `disk` is that of `program`, which is
    named as the unit does and lies in truth in `real`, beside which `free` is left, and `data_free`
    for the data and the log; `quota` is its database's, 0 where nothing
    tells. `owner` is the package that the program is of. `has_v2_api`: what runs, or what would
    start, serves clients of the v2 API.
    `kept` are settings that a run has left changed, for its log's sake; `staged` are versions whose
    programs a run has put beside.
    Of a static pod `program` is its image, `real` its manifest, and `image` the one that it is to
    have; `taken_out` says that a run has left a manifest of its node out.
    """

    host: str
    running: str | None
    disk: str | None
    program: str
    real: PurePosixPath
    architecture: str
    owner: str
    is_own_unit: bool
    free: int
    data_free: int
    quota: int
    settings: SettingsFiles
    log: LogRemnants = LogRemnants()
    has_v2_api: bool = False
    kept: tuple[str, ...] = ()
    staged: tuple[str, ...] = ()
    image: str = ""
    taken_out: bool = False

    @property
    def version(self) -> str:
        """What runs, or else what would start."""
        return self.running or self.disk or ""

    def beside(self, version: str) -> PurePosixPath:
        """Say where a version's programs are put: on the same file system, where programs run."""
        return self.real.parent / f".etcd-{version}"


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that becomes another, or goes (`new` is empty); `place` is its file and line."""

    name: str
    value: str
    new: str
    new_value: str
    place: str

    @property
    def sentence(self) -> str:
        """Say what becomes of it."""
        had = f"{self.place}: {self.name}={self.value}"
        return f"{had} becomes {self.new}={self.new_value}" if self.new else f"{had} is taken out"


@dataclass(frozen=True, slots=True)
class Translation:
    """The files as they shall be, what changed in them, and what stands against it."""

    files: SettingsFiles
    changes: tuple[Change, ...] = ()
    faults: tuple[str, ...] = ()
