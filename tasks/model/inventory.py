"""The inventory: one file a cluster, the state that the operator wants.

Owns its fields, their rules and their defaults (the procedures' own). Reading the file is in
`inventory_file`; nothing here looks at a host.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from tasks.model.certificates import CertificatePolicy, Role, Strict

CLIENT_PORT = 2379
PEER_PORT = 2380
HOST_PLACE = "{host}"
KUBEADM = PurePosixPath("/etc/kubernetes/pki")
"""kubeadm's cmd/kubeadm/app/constants: CertificatesDir."""

_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")

ENGINE_SETTINGS = frozenset(
    f"ETCD_{name}"
    for name in (
        "NAME DATA_DIR WAL_DIR LISTEN_PEER_URLS LISTEN_CLIENT_URLS INITIAL_ADVERTISE_PEER_URLS "
        "ADVERTISE_CLIENT_URLS INITIAL_CLUSTER INITIAL_CLUSTER_STATE INITIAL_CLUSTER_TOKEN "
        "STRICT_RECONFIG_CHECK CERT_FILE KEY_FILE CLIENT_CERT_AUTH TRUSTED_CA_FILE AUTO_TLS "
        "PEER_CERT_FILE PEER_KEY_FILE PEER_CLIENT_CERT_AUTH PEER_TRUSTED_CA_FILE PEER_AUTO_TLS "
        "FORCE_NEW_CLUSTER HEARTBEAT_INTERVAL ELECTION_TIMEOUT SNAPSHOT_COUNT "
        "QUOTA_BACKEND_BYTES AUTO_COMPACTION_MODE AUTO_COMPACTION_RETENTION "
        "LISTEN_METRICS_URLS LOG_LEVEL LOGGER"
    ).split()
)


