"""Who else uses a member's files, and which certificates of its authority lie about its host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileUser:
    """A process that is not the member's, and names one of the member's files."""

    path: str
    process: str
    pid: int
    unit: str

    def __str__(self) -> str:
        return f"{self.process} (process {self.pid} of {self.unit})"


@dataclass(frozen=True, slots=True)
class StrayCertificate:
    """A certificate of a host that is none of the member's files; `issuer` is a fingerprint.

    `user` is the process that names it; None for one that lies beside the member's.
    """

    path: str
    issuer: str
    user: FileUser | None


@dataclass(frozen=True, slots=True)
class Sharing:
    """What was seen on one host; `linked` are the files that have further names (hard links).

    `keys` are files that hold an authority's key, each with that authority's fingerprint.
    """

    host: str
    users: tuple[FileUser, ...]
    linked: tuple[str, ...]
    strays: tuple[StrayCertificate, ...]
    keys: tuple[tuple[str, str], ...] = ()
