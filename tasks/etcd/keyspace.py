"""What is asked about a database's space and data, pure: calls to build and answers to read.

Keys are counted by etcd's index, without reading them. Values are read for a small sample, of which
the lengths alone are kept.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from tasks.etcd.wire import Call, NotEtcd, encode_bytes, parse_uint64
from tasks.model.members import Alarm
from tasks.model.snapshots import DataHash

DEFRAGMENT = Call("/v3/maintenance/defragment")
IS_COMPACTED = "required revision has been compacted"
END = b"\0"


@dataclass(frozen=True, slots=True)
class Sampled:
    """A key of a sample: the bytes of key and value, and how often it was written."""

    size: int
    version: int


def compact(revision: int) -> Call:
    """Ask to forget what was before a revision; answered when the member asked has done it."""
    return Call("/v3/kv/compaction", {"revision": str(revision), "physical": True})


def disarm(alarm: Alarm) -> Call:
    """Ask to take an alarm back."""
    return _alarm(alarm, "DEACTIVATE")


def arm(alarm: Alarm) -> Call:
    """Ask to raise an alarm."""
    return _alarm(alarm, "ACTIVATE")


def list_keys(start: bytes, end: bytes, limit: int) -> Call:
    """Ask a member for its first keys from `start` on, without values."""
    return _range(start, end, limit=str(limit), keys_only=True)


def count_range(start: bytes, end: bytes) -> Call:
    """Ask a member how many keys it has there now."""
    return _range(start, end, count_only=True)


def sample(start: bytes, end: bytes, limit: int) -> Call:
    """Ask a member for its first keys there, with their values."""
    return _range(start, end, limit=str(limit))


def hash_kv(revision: int) -> Call:
    """Ask a member for the hash of its own data up to a revision; 3.4 and 3.5.1 do not know it."""
    return Call("/v3/maintenance/hashkv", {"revision": str(revision)})


def parse_first_key(answer: dict[str, Any]) -> bytes | None:
    """Read the first key of an answer; None where there is none. Raises NotEtcd."""
    rows = _rows(answer)
    return base64.b64decode(rows[0].get("key", "")) if rows else None


def parse_sample(answer: dict[str, Any]) -> tuple[Sampled, ...]:
    """Read how long the keys and values of an answer are, and nothing else; raises NotEtcd."""
    return tuple(
        Sampled(
            _length(row.get("key", "")) + _length(row.get("value", "")),
            parse_uint64(row, "version"),
        )
        for row in _rows(answer)
    )


def parse_hash(answer: dict[str, Any]) -> DataHash:
    """Read the answer to `hash_kv`; raises NotEtcd. Compacted at -1 is not compacted yet."""
    found = answer.get("hash")  # of 32 bits, and so a number
    if not isinstance(found, int):
        raise NotEtcd(f"answers without a hash: {found!r}")
    is_never = answer.get("compact_revision") == "-1"
    compacted = 0 if is_never else parse_uint64(answer, "compact_revision")
    return DataHash(hash=found, compact_revision=compacted)


def _alarm(alarm: Alarm, action: str) -> Call:
    member = {"memberID": str(alarm.member_id), "alarm": str(alarm.type)}
    return Call("/v3/maintenance/alarm", {"action": action} | member)


def _range(start: bytes, end: bytes, **how: str | bool) -> Call:
    place = {"key": encode_bytes(start), "range_end": encode_bytes(end), "serializable": True}
    return Call("/v3/kv/range", place | how)


def _length(text: str) -> int:
    return len(text) // 4 * 3 - text[-2:].count("=")


def _rows(answer: dict[str, Any]) -> list[dict[str, Any]]:
    rows = answer.get("kvs", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise NotEtcd(f"'kvs' is not a list of objects: {type(rows).__name__}")
    return rows