def is_ip_address(text: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address, without a zone, which URLs cannot have."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _check_address(text: str) -> str:
    if is_ip_address(text):
        return text
    labels = text.split(".")
    if len(text) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():  # noqa: PLR2004 - RFC 1035
        msg = f"{text!r} is neither an IP address nor a host name"
        raise ValueError(msg)
    return text


def _check_ip_address(text: str) -> str:
    if not is_ip_address(text):
        msg = f"{text!r} is not an IP address"
        raise ValueError(msg)
    return text


def _check_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        msg = f"{text!r} is not a name: lower-case letters, digits, dots, dashes, at most 63"
        raise ValueError(msg)
    return text


def _check_account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        msg = f"{text!r} is not the name of a Unix account"
        raise ValueError(msg)
    return text


def _check_file_template(text: str) -> str:
    _check_absolute(PurePosixPath(text.replace(HOST_PLACE, "host")))
    return text


def _check_absolute(path: PurePosixPath) -> PurePosixPath:
    if not path.is_absolute() or ".." in path.parts or re.search(r"[^\w./@+-]", str(path)):
        msg = f"'{path}' is not an absolute path of letters, digits and . _ - + @"
        raise ValueError(msg)
    return path


Address = Annotated[str, AfterValidator(_check_address)]
IpAddress = Annotated[str, AfterValidator(_check_ip_address)]
Name = Annotated[str, AfterValidator(_check_name)]
Account = Annotated[str, AfterValidator(_check_account)]
HostPath = Annotated[PurePosixPath, AfterValidator(_check_absolute)]
FileTemplate = Annotated[str, AfterValidator(_check_file_template)]
Port = Annotated[int, Field(ge=1, le=65535)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Topology(StrEnum):
    """Where etcd's members run."""

    EXTERNAL = "external"
    STACKED = "stacked"


class Approval(StrEnum):
    """Whether a plan that changes the members waits for a person."""

    NONE = "none"
    REQUIRED = "required"


class JumpHost(Strict):
    """The SSH host through which all others are reached."""

    address: Address = Field(examples=["bastion.example.org"])
    port: Port = 22
    user: Account | None = None


class Ssh(Strict):
    """How the runner logs in; paths are relative to the inventory file."""

    user: Account = Field("root", examples=["operator"])
    port: Port = Field(22, examples=[22])
    key: Path | None = Field(
        None, description="Private key; without it the SSH agent.", examples=["~/.ssh/id_ed25519"]
    )
    known_hosts: Path = Field(
        Path("~/.ssh/known_hosts"), description="Host keys; an unknown one is refused."
    )
    jump_host: JumpHost | None = None
    connect_timeout_seconds: float = Field(10.0, gt=0, le=120, examples=[10])


class SshOverride(Strict):
    """What is different for one host."""

    user: Account | None = None
    port: Port | None = None
    key: Path | None = None


class Host(Strict):
    """One machine; its name is also the member's name."""

    name: Name = Field(examples=["master01"])
    address: Address | None = Field(
        None, description="Where SSH goes; without it, the name.", examples=["192.168.100.200"]
    )
    peer_address: IpAddress | None = Field(None, examples=["192.168.100.200"])
    client_address: IpAddress | None = Field(None, examples=["192.168.100.200"])
    ssh: SshOverride = SshOverride()
    extra_sans: tuple[Address, ...] = Field((), examples=[["etcd01.example.org"]])

    @property
    def ssh_address(self) -> str:
        """Where SSH connects."""
        return self.address or self.name

    @property
    def fixed_address(self) -> str | None:
        """The address for etcd's URLs as far as the inventory fixes it; None is detected."""
        return self.address if self.address and is_ip_address(self.address) else None


class InstalledBinaries(Strict):
    """Etcd is already on the hosts."""

    source: Literal["installed"] = "installed"


class ArchiveBinaries(Strict):
    """A release archive (.tar.gz) on the runner; its etcd and etcdctl are uploaded."""

    source: Literal["archive"]
    path: Path = Field(examples=["etcd-v3.5.16-linux-amd64.tar.gz"])
    sha256: Sha256 = Field(description="Of the archive.", examples=["a" * 64])


class DirectoryBinaries(Strict):
    """A directory on the runner; the programs that have a SHA-256 here are uploaded."""

    source: Literal["directory"]
    path: Path = Field(examples=["/srv/etcd/3.5.16"])
    sha256: dict[Literal["etcd", "etcdctl", "etcdutl"], Sha256] = Field(
        examples=[{"etcd": "a" * 64, "etcdctl": "b" * 64}]
    )

    @field_validator("sha256")
    @classmethod
    def _has_etcd(cls, sums: dict[str, str]) -> dict[str, str]:
        if "etcd" not in sums:
            msg = "names no SHA-256 for etcd itself"
            raise ValueError(msg)
        return sums


class Settings(Strict):
    """Etcd's own settings; what is left out keeps etcd's default."""

    heartbeat_interval_ms: int = Field(100, ge=10, le=60_000, examples=[100])
    election_timeout_ms: int = Field(1000, ge=50, le=50_000, examples=[1000])
    snapshot_count: int | None = Field(None, ge=1, examples=[10000])
    quota_backend_bytes: int | None = Field(None, ge=1 << 20, examples=[8589934592])
    auto_compaction_mode: Literal["periodic", "revision"] | None = None
    auto_compaction_retention: str | None = Field(None, pattern=r"^[0-9]+[hms]?$", examples=["8h"])
    listen_metrics_urls: tuple[str, ...] = Field((), examples=[["http://127.0.0.1:2381"]])
    log_level: Literal["debug", "info", "warn", "error"] | None = None
    environment: dict[str, str] = Field(
        default_factory=dict,
        description="Further ETCD_* variables, as etcd names them.",
        examples=[{"ETCD_MAX_REQUEST_BYTES": "1572864"}],
    )

    @model_validator(mode="after")
    def _election_fits_heartbeat(self) -> Self:
        if self.election_timeout_ms < 5 * self.heartbeat_interval_ms:
            msg = (
                f"election_timeout_ms {self.election_timeout_ms} is less than five times "
                f"heartbeat_interval_ms {self.heartbeat_interval_ms}; etcd would not start"
            )
            raise ValueError(msg)
        return self

    @field_validator("listen_metrics_urls")
    @classmethod
    def _are_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not re.fullmatch(r"https?://[\w.:\[\]-]+:\d+", url):
                msg = f"{url!r} is not a URL with a port"
                raise ValueError(msg)
        return urls

    @field_validator("environment")
    @classmethod
    def _are_not_the_engines(cls, variables: dict[str, str]) -> dict[str, str]:
        for name, value in variables.items():
            if not re.fullmatch(r"ETCD_[A-Z0-9_]+", name):
                msg = f"{name!r} is not the name of an etcd variable"
                raise ValueError(msg)
            if name in ENGINE_SETTINGS:
                msg = f"{name} is set by the runbooks from other fields; take it out here"
                raise ValueError(msg)
            if not re.fullmatch(r"[^\n\r\"'\\$`]*", value):
                msg = f"{name} has a quote, a backslash, a dollar or a line break in its value"
                raise ValueError(msg)
        return variables


class Etcd(Strict):
    """Which etcd, whose account it runs as, and its settings."""

    version: str = Field(pattern=r"^\d+\.\d+\.\d+$", examples=["3.5.16"])
    binaries: InstalledBinaries | ArchiveBinaries | DirectoryBinaries = Field(
        InstalledBinaries(), discriminator="source"
    )
    run_as: Account = Field("etcd", description="System user; made where it is missing.")
    cluster_token: str = Field("etcd-cluster", pattern=r"^[\w.-]{1,100}$")
    settings: Settings = Settings()

    @property
    def version_tuple(self) -> tuple[int, int, int]:
        """The version as numbers."""
        major, minor, patch = map(int, self.version.split("."))
        return major, minor, patch

    @field_validator("version")
    @classmethod
    def _is_supported(cls, version: str) -> str:
        major_minor = tuple(map(int, version.split(".")[:2]))
        if not (3, 4) <= major_minor <= (3, 7):
            msg = f"etcd {version} is not supported; 3.4, 3.5, 3.6 and 3.7 are"
            raise ValueError(msg)
        return version


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


class Passphrase(Strict):
    """Where the passphrase of the authority's key comes from; never the passphrase itself."""

    block: str | None = Field(None, description="A Prefect Secret block.", examples=["etcd-ca"])
    env: str | None = Field(None, description="An environment variable.", examples=["ETCD_CA"])
    file: Path | None = Field(None, description="A file of mode 0600.", examples=["passphrase"])

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(part is not None for part in (self.block, self.env, self.file)) != 1:
            msg = "exactly one of block, env and file is needed"
            raise ValueError(msg)
        return self


class Client(Strict):
    """A certificate of the cluster's outside etcd: a kube-apiserver's, a CNI's, a worker's.

    With `managed: false` the operator renews it and installs what it trusts; runbooks only say
    when, and look at it where `certificate` is given.
    """

    name: Name = Field(examples=["worker01-calico"])
    host: Name | None = Field(None, description="The member's host that it is on.")
    address: Address | None = Field(None, description="Where SSH goes, on another machine.")
    ssh: SshOverride = SshOverride()
    certificate: HostPath | None = Field(None, examples=["/etc/calico/certs/cert.crt"])
    key: HostPath | None = Field(None, examples=["/etc/calico/certs/key.pem"])
    trusted: HostPath | None = Field(
        None, description="The authorities that it trusts.", examples=["/etc/calico/certs/ca.pem"]
    )
    common_name: str | None = Field(None, min_length=1, examples=["kube-apiserver-etcd-client"])
    owner: Account = "root"
    group: Account = "root"
    after_change: str | None = Field(
        None,
        description="Shell, as root, that makes it read its files again.",
        examples=["systemctl restart kube-apiserver"],
    )
    managed: bool = True

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.certificate is None and self.managed:
            msg = f"client {self.name} has no certificate; name its file, or set managed: false"
            raise ValueError(msg)
        if self.managed and (self.key is None or self.trusted is None):
            msg = f"client {self.name} lacks key or trusted; name the files, or set managed: false"
            raise ValueError(msg)
        if self.certificate is not None and (self.host is None) == (self.address is None):
            msg = f"client {self.name} needs either host (a member's) or address"
            raise ValueError(msg)
        return self


class Dependent(Strict):
    """A machine that lists the members: on a member's host, or at an address of its own."""

    name: Name = Field(examples=["controlplane01"])
    host: Name | None = Field(None, description="The member's host that it is on.")
    address: Address | None = Field(None, description="Where SSH goes, on another machine.")
    ssh: SshOverride = SshOverride()

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if (self.host is None) == (self.address is None):
            msg = f"{self.name} needs either host (a member's) or address"
            raise ValueError(msg)
        return self


class KubeApiserver(Dependent):
    """A kube-apiserver as a static pod; --etcd-servers in its manifest follows the members."""

    manifest: HostPath = PurePosixPath("/etc/kubernetes/manifests/kube-apiserver.yaml")
    livez: str = Field(
        "https://127.0.0.1:6443/livez",
        pattern=r"^https?://[\w.:\[\]-]+/[\w/?=&-]*$",
        description="Asked on that machine after the change.",
    )


class Haproxy(Strict):
    """A HAProxy with a section of servers for etcd's clients."""

    configuration: HostPath = PurePosixPath("/etc/haproxy/haproxy.cfg")
    backend: str = Field(
        pattern=r"^[\w.:-]+$", description="The backend or listen section.", examples=["etcd"]
    )
    service: str = Field("haproxy.service", pattern=r"^[\w.@-]+$")


class LoadBalancer(Dependent):
    """A load balancer before the members: HAProxy, or another one behind a hook."""

    haproxy: Haproxy | None = None
    hook: str | None = Field(
        None,
        description="Shell, as root there, with ETCD_ENDPOINTS; may be run twice.",
        examples=["/usr/local/sbin/etcd-endpoints"],
    )

    @model_validator(mode="after")
    def _has_one_way(self) -> Self:
        if (self.haproxy is None) == (self.hook is None):
            msg = f"{self.name} needs either haproxy or hook"
            raise ValueError(msg)
        return self


class Expiry(Strict):
    """When an end is near: so many days before it, yet never more than a share of the life.

    The share keeps a certificate that lives for a week from being told on its first day.
    """

    warning_days: int = Field(90, ge=1, examples=[90])
    critical_days: int = Field(30, ge=1, examples=[30])
    warning_share: float = Field(1 / 3, gt=0, le=1, examples=[0.33])
    critical_share: float = Field(1 / 6, gt=0, le=1, examples=[0.16])

    @model_validator(mode="after")
    def _critical_is_later(self) -> Self:
        if self.critical_days > self.warning_days or self.critical_share > self.warning_share:
            msg = "critical_days and critical_share must not be more than the warning's"
            raise ValueError(msg)
        return self

    def warn_before(self, life: timedelta) -> timedelta:
        """How long before the end of a certificate with this life it is due for renewal."""
        return min(timedelta(days=self.warning_days), life * self.warning_share)

    def alarm_before(self, life: timedelta) -> timedelta:
        """How long before the end it is critical."""
        return min(timedelta(days=self.critical_days), life * self.critical_share)


class Authority(Strict):
    """The certificate authority's files on the runner; made when both are missing."""

    certificate: Path = Field(examples=["lab3-authority/ca.pem"])
    key: Path = Field(
        description="Encrypted PKCS #8; never on the hosts.", examples=["lab3-authority/ca-key.pem"]
    )
    passphrase: Passphrase


class Inventory(Strict):
    """One cluster as the operator wants it."""

    name: Name = Field(examples=["lab3"])
    topology: Topology = Topology.EXTERNAL
    hosts: tuple[Host, ...] = Field(min_length=1, examples=[[{"name": "master01"}]])
    even_members: bool = Field(
        False, description="Allow an even number of members, which tolerates no more failures."
    )
    ssh: Ssh = Ssh()
    etcd: Etcd
    paths: Paths = Paths()
    certificates: CertificatePolicy = CertificatePolicy()
    cfssl_directory: Path | None = Field(
        None, description="cfssl's ca-config.json and *-csr.json, laid over `certificates`."
    )
    authority: Authority
    extra_sans: tuple[Address, ...] = Field((), examples=[["etcd.example.org"]])
    clients: tuple[Client, ...] = Field((), description="Certificates outside etcd.")
    kube_apiservers: tuple[KubeApiserver, ...] = Field(
        (), description="Whose --etcd-servers follow the members."
    )
    load_balancers: tuple[LoadBalancer, ...] = Field((), description="Whose servers follow them.")
    expiry: Expiry = Expiry()
    approval: Approval = Field(
        Approval.NONE, description="Whether changes of the members wait for a person."
    )

    @model_validator(mode="after")
    def _others_fit(self) -> Self:
        hosts = {host.name for host in self.hosts}
        names = set(hosts)
        for field, others in (
            ("clients", self.clients),
            ("kube_apiservers", self.kube_apiservers),
            ("load_balancers", self.load_balancers),
        ):
            for other in others:
                if other.name in names:
                    kind = "client or host" if field == "clients" else "machine"
                    msg = f"{field}: {other.name} is the name of another {kind}"
                    raise ValueError(msg)
                names.add(other.name)
                if other.host is not None and other.host not in hosts:
                    where = f"is on the host {other.host}, which is not in hosts"
                    msg = f"{field}: {other.name} {where}"
                    raise ValueError(msg)
        return self

    @property
    def dependents(self) -> tuple[KubeApiserver | LoadBalancer, ...]:
        """All that list the members."""
        return (*self.kube_apiservers, *self.load_balancers)

    @model_validator(mode="after")
    def _hosts_differ(self) -> Self:
        for field in ("name", "ssh_address", "peer_address", "client_address"):
            seen: dict[str, str] = {}
            for host in self.hosts:
                value = getattr(host, field)
                if value is None:
                    continue
                if value in seen:
                    label = "address" if field == "ssh_address" else field
                    msg = (
                        f"hosts: two hosts have the {label} {value} "
                        f"({seen[value]} and {host.name}); each needs its own"
                    )
                    raise ValueError(msg)
                seen[value] = host.name
        return self

    def host(self, name: str) -> Host:
        """Get one host by its name; raises KeyError."""
        return {host.name: host for host in self.hosts}[name]

    def pair(self, role: Role, host: str) -> PairFiles:
        """Get the files of one role on a host, its name filled in."""
        files = self.paths.pairs.get(role) or self._default_pair(role)
        return PairFiles(
            certificate=files.certificate.replace(HOST_PLACE, host),
            key=files.key.replace(HOST_PLACE, host),
        )

    def pairs(self, host: str) -> tuple[Pair, ...]:
        """List a host's certificates, each file once: one may play several roles."""
        found: dict[PurePosixPath, Pair] = {}
        for role in Role:
            files = self.pair(role, host)
            path = PurePosixPath(files.certificate)
            roles = (*found[path].roles, role) if path in found else (role,)
            label = "+".join(roles)
            found[path] = Pair(label, roles, path, PurePosixPath(files.key))
        if self.topology is Topology.STACKED:
            stem = KUBEADM / "apiserver-etcd-client"
            certificate, key = stem.with_suffix(".crt"), stem.with_suffix(".key")
            found[certificate] = Pair("apiserver", (Role.CLIENT,), certificate, key)
        return tuple(found.values())

    def _default_pair(self, role: Role) -> PairFiles:
        if self.topology is Topology.STACKED:
            stem = {
                Role.SERVER: KUBEADM / "etcd/server",
                Role.PEER: KUBEADM / "etcd/peer",
                Role.CLIENT: KUBEADM / "etcd/healthcheck-client",
            }[role]
            return PairFiles(certificate=f"{stem}.crt", key=f"{stem}.key")
        directory = self.paths.certificates
        return PairFiles(
            certificate=f"{directory / role.certificate_file}", key=f"{directory / role.key_file}"
        )

    @property
    def trusted(self) -> PurePosixPath:
        """The file of the authorities that the members trust."""
        if self.topology is Topology.STACKED and self.paths.trusted is None:
            return KUBEADM / "etcd/ca.crt"
        return self.paths.authority
