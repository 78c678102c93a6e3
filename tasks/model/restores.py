"""A restore of a whole cluster as its hosts have it: what is in place, what is staged, what can.

The hosts remember, and nobody else: restored data carry a mark, which goes where they go.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.model.snapshots import Manifest

MARK = "etcd-runbooks-restored.json"
"""In `member` of a data directory, where etcd looks at nothing that it has not made."""
UNLIMITED_BYTES = 100 << 30
"""The quota while data are verified: no limit of a member's is a reason to call them unsound."""


class Mark(BaseModel):
    """What data were restored from, and as which cluster.

    `token` is the initial cluster's, one for each restore: cluster and members have ids of their
    own by it. `raised` is what was added to the snapshot's revision, all before which is compacted
    then; `revision` is what the data have at least. `opened` once clients have been let in.
    """

    model_config = ConfigDict(frozen=True)

    runbook: str
    token: str
    sha256: str
    hosts: tuple[str, ...]
    revision: int
    raised: int
    opened: bool = False

    def is_same(self, other: Mark | None) -> bool:
        """Whether both are of one restore."""
        return other is not None and other.token == self.token


def parse_mark(content: bytes) -> Mark | None:
    """Read a mark; None where it is none."""
    try:
        return Mark.model_validate_json(content)
    except ValidationError:
        return None


@dataclass(frozen=True, slots=True)
class RestoreTools:
    """A directory of a host with etcd and what restores; `version` is etcd's, empty: none runs.

    `tool` is empty where nothing there restores; `bumps`: whether it can raise the revision.
    """

    directory: PurePosixPath
    version: str
    tool: str
    bumps: bool

    @property
    def is_inside(self) -> bool:
        """Whether they are in a container that runs, and go with it."""
        return self.directory.is_relative_to("/proc")


@dataclass(frozen=True, slots=True)
class RestoreHost:
    """One host, before or in the middle of a restore.

    `stage` is where data are made ready beside the member's, `owner` (uid:gid) whose they are to
    be. `has_data` is the member's own; `marked` and `staged` are the marks of what is in place and
    of what is ready. `free` are bytes where the data lie, `data_bytes` the database's there.
    `is_installed`: something starts a member there. `is_isolated`: etcd runs where no client
    reaches it; `port_user` is who else has the port for that.
    """

    host: str
    stage: PurePosixPath
    owner: str
    has_data: bool
    marked: Mark | None
    staged: Mark | None
    is_installed: bool
    runs: bool
    is_isolated: bool
    port_user: str
    free: int
    data_bytes: int
    tools: tuple[RestoreTools, ...]

    def best_tools(self, version: str) -> RestoreTools | None:
        """Choose the directory that can restore with the programs of a version."""
        return next((t for t in self.tools if t.version == version and t.tool), None)


@dataclass(frozen=True, slots=True)
class RestoreSource:
    """A snapshot as a whole, checked file on the runner, with its checksum.

    `sha256` is the database's, as in a manifest, `file_sha256` of all the file. `revision` is the
    highest that is known to be in it; `keys` are counted at its very head, None where they were
    not. `has_checksum`: the file came with one. `at` is the host that has the file already.
    """

    file: Path
    file_sha256: str
    told: str
    size: int
    sha256: str
    revision: int
    keys: int | None
    manifest: Manifest | None
    has_checksum: bool = True
    at: str = ""

    @property
    def is_proven(self) -> bool:
        """Whether it was rehearsed already."""
        return self.has_checksum and bool(self.manifest and self.manifest.proven)


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where a log ends: the last entry's term and index, the vote, and what is known committed.

    `cluster_id` is whose it is. `offset` is where the last whole record of the newest segment ends,
    and `crc` its checksum.
    """

    term: int
    index: int
    vote_term: int
    vote: int
    commit: int
    offset: int
    crc: int
    cluster_id: int

    @property
    def rank(self) -> tuple[int, int]:
        """What Raft compares logs by: the furthest one has all that was ever acknowledged."""
        return self.term, self.index
