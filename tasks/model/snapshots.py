"""Snapshots that are kept: where, for whom, how long, and what is written beside each.

Owns the rules of the inventory's `snapshots` and the manifest; reads and writes no file.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.model.certificates import Strict
from tasks.model.credentials import SecretSource

S3 = "s3://"
SUFFIX, ENCRYPTED, MANIFEST = ".db", ".age", ".json"

_RECIPIENT = re.compile(r"age1[0-9a-z]{58}|ssh-(ed25519|rsa) [0-9A-Za-z+/=]+")
_PLACE = re.compile(r"/.*|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")
_TIME = "%Y%m%dT%H%M%SZ"


def _check_recipient(text: str) -> str:
    if not _RECIPIENT.fullmatch(text):
        # Not told what it is: it may be the secret half.
        msg = "is no recipient of age's: age1..., or an SSH public key without its comment"
        raise ValueError(msg)
    return text


def _check_place(text: str) -> str:
    if not _PLACE.fullmatch(text):
        msg = f"{text!r} is neither an absolute directory nor s3://BUCKET/FOLDER"
        raise ValueError(msg)
    return text.rstrip("/") or "/"


Recipient = Annotated[str, AfterValidator(_check_recipient)]
Place = Annotated[str, AfterValidator(_check_place)]


class Keep(Strict):
    """How many snapshots stay: the newest of each of so many hours, days, weeks and months."""

    hourly: int = Field(24, ge=0)
    daily: int = Field(7, ge=0)
    weekly: int = Field(5, ge=0)
    monthly: int = Field(12, ge=0)


class SnapshotRules(Strict):
    """Where a cluster's snapshots go, who can read them, and how long they stay."""

    store: Place | None = Field(
        None,
        description="A directory on the runner, or s3://BUCKET/FOLDER; PREFECT_HOME's without it.",
        examples=["/var/backups/etcd", "s3://backups/etcd"],
    )
    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+/?$",
        description="The S3 server's URL, where it is not Amazon's.",
        examples=["https://s3.example.org"],
    )
    recipients: tuple[Recipient, ...] = Field(
        (), description="For whom snapshots are encrypted with age; none: they are not encrypted."
    )
    keep: Keep | None = Field(None, description="Without it, none is ever deleted.")
    proven_within_hours: int | None = Field(
        168,
        ge=1,
        description="How old the newest proven snapshot may be before an event tells it; null: "
        "it is never told.",
    )
    identity: SecretSource | None = Field(
        None, description="Where the secret key lies that opens encrypted ones, to rehearse them."
    )
    programs: Path | None = Field(
        None,
        description="A directory on the runner with etcd and etcdutl of the cluster's version, to "
        "rehearse with; without it, those of `etcd.binaries`.",
        examples=["/opt/etcd-3.6.16"],
    )

    @model_validator(mode="after")
    def _endpoint_is_of_s3(self) -> Self:
        if self.endpoint and not (self.store or "").startswith(S3):
            msg = f"endpoint: it goes with a store that begins with {S3}"
            raise ValueError(msg)
        return self

    def is_stale(self, proven: Manifest | None, now: datetime) -> bool:
        """Say whether the newest proven snapshot is too old; none is, too."""
        if self.proven_within_hours is None:
            return False
        allowed = timedelta(hours=self.proven_within_hours)
        return proven is None or now - proven.taken > allowed


class SnapshotMember(BaseModel):
    """A member as it was when a snapshot was taken."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    peer_urls: tuple[str, ...]
    is_learner: bool = False
    version: str | None = None


class DataHash(BaseModel):
    """What etcd's HashKV said at the manifest's revision; the compaction is part of it."""

    model_config = ConfigDict(frozen=True)

    hash: int
    compact_revision: int


class EncryptionFile(BaseModel):
    """With what a kube-apiserver encrypts what it stores; without it a snapshot is no use to it."""

    model_config = ConfigDict(frozen=True)

    host: str
    path: str
    sha256: str


class Manifest(BaseModel):
    """What is known of a snapshot, written beside it once it is whole; never a key.

    The data holds every write up to `revision`, and perhaps some after it. `size` and `sha256` are
    the database's, as etcd sent it; `behind` is how many entries of the log the source lacked.
    `encryption_unseen` are the machines whose API server could not be asked for its `encryption`.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    cluster: str
    cluster_id: str
    revision: int
    taken: datetime
    source: str
    behind: int
    size: int
    sha256: str
    key_count: int | None
    hash_kv: DataHash | None
    cluster_version: str
    members: tuple[SnapshotMember, ...]
    authorities: tuple[str, ...]
    encryption: tuple[EncryptionFile, ...] = ()
    encryption_unseen: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    runbook: str = ""
    run: str = ""
    proven: datetime | None = None

    @property
    def beside(self) -> str:
        """The name that this manifest has."""
        return manifest_name(self.file)

    def render(self) -> bytes:
        """Write it as JSON."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def snapshot_name(cluster: str, revision: int, taken: datetime, *, encrypted: bool) -> str:
    """Name a snapshot's file by its cluster, revision and time."""
    when = taken.astimezone(UTC).strftime(_TIME)
    return f"{cluster}-r{revision}-{when}{SUFFIX}{ENCRYPTED if encrypted else ''}"


def manifest_name(file: str) -> str:
    """Name the manifest of a snapshot's file."""
    return file.removesuffix(ENCRYPTED).removesuffix(SUFFIX) + MANIFEST


def parse_manifest(content: bytes) -> Manifest | None:
    """Read a manifest; None where it is none, or names a file elsewhere."""
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError:
        return None
    return None if "/" in manifest.file else manifest


def taken_order(manifest: str) -> str:
    """Order the names of manifests by when their snapshots were taken."""
    return manifest.rpartition("-")[2]
