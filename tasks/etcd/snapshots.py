"""A snapshot of the cluster's data on the runner, verified while it is written.

`etcdctl snapshot status` does not notice a changed byte, so the checksum that ends the stream is
compared here: the database, a multiple of 512 bytes, and the SHA-256 of it.
Source: etcd's server/storage/mvcc, api/v3rpc/maintenance.go.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.model.errors import EtcdUnavailable, Refused

CHECKSUM_BYTES = 32
PAGE_BYTES = 512


async def save_snapshot(client: EtcdClient, endpoint: Endpoint, path: Path) -> int:
    """Save a member's database to a file of mode 0600; returns its size in bytes.

    The file is whole and verified, or not there. Raises EtcdUnavailable when what came does not
    match its checksum, Refused when the runner's disk does not take it, and as the client's calls
    do.
    """
    partial = path.with_name(path.name + ".partial")
    digest, tail, size = hashlib.sha256(), b"", 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(
            os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
        ) as file:
            async for part in client.stream_snapshot(endpoint):
                file.write(part)
                size += len(part)
                tail += part
                digest.update(tail[:-CHECKSUM_BYTES])
                tail = tail[-CHECKSUM_BYTES:]
            file.flush()
            os.fsync(file.fileno())
        if size % PAGE_BYTES != CHECKSUM_BYTES or digest.digest() != tail:
            raise EtcdUnavailable(
                f"the snapshot from {endpoint.url} ({size} bytes) does not match its checksum",
                host=endpoint.name,
            )
        partial.replace(path)
    except OSError as error:
        raise Refused(
            f"the snapshot cannot be written to {path.parent} ({error.strerror or error}). Make "
            "room there, or set PREFECT_HOME to a directory with room, and run it again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return size
