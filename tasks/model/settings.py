"""Which etcd runs, as whom, and with which settings of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tasks.model.certificates import Strict
from tasks.model.fields import Account, Port, Sha256

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
    listen_metrics_urls: tuple[str, ...] = Field(
        (),
        description="{address} stands for the address of the member's client URL.",
        examples=[["http://127.0.0.1:2381"]],
    )
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

    @property
    def election_seconds(self) -> float:
        """How long an election may take: one to two timeouts, and a second one for split votes."""
        return 5 * self.election_timeout_ms / 1000

    @field_validator("listen_metrics_urls")
    @classmethod
    def _are_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not re.fullmatch(r"https?://([\w.:\[\]-]+|{address}):\d+", url):
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


Uploaded = Annotated[ArchiveBinaries | DirectoryBinaries, Field(discriminator="source")]


class Etcd(Strict):
    """Which etcd, whose account it runs as, and its settings."""

    version: str = Field(pattern=r"^\d+\.\d+\.\d+$", examples=["3.5.16"])
    binaries: InstalledBinaries | ArchiveBinaries | DirectoryBinaries = Field(
        InstalledBinaries(), discriminator="source"
    )
    versions: dict[str, Uploaded] = Field(
        default_factory=dict,
        description="Further versions that upgrade_cluster may pass through, with their programs: "
        "one of each minor version between what runs and `version`.",
    )
    run_as: Account = Field("etcd", description="System user; made where it is missing.")
    client_port: Port = Field(2379, description="Of the URL that members tell their clients.")
    peer_port: Port = Field(2380, description="Of the URL that members tell each other.")
    cluster_token: str = Field("etcd-cluster", pattern=r"^[\w.-]{1,100}$")
    settings: Settings = Settings()

    @property
    def version_tuple(self) -> tuple[int, int, int]:
        """The version as numbers."""
        major, minor, patch = map(int, self.version.split("."))
        return major, minor, patch

    @field_validator("versions")
    @classmethod
    def _are_versions(cls, versions: dict[str, Uploaded]) -> dict[str, Uploaded]:
        for version in versions:
            if not re.fullmatch(r"\d+\.\d+\.\d+", version):
                msg = f"{version!r} is no version such as 3.5.32"
                raise ValueError(msg)
        return versions

    @field_validator("version")
    @classmethod
    def _is_supported(cls, version: str) -> str:
        major_minor = tuple(map(int, version.split(".")[:2]))
        if not (3, 4) <= major_minor <= (3, 7):
            msg = f"etcd {version} is not supported; 3.4, 3.5, 3.6 and 3.7 are"
            raise ValueError(msg)
        return version
