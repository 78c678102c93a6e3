"""Where things lie on the hosts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import Field

from tasks.model.certificates import Role, Strict
from tasks.model.fields import FileTemplate, HostPath


class PairFiles(Strict):
    """A certificate and its key; "{host}" stands for the host's name."""

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
    """Where things lie on the hosts."""

    certificates: HostPath = PurePosixPath("/etc/etcd/ssl")
    configuration: HostPath = PurePosixPath("/etc/etcd/etcd.conf")
    state: HostPath = Field(
        PurePosixPath("/var/lib/etcd"), description="Working directory; holds default.etcd."
    )
    data_directory: HostPath | None = Field(
        None, description="Etcd's data; without it, default.etcd in `state`."
    )
    trusted: HostPath | None = Field(
        None, description="The authorities that members trust; without it, ca.pem in certificates."
    )
    pairs: dict[Role, PairFiles] = Field(
        default_factory=dict, description="Pairs that lie elsewhere or have other names."
    )
    unit: HostPath = PurePosixPath("/etc/systemd/system/etcd.service")
    binaries: HostPath = PurePosixPath("/usr/local/bin")
    backups: HostPath = Field(
        PurePosixPath("/var/backups/etcd-runbooks"), description="Where replaced files are kept."
    )

    @property
    def data(self) -> PurePosixPath:
        """Etcd's data directory."""
        return self.data_directory or self.state / "default.etcd"

    @property
    def authority(self) -> PurePosixPath:
        """The certificates that the members trust."""
        return self.trusted or self.certificates / "ca.pem"

    @property
    def service(self) -> str:
        """The systemd unit's name."""
        return self.unit.name
