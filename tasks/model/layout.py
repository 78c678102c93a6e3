"""Where things lie on the hosts: the inventory's `paths`, and what they come to on one host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import Field

from tasks.model.certificates import Generation, Role, Strict
from tasks.model.fields import FileTemplate, HostPath, fill
from tasks.model.pods import apiserver_pod

NOTES = PurePosixPath("/var/lib/etcd-runbooks")
"""Where a run notes on a host what a client or a load balancer has not been told yet."""
MANIFEST = PurePosixPath("/etc/kubernetes/manifests/etcd.yaml")
"""kubeadm's cmd/kubeadm/app/constants: the file of etcd's static pod."""


class PairFiles(Strict):
    """A certificate and its key; "{host}" and "{member}" stand for the host's and its member's."""

    certificate: FileTemplate = Field(examples=["/etc/ssl/etcd/ssl/member-{host}.pem"])
    key: FileTemplate = Field(examples=["/etc/ssl/etcd/ssl/member-{host}-key.pem"])


@dataclass(frozen=True, slots=True)
class Pair:
    """Where one certificate and its key lie on one host, and which roles of etcd's it plays."""

    label: str
    roles: tuple[Role, ...]
    certificate: PurePosixPath
    key: PurePosixPath


class Paths(Strict):
    """Where things lie on the hosts; "{host}" and "{member}" as in `pairs`."""

    certificates: HostPath = PurePosixPath("/etc/etcd/ssl")
    configuration: HostPath = PurePosixPath("/etc/etcd/etcd.conf")
    state: HostPath = Field(
        PurePosixPath("/var/lib/etcd"), description="Working directory; holds default.etcd."
    )
    data_directory: FileTemplate | None = Field(
        None,
        description="Etcd's data; without it, default.etcd in `state`.",
        examples=["/var/lib/etcd/{member}.etcd"],
    )
    wal_directory: FileTemplate | None = Field(
        None,
        description="Etcd's write-ahead log; without it, member/wal in its data. Etcd replaces "
        "it at a first start: it is below a disk's root, in a directory of etcd's account.",
        examples=["/wal/etcd"],
    )
    trusted: HostPath | None = Field(
        None, description="The authorities that members trust; without it, ca.pem in certificates."
    )
    peer_trusted: HostPath | None = Field(
        None, description="The same for the peer port, where that has a file of its own."
    )
    pairs: dict[Role, PairFiles] = Field(
        default_factory=dict, description="Pairs that lie elsewhere or have other names."
    )
    unit: HostPath = PurePosixPath("/etc/systemd/system/etcd.service")
    manifest: HostPath = Field(
        MANIFEST, description="Of a stacked member: the file of its static pod."
    )
    binaries: HostPath = PurePosixPath("/usr/local/bin")
    backups: HostPath = Field(
        PurePosixPath("/var/backups/etcd-runbooks"), description="Where replaced files are kept."
    )

    @property
    def authority(self) -> PurePosixPath:
        """The certificates that the members trust."""
        return self.trusted or self.certificates / "ca.pem"

    @property
    def service(self) -> str:
        """The systemd unit's name."""
        return self.unit.name


@dataclass(frozen=True, slots=True)
class Layout:
    """How one host's member runs: its name, its files, its unit or its pod.

    `trusted` are the authorities that it trusts in its clients, `peer_trusted` in its peers: one
    file, or two that hold the same. `wal` is None where the log lies in the data directory.
    `peer_address` and `client_address` are as the inventory fixes them, names too; None is
    detected. `address` is the host's own, where the inventory has it.
    `manifest` is the static pod's that the kubelet makes a member of; None where a unit does.
    `authority` is where the authority lies on the host, if it was made there. `restarts_kubelet`:
    whether a static pod's kubelet may be restarted.
    """

    host: str
    member: str
    pairs: tuple[Pair, ...]
    trusted: PurePosixPath
    peer_trusted: PurePosixPath
    configuration: PurePosixPath
    state: PurePosixPath
    data: PurePosixPath
    wal: PurePosixPath | None
    unit: PurePosixPath
    binaries: PurePosixPath
    peer_address: str | None
    client_address: str | None
    peer_port: int
    client_port: int
    manifest: PurePosixPath | None = None
    authority: Pair | None = None
    restarts_kubelet: bool = True
    address: str | None = None

    @property
    def has_apiserver(self) -> bool:
        """Whether an API server lives on this member alone, and trusts what it trusts."""
        return self.manifest is not None

    @property
    def service(self) -> str:
        """The systemd unit's name."""
        return self.unit.name

    @property
    def is_pod(self) -> bool:
        """Whether kubeadm made the member: its files and certificates are there or are not."""
        return self.manifest is not None

    @property
    def ending(self) -> str:
        """Write what an operator types on the host, so that the member never starts again."""
        return "kubeadm reset" if self.is_pod else f"systemctl disable --now {self.service}"

    @property
    def stopping(self) -> str:
        """Say what keeps the member from running."""
        if self.manifest is None:
            return f"stop and disable {self.service}"
        names = f"{apiserver_pod(self.manifest).manifest.name} and {self.manifest.name}"
        return f"take {names} out of {self.manifest.parent} and wait until both are gone"

    @property
    def trusted_files(self) -> tuple[PurePosixPath, ...]:
        """Every file of authorities, each once."""
        return tuple(dict.fromkeys((self.trusted, self.peer_trusted)))

    @property
    def credentials(self) -> tuple[PurePosixPath, ...]:
        """Every file of authorities, every certificate and every key."""
        files = (path for pair in self.pairs for path in (pair.certificate, pair.key))
        return (*self.trusted_files, *files)

    @property
    def places(self) -> tuple[PurePosixPath, ...]:
        """Every file and directory that a run may write for this member."""
        log = () if self.wal is None else (self.wal, self.wal.parent)
        own = (self.binaries, self.configuration, self.unit)
        starts = own if self.manifest is None else (self.manifest,)
        return (*starts, self.state, self.data, *log, *self.credentials)

    @property
    def data_directories(self) -> tuple[PurePosixPath, ...]:
        """Every directory that a member's data are in: what is set aside together, in this order.

        The log first: data without it are leftovers, but a log alone would be a member's.
        """
        return (self.data,) if self.wal is None else (self.wal, self.data)

    def pair(self, role: Role) -> Pair:
        """Get the pair that plays a role."""
        return next(pair for pair in self.pairs if role in pair.roles)


def group_pairs(files: dict[Role, PairFiles], host: str, member: str) -> tuple[Pair, ...]:
    """List a host's certificates, each file once: one may play several roles."""
    found: dict[PurePosixPath, Pair] = {}
    for role in Role:
        path = PurePosixPath(fill(files[role].certificate, host, member))
        key = PurePosixPath(fill(files[role].key, host, member))
        roles = (*found[path].roles, role) if path in found else (role,)
        found[path] = Pair("+".join(roles), roles, path, key)
    return tuple(found.values())


def generation_files(pair: Pair, generation: Generation) -> tuple[PurePosixPath, PurePosixPath]:
    """Get the paths of an authority's certificate and key on a host."""
    if generation is Generation.CURRENT:
        return pair.certificate, pair.key
    certificate, key = (
        path.with_name(f"{path.stem}.{generation}{path.suffix}")
        for path in (pair.certificate, pair.key)
    )
    return certificate, key
