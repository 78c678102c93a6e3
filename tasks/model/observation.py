"""What was seen on one host, before anything is decided.

Facts only: a missing file is None, a probe that failed keeps its error text. Whether a fact is
good or bad is for plans/.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from tasks.model.certificates import Role
from tasks.model.member_settings import SettingsFiles, TextFile


class ServiceState(StrEnum):
    """systemd's ActiveState."""

    ACTIVE = "active"
    RELOADING = "reloading"
    INACTIVE = "inactive"
    FAILED = "failed"
    ACTIVATING = "activating"
    DEACTIVATING = "deactivating"
    MAINTENANCE = "maintenance"
    REFRESHING = "refreshing"


class DataDirectory(StrEnum):
    """What the data directory holds; only a write-ahead log makes it a member's."""

    MISSING = "missing"
    EMPTY = "empty"
    LEFTOVERS = "leftovers"
    INITIALISED = "initialised"


class Reachability(StrEnum):
    """What a TCP connection from one host to another's port met."""

    OPEN = "open"
    REFUSED = "refused"
    TIMED_OUT = "timed out"
    WRONG_HOST = "answered by another host"


@dataclass(frozen=True, slots=True)
class ClockReading:
    """A host's clock minus the runner's, and how uncertain that is, in seconds."""

    host: str
    clock_offset: float
    clock_uncertainty: float


@dataclass(frozen=True, slots=True)
class FileState:
    """A file that exists: its text (None where it is not read), mode in octal and owner."""

    mode: str
    owner: str
    group: str
    sha256: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A systemd unit."""

    state: ServiceState
    is_enabled: bool
    needs_daemon_reload: bool = False
    sub_state: str = ""
    is_masked: bool = False


@dataclass(frozen=True, slots=True)
class LeafFiles:
    """One role's pair on a host: the certificate, and the public half of its key, PEM.

    `key_public` is SubjectPublicKeyInfo; the private key itself is never read.
    """

    certificate: FileState | None
    key: FileState | None
    key_public: str | None


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening TCP port, the program that holds it, and the address that it is bound to.

    `unit` is what that process belongs to, by its control group; `is_own`: it is the member's.
    """

    port: int
    program: str
    address: str = "*"
    unit: str = ""
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class Room:
    """A place where a run writes: the file system there, after all links.

    `real` is where links lead, `directory` what of that is there already, with its mode and owner.
    `trouble` is why it took no file, empty where it did; `runs`: the file could be started as a
    program. `is_empty`: it holds nothing but lost+found. `free` is in bytes.
    """

    path: str
    real: str
    directory: str
    file_system: str
    free: int
    mode: str = "0755"
    owner: str = "root"
    runs: bool = True
    is_mount: bool = False
    is_empty: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """An installed binary."""

    name: str
    sha256: str
    version: str | None


@dataclass(frozen=True, slots=True)
class HostObservation:
    """Everything that a plan or a preflight asks about one host.

    Times in seconds, sizes in bytes; `clock_offset` is the host's clock minus the runner's,
    known to within `clock_uncertainty`. `detected_address` is the default route's address,
    `settings` the files that say how its etcd starts.
    """

    host: str
    hostname: str
    operating_system: str
    architecture: str
    systemd_version: int | None
    clock_offset: float
    clock_uncertainty: float
    detected_address: str | None
    addresses: tuple[str, ...]
    missing_tools: tuple[str, ...]
    disk_free: int
    fsync_mean: float | None
    listeners: tuple[Listener, ...]
    programs: tuple[Program, ...]
    account_uid: int | None
    account_group: str | None
    data: DataDirectory
    state_mode: str | None
    resolved: dict[str, tuple[str, ...]]
    service: ServiceStatus | None
    unit: FileState | None
    configuration: FileState | None
    authority: FileState | None
    leaves: dict[Role, LeafFiles] = field(default_factory=dict)
    certificates_mode: str | None = None
    settings: SettingsFiles | None = None
    rooms: tuple[Room, ...] = ()


@dataclass(frozen=True, slots=True)
class PairsObservation:
    """The pairs of one host or client, what it trusts, and what its etcd serves.

    `pairs` goes by the pairs' labels, `served` by port: the leaf that is presented, PEM, None
    where there is no answer; empty for a client. `clock_offset` is in seconds, known to within
    `clock_uncertainty`. `has_pending_change`: a client whose files were changed and which was
    not told yet. `rooms` are tried for a change alone, `settings` read where somebody asks.
    """

    host: str
    clock_offset: float
    clock_uncertainty: float
    service: ServiceStatus | None
    trusted: FileState | None
    group: str | None
    pairs: dict[str, LeafFiles]
    served: dict[int, str | None]
    has_pending_change: bool = False
    rooms: tuple[Room, ...] = ()
    settings: SettingsFiles | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """One host's way to another's port."""

    source: str
    target: str
    address: str
    port: int
    met: Reachability


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory: its mode in octal, and whose it is."""

    path: str
    mode: str
    owner: str
    group: str


@dataclass(frozen=True, slots=True)
class Places:
    """What is there of the files and directories, and of the accounts and groups, asked for."""

    found: dict[str, Directory]
    accounts: frozenset[str]
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Likeness:
    """How a host is made like a member's: what it lacks, and how its files differ from that one's.

    `model` is that member's host; `directories` and `accounts` are still to be made. `trusted` is
    its trusted file, whose mode and owner a new one gets.
    """

    model: str
    diff: str
    files: tuple[TextFile, ...]
    directories: tuple[Directory, ...] = ()
    accounts: tuple[str, ...] = ()
    trusted: FileState | None = None


@dataclass(frozen=True, slots=True)
class HostTarget:
    """What a host shall hold: texts as rendered, programs by SHA-256 (empty: as installed).

    `leaf_differences` says, for each role, why the pair on the host is not the wanted one. Where
    the cluster has a layout of its own, `likeness` stands for unit and configuration.
    """

    host: str
    unit: str
    configuration: str
    authority: str | None
    program_sums: dict[str, str]
    leaf_differences: dict[Role, tuple[str, ...]]
    configuration_identity: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """What tells clusters apart in etcd.conf, as it is and as it should be."""
    likeness: Likeness | None = None
