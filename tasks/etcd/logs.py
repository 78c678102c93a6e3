"""A member's write-ahead log, read to its last whole record; and the record that commits it all.

Owns the format, which is one from 3.0 to 3.7: frames of a length and a protobuf record, each with
the CRC-32C of all before it in its segment. Sources: etcd's server/storage/wal (encoder.go,
decoder.go, walpb/record.proto) and its api's membership metadata, raft's raftpb/raft.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tasks.model.restores import LogEnd

_TYPE, _CRC, _DATA = 1, 2, 3
_METADATA, _ENTRY, _STATE, _CHECKSUM = 1, 2, 3, 4
_LATER = frozenset({_ENTRY, _STATE, 5})
"""What may stand anywhere in a segment; the others begin it."""
_ALIGNMENT = 8
_VARINT, _BYTES = 0, 2
_MORE = 0x80
"""A varint's byte that another one follows."""
_POLYNOMIAL = 0x82F63B78


class LogUnreadable(Exception):
    """A log without a whole record."""


_Record = tuple[int, int, int, bytes]
"""Where a record ends, its type, its checksum and its data."""


@dataclass(slots=True)
class _Told:
    """What the records so far have told."""

    last: tuple[int, int] = (0, 0)
    state: tuple[int, int, int] = (0, 0, 0)
    cluster_id: int = 0

    def take(self, kind: int, data: bytes) -> None:
        fields = _fields(data) if kind in {_METADATA, _ENTRY, _STATE} else {}
        if kind == _ENTRY:
            self.last = fields.get(2, 0), fields.get(3, 0)
        elif kind == _STATE:
            self.state = fields.get(1, 0), fields.get(2, 0), fields.get(3, 0)
        elif kind == _METADATA:
            self.cluster_id = fields.get(2, 0)


@dataclass(frozen=True, slots=True)
class LogSegment:
    """A file of a log: how it begins, and its end from byte `start` on; nothing of between.

    A segment that is here as a whole is all `tail`, from 0 on.
    """

    name: str
    size: int
    head: bytes
    tail: bytes
    start: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it is missing."""
        return self.start == 0


def read_log(segments: tuple[LogSegment, ...]) -> LogEnd:
    """Read the newest segments of a log, the oldest first; raises LogUnreadable.

    A record that was cut off by a power cut ends the log, as etcd's own repair does.
    """
    told, offset, crc = _Told(), 0, 0
    for segment in segments:
        for _, kind, _, data in _records(segment.head) if not segment.is_whole else ():
            if kind != _ENTRY:
                told.take(kind, data)
        first = 0 if segment.is_whole else _find_record(segment.tail)
        records = list(_records(segment.tail, first))
        if records and _is_torn(records):
            records.pop()
        for _, kind, _, data in records:
            told.take(kind, data)
        end, _, crc, _ = records[-1] if records else (0, 0, 0, b"")
        offset = segment.start + end if records else 0
        if not segment.is_whole and not any(kind == _ENTRY for _, kind, _, _ in records):
            raise LogUnreadable("its end holds no entry")
    if not offset:
        raise LogUnreadable("there is no whole record in it")
    term, vote, commit = told.state
    # Without an entry all are in older segments; what is committed is known to be there.
    last = told.last if told.last[1] else (term, commit)
    return LogEnd(*last, term, vote, commit, offset, crc, told.cluster_id)


def _find_record(tail: bytes) -> int:
    """Find where a record begins in the middle of a segment: one that the next one's CRC follows.

    Frames are aligned. Returns the end of what is here where there is none.
    """
    for position in range(0, len(tail), _ALIGNMENT):
        found = list(islice(_records(tail, position), 2))
        kinds = {kind for _, kind, _, _ in found}
        if len(found) > 1 and kinds <= _LATER and not _is_torn(found):
            return position
    return len(tail)


def _is_torn(records: list[_Record]) -> bool:
    """Whether the last record is whole in its length, and not in its content."""
    _, kind, said, data = records[-1]
    before = records[-2][2] if len(records) > 1 else 0
    return kind != _CHECKSUM and checksum(data, before) != said


def commit_record(end: LogEnd) -> bytes:
    """Write the frame that says that all of a log is committed, to follow its last record.

    A survivor may not have heard yet that an entry was acknowledged, which it has.
    """
    data = b"".join(
        _varint(number << 3) + _varint(value)
        for number, value in ((1, max(end.vote_term, end.term)), (2, end.vote), (3, end.index))
    )
    record = (
        _varint(_TYPE << 3)
        + _varint(_STATE)
        + _varint(_CRC << 3)
        + _varint(checksum(data, end.crc))
        + _varint(_DATA << 3 | _BYTES)
        + _varint(len(data))
        + data
    )
    padding = -len(record) % _ALIGNMENT
    length = len(record) | ((0x80 | padding) << 56 if padding else 0)
    return struct.pack("<Q", length) + record + bytes(padding)


def checksum(data: bytes, before: int) -> int:
    """Go on with a CRC-32C over more data."""
    crc = before ^ 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _row(number: int) -> int:
    for _ in range(8):
        number = (number >> 1) ^ (_POLYNOMIAL if number & 1 else 0)
    return number


_TABLE = tuple(map(_row, range(256)))


def _records(segment: bytes, position: int = 0) -> Iterator[_Record]:
    """List a segment's records: where each ends, its type, its checksum and its data."""
    while position + _ALIGNMENT <= len(segment):
        (length,) = struct.unpack_from("<Q", segment, position)
        padding = (length >> 56) & 0x7 if length >> 63 else 0
        size = length & ((1 << 56) - 1)
        start = position + _ALIGNMENT
        end = start + size + padding
        if size == 0 or end > len(segment):
            return
        try:
            record = _fields(segment[start : start + size])
        except (IndexError, ValueError):
            return
        data = record.get(_DATA, b"")
        if _TYPE not in record or not isinstance(data, bytes):
            return
        yield end, record[_TYPE], record.get(_CRC, 0), data
        position = end


def _fields(message: bytes) -> dict[int, Any]:
    """Read a protobuf message of numbers and bytes; raises ValueError or IndexError."""
    found: dict[int, Any] = {}
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        number, kind = key >> 3, key & 7
        value, position = _read_varint(message, position)
        if kind == _BYTES:
            if position + value > len(message):
                raise ValueError("cut off")
            found[number], position = message[position : position + value], position + value
        elif kind == _VARINT:
            found[number] = value
        else:
            raise ValueError("no field of such a record")
    return found


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < _MORE:
            return value, position
        shift += 7


def _varint(value: int) -> bytes:
    written = bytearray()
    while value >= _MORE:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
