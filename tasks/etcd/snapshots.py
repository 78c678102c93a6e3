"""A snapshot of a member's data as a stream that is verified while it goes by.

`etcdctl snapshot status` does not notice a changed byte, so the checksum that ends the stream is
compared here: the database, a multiple of 512 bytes, and the SHA-256 of it.
Source: etcd's server/storage/mvcc, api/v3rpc/maintenance.go.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.model.errors import EtcdUnavailable

CHECKSUM_BYTES = 32
PAGE_BYTES = 512


class SnapshotStream:
    """One member's snapshot; `size` (bytes) and `sha256` are the database's, once all has come."""

    def __init__(self, client: EtcdClient, endpoint: Endpoint) -> None:
        self._client = client
        self._endpoint = endpoint
        self._digest = hashlib.sha256()
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes of the database."""
        return self._bytes - CHECKSUM_BYTES

    @property
    def sha256(self) -> str:
        """The database's digest, which was compared with the stream's own."""
        return self._digest.hexdigest()

    async def parts(self) -> AsyncIterator[bytes]:
        """Stream database and checksum, once.

        Raises EtcdUnavailable at the end when what came does not match its checksum, and as the
        client's calls do.
        """
        tail = b""
        async for part in self._client.stream_snapshot(self._endpoint):
            self._bytes += len(part)
            tail += part
            self._digest.update(tail[:-CHECKSUM_BYTES])
            tail = tail[-CHECKSUM_BYTES:]
            yield part
        if self._bytes % PAGE_BYTES != CHECKSUM_BYTES or self._digest.digest() != tail:
            raise EtcdUnavailable(
                f"the snapshot from {self._endpoint.url} ({self._bytes} bytes) does not match its "
                "checksum",
                host=self._endpoint.name,
            )
