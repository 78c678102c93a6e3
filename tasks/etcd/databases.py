"""A snapshot's file before etcd sees it: what it is, and whether it is whole and unchanged.

`etcdutl snapshot status` does not notice a changed byte, and none of etcd's tools says what a file
is that it does not take. Sources: bbolt's internal/common/{meta,page}.go, etcd's
api/v3rpc/maintenance.go; the members as server/etcdserver/api/membership/store.go writes them.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tasks.etcd.snapshots import CHECKSUM_BYTES, PAGE_BYTES
from tasks.model.snapshots import Manifest

_MAGIC, _META, _HEADER = 0xED0CDAED, struct.Struct("<IIIIQQQQQ"), 16
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"age-encryption.org/": "age",
    b"-----BEGIN AGE": "age",
}
_PEER_URLS = re.compile(rb'"peerURLs":\[([^\]\x00]{1,2000})\]')
_PART = 1 << 20


class Wrong(StrEnum):
    """What a file is in place of a snapshot."""

    NONE = "no snapshot"
    PACKED = "packed"
    TRUNCATED = "truncated"
    UNHASHED = "without a checksum"
    CHANGED = "changed"
    SWAPPED = "another one"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a file is no snapshot, or not the one that is meant; the sentence goes on from "it"."""

    kind: Wrong
    sentence: str


def find_fault(bare: Path, manifest: Manifest | None) -> Fault | None:
    """Say what is wrong with the file itself, or with it as the manifest's; None: it is sound."""
    size = bare.stat().st_size
    with bare.open("rb") as file:
        head = file.read(_PART)
    whole = _size_of_database(head)
    return (
        _find_stranger(head, size, is_database=manifest is not None or whole is not None)
        or _find_cut(size, whole, manifest)
        or _find_change(bare, manifest)
    )


def _find_stranger(head: bytes, size: int, *, is_database: bool) -> Fault | None:
    packer = next((name for start, name in _PACKED.items() if head.startswith(start)), None)
    if packer is not None:
        return Fault(Wrong.PACKED, f"it is packed with {packer}; unpack it first")
    if size and is_database:
        return None
    return Fault(Wrong.NONE, "it is no database of etcd's" if size else "it is empty")


def _find_cut(size: int, whole: int | None, manifest: Manifest | None) -> Fault | None:
    if whole is not None and size < whole:
        return Fault(Wrong.TRUNCATED, f"it is cut off: {size} bytes of {whole}")
    if size % PAGE_BYTES == 0:
        return Fault(
            Wrong.UNHASHED,
            "it is a database without a checksum, as one that was copied from a member's disk",
        )
    if manifest is not None and size != manifest.size + CHECKSUM_BYTES:
        saved = manifest.size + CHECKSUM_BYTES
        return Fault(Wrong.TRUNCATED, f"it has {size} bytes, and {saved} were saved")
    if size % PAGE_BYTES != CHECKSUM_BYTES:
        return Fault(Wrong.TRUNCATED, f"it is cut off, or has something behind it: {size} bytes")
    return None


def _find_change(bare: Path, manifest: Manifest | None) -> Fault | None:
    digest, trailer = read_digest(bare)
    if digest != trailer:
        return Fault(
            Wrong.CHANGED,
            "its content does not match its own checksum: it has been changed or is damaged",
        )
    if manifest is not None and trailer != manifest.sha256:
        return Fault(
            Wrong.SWAPPED, "it is another snapshot than its manifest's: the checksums differ"
        )
    return None


def read_digest(bare: Path) -> tuple[str, str]:
    """Get the SHA-256 of a snapshot's database, and the one that ends the file."""
    left, digest = bare.stat().st_size - CHECKSUM_BYTES, hashlib.sha256()
    with bare.open("rb") as file:
        while left:
            part = file.read(min(left, _PART))
            digest.update(part)
            left -= len(part)
        return digest.hexdigest(), file.read().hex()


def digest_file(file: Path) -> str:
    """Get the SHA-256 of a whole file, as hosts compare it when it arrives."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def add_digest(bare: Path) -> None:
    """End a database that has no checksum with its own, as etcd's tools want it."""
    digest = hashlib.sha256()
    with bare.open("r+b") as file:
        while part := file.read(_PART):
            digest.update(part)
        file.write(digest.digest())


def find_peer_urls(bare: Path) -> frozenset[str]:
    """Find the peer URLs of the members that a database lists, those of its past among them."""
    with (
        bare.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return frozenset(
            url.strip('" ')
            for found in _PEER_URLS.finditer(content)
            for url in found[1].decode(errors="replace").split(",")
        )


def _size_of_database(head: bytes) -> int | None:
    """Read how many bytes bbolt's newer meta page says that there are; None: it is none."""
    found = []
    for start in (0, *((_page(head),) if _page(head) else ())):
        if len(head) >= start + _HEADER + _META.size:
            fields = _META.unpack_from(head, start + _HEADER)
            if fields[0] == _MAGIC:
                found.append((fields[8], fields[7] * fields[2]))
    return max(found)[1] if found else None


def _page(head: bytes) -> int:
    """Read the size of a page, in bytes; 0 where there is none."""
    if len(head) < _HEADER + _META.size:
        return 0
    fields = _META.unpack_from(head, _HEADER)
    return int(fields[2]) if fields[0] == _MAGIC else 0
