"""What was seen of an etcd that somebody else has set up, as its own process tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import PurePosixPath

from tasks.model.certificates import FileAccess, KeySpec, Role, SubjectName, Usage
from tasks.model.members import Member
from tasks.model.nodes import NodeObservation


@dataclass(frozen=True, slots=True)
class FoundLeaf:
    """What one certificate is, in the words of the inventory's policy.

    `sans` are its names and addresses; `unkept` names what the inventory has no word for. Without
    a key, its kind is one that is not made here.
    """

    common_name: str
    names: tuple[SubjectName, ...]
    key: KeySpec | None
    validity: timedelta
    usages: tuple[Usage, ...]
    sans: tuple[str, ...]
    unkept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundPair:
    """One certificate and its key on a host; no leaf where it cannot be read.

    `intermediate` is the authority that signed it, where that is not a root.
    """

    certificate: PurePosixPath
    key: PurePosixPath
    leaf: FoundLeaf | None = None
    access: FileAccess | None = None
    intermediate: str | None = None


@dataclass(frozen=True, slots=True)
class FoundEtcd:
    """Etcd on one host: `settings` are flags and variables alike, by their ETCD_ names.

    They are the process's, made of its `arguments` and `variables`; where etcd does not run, those
    of its unit's files. `unknown` says what could not be understood of these, `skipped` what etcd
    or systemd passes over in them, `others` which further etcds run on the host, by the last part
    of their control group, and `processes` their ids.
    `environment_file` is the first that sets something of etcd's. `keys_of_authority` are private
    keys that lie beside the trusted file. `members` is what the member told, None where it could
    not be asked.
    `places` says in which file and line a setting is written, where one of its files gives it.
    Of a static pod `node` is its node, and the files' paths are the host's.
    `authorities` and `peer_authorities` are the fingerprints in the trusted files; None where one
    cannot be read. `authority_text` is the one of them that has signed the server's pair, PEM, and
    `authority` is what it is; None where that is no root among them.
    `hostname` is what the system calls itself, `directory` is where etcd is started.
    """

    host: str
    unit_path: str
    environment_file: str | None
    account: str
    program: str
    version: str | None
    is_running: bool
    settings: dict[str, str]
    trusted_text: str | None = None
    keys_of_authority: tuple[str, ...] = ()
    files_beside: tuple[str, ...] = ()
    members: tuple[Member, ...] | None = None
    told: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    processes: dict[str, int] = field(default_factory=dict)
    pairs: dict[Role, FoundPair] = field(default_factory=dict)
    authority: FoundLeaf | None = None
    authority_text: str | None = None
    authorities: frozenset[str] | None = None
    peer_authorities: frozenset[str] | None = None
    hostname: str = ""
    directory: str = "/"
    node: NodeObservation | None = None

    @property
    def manifest(self) -> str:
        """The static pod's file; empty where a unit runs etcd."""
        return self.node.pod.file.path if self.node and self.node.pod else ""

    @property
    def name(self) -> str:
        """The member's name, or the host's where it has none."""
        return self.setting("NAME") or self.host

    @property
    def has_one_authority(self) -> bool:
        """Whether clients and peers are trusted by the same certificates, in whichever files."""
        clients, peers = self.setting("TRUSTED_CA_FILE"), self.setting("PEER_TRUSTED_CA_FILE")
        same = self.authorities is not None and self.authorities == self.peer_authorities
        return peers in ("", clients) or same

    def written(self, name: str) -> str:
        """Write a setting as its flag, with what it is and where that is written."""
        where = self.places.get(f"ETCD_{name}")
        told = ", ".join(filter(None, (self.setting(name), where)))
        return f"--{name.lower().replace('_', '-')} ({told})"

    def setting(self, name: str, otherwise: str = "") -> str:
        """Get one setting by etcd's name without the prefix, or what etcd takes without it."""
        return self.settings.get(f"ETCD_{name}", otherwise)
