"""The JSON gateway's language, pure: requests to build and answers to read.

Owns the oddities of protobuf's JSON: 64-bit numbers are strings of decimal digits, keys are
base64, and fields that are zero, false or empty are left out. Sends nothing and knows no endpoint.
Source: etcd's api/etcdserverpb/rpc.proto, and the answers of 3.4.23, 3.5.1, 3.5.16, 3.5.30, 3.6.14.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from tasks.model.endpoints import EndpointStatus
from tasks.model.histories import KeyState
from tasks.model.members import Alarm, AlarmType, Member

COMMON_NAME_IGNORED = "CommonName of client sending a request against gateway will be ignored"

# Etcd 3.5 does not always know whose data is wrong, and protobuf's text leaves an id of 0 out.
_ALARM = re.compile(r"(?:memberID:(\d+)\s+)?alarm:(\w+)", re.ASCII)
_DIGITS = re.compile(r"\d{1,20}", re.ASCII)
_MAX_UINT64 = 2**64 - 1


class GrpcCode(IntEnum):
    """gRPC's status codes that etcd is known to answer with; others read as UNKNOWN."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class GatewayError(Exception):
    """The gateway's error body: gRPC's code and etcd's sentence."""

    def __init__(self, code: GrpcCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


_NOBODY = (COMMON_NAME_IGNORED, "user name is empty")
_STALE = ("invalid auth token", "revision of auth store is old")


def asks_for_user(error: GatewayError) -> bool:
    """Whether etcd's authentication wants a user, and none was told."""
    return any(text in error.message for text in _NOBODY)


def asks_for_token(error: GatewayError) -> bool:
    """Whether etcd does not know the token that it was shown (any more)."""
    return any(text in error.message for text in _STALE)


class NotEtcd(Exception):
    """An answer that no etcd gives; the message says what is odd about it."""


@dataclass(frozen=True, slots=True)
class Call:
    """A gateway call: where to POST, and the JSON object to send."""

    path: str
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Health:
    """What /health said; `reason` is empty when healthy, and in 3.4, which gives none."""

    is_healthy: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """What /version said; `cluster` is "not_decided" until a first leader has decided it."""

    server: str
    cluster: str


def encode_bytes(content: bytes) -> str:
    """Write bytes as protobuf's JSON does."""
    return base64.b64encode(content).decode("ascii")


STATUS = Call("/v3/maintenance/status")
SNAPSHOT = Call("/v3/maintenance/snapshot")
LOG_IN = "/v3/auth/authenticate"
LIST_ALARMS = Call("/v3/maintenance/alarm", {"action": "GET"})


def list_members(*, linearizable: bool) -> Call:
    """Ask for the member list; 3.4 does not know the flag and always answers from its own view."""
    return Call("/v3/cluster/member/list", {"linearizable": linearizable})


def authenticate(user: str, password: str) -> Call:
    """Ask for a token; the answer and this call hold secrets."""
    return Call(LOG_IN, {"name": user, "password": password})


def read_key(key: bytes) -> Call:
    """Ask for one key, linearizably: only a member that reaches a quorum can answer."""
    return Call("/v3/kv/range", {"key": encode_bytes(key)})


_EVERY = {"key": encode_bytes(b"\0"), "range_end": encode_bytes(b"\0"), "serializable": True}


def count_keys(revision: int) -> Call:
    """Ask a member how many keys its own data has at a revision."""
    return Call("/v3/kv/range", _EVERY | {"revision": str(revision), "count_only": True})


def list_states(limit: int) -> Call:
    """Ask a member for the first keys of its own data, without values.

    In any other order, or filtered, etcd would read all of its data for it.
    """
    return Call("/v3/kv/range", _EVERY | {"limit": str(limit), "keys_only": True})


def read_state(key: bytes, revision: int) -> Call:
    """Ask a member when a key of its own data was changed up to a revision, not for its value."""
    own = {"key": encode_bytes(key), "serializable": True, "keys_only": True}
    return Call("/v3/kv/range", own | {"revision": str(revision)})


def transfer_leadership(member_id: int) -> Call:
    """Ask the leader, and nobody else, to hand its leadership to another voter."""
    return Call("/v3/maintenance/transfer-leadership", {"targetID": str(member_id)})


def put_key(key: bytes) -> Call:
    """Write an empty key."""
    return Call("/v3/kv/put", {"key": encode_bytes(key)})


def delete_key(key: bytes) -> Call:
    """Delete a key."""
    return Call("/v3/kv/deleterange", {"key": encode_bytes(key)})


CANCEL_DOWNGRADE = Call("/v3/maintenance/downgrade", {"action": "CANCEL"})


def enable_downgrade(version: str) -> Call:
    """Let the cluster go down to a minor version, named with its patch 0: 3.5.0."""
    return Call("/v3/maintenance/downgrade", {"action": "ENABLE", "version": version})


def grant_lease(seconds: int) -> Call:
    """Make a lease: a write that no key and no revision knows of."""
    return Call("/v3/lease/grant", {"TTL": str(seconds)})


def add_learner(peer_url: str) -> Call:
    """Ask to add a member that has no vote yet; not idempotent: list the members before."""
    return Call("/v3/cluster/member/add", {"peerURLs": [peer_url], "isLearner": True})


def remove_member(member_id: int) -> Call:
    """Ask to remove a member for good."""
    return Call("/v3/cluster/member/remove", {"ID": str(member_id)})


def promote_member(member_id: int) -> Call:
    """Ask to give a learner a vote, which etcd does once it has nearly the leader's log."""
    return Call("/v3/cluster/member/promote", {"ID": str(member_id)})


def update_member(member_id: int, peer_url: str) -> Call:
    """Ask to give a member another peer URL."""
    return Call("/v3/cluster/member/update", {"ID": str(member_id), "peerURLs": [peer_url]})


def parse_snapshot_line(line: bytes) -> bytes:
    """Read one line of the snapshot stream: the next part of the file.

    Raises GatewayError when the stream ends in an error, and NotEtcd.
    """
    answer = parse_answer(line)
    result = answer.get("result")
    if not isinstance(result, dict):
        raise NotEtcd(f"the snapshot stream has a line without a result: {_excerpt(line)}")
    try:
        return base64.b64decode(_text(result, "blob"), validate=True)
    except binascii.Error as error:
        raise NotEtcd("the snapshot stream has a part that is not base64") from error


def parse_answer(content: bytes) -> dict[str, Any]:
    """Read a gateway's answer.

    Raises GatewayError when it is an error body, whatever the HTTP status was (the same error has
    other statuses in other builds), and NotEtcd when it is no JSON object.
    """
    if content.startswith(COMMON_NAME_IGNORED.encode()):
        # Told before the gateway's JSON begins, as plain text with status 400.
        raise GatewayError(GrpcCode.UNAUTHENTICATED, COMMON_NAME_IGNORED)
    answer = _parse_object(content)
    if "error" not in answer and "message" not in answer:
        return answer  # Perhaps empty: 3.4 answers {} when there is no alarm.
    # 3.4 and 3.5.1 send "error" beside "message"; streams nest the two under "error".
    error = answer.get("error")
    body = error if isinstance(error, dict) else answer
    message = body.get("message", error)
    if not isinstance(message, str):
        raise NotEtcd(f"answers an error without a sentence: {_excerpt(content)}")
    number = body.get("code", body.get("grpc_code"))
    code = next((code for code in GrpcCode if code == number), GrpcCode.UNKNOWN)
    raise GatewayError(code, message)


def parse_status(answer: dict[str, Any]) -> EndpointStatus:
    """Read the answer to STATUS; raises NotEtcd."""
    header = answer.get("header")
    if not isinstance(header, dict):
        raise NotEtcd("answers without a header")
    errors = answer.get("errors", [])
    if not isinstance(errors, list):
        raise NotEtcd(f"'errors' is not a list: {errors!r}")
    texts = [str(text).strip() for text in errors]
    alarms = [match for text in texts if (match := _ALARM.fullmatch(text))]
    return EndpointStatus(
        cluster_id=parse_uint64(header, "cluster_id"),
        member_id=parse_uint64(header, "member_id"),
        version=_text(answer, "version"),
        leader=parse_uint64(answer, "leader"),
        raft_term=parse_uint64(answer, "raftTerm"),
        raft_index=parse_uint64(answer, "raftIndex"),
        raft_applied_index=parse_uint64(answer, "raftAppliedIndex"),
        db_size=parse_uint64(answer, "dbSize"),
        db_size_in_use=parse_uint64(answer, "dbSizeInUse"),
        is_learner=answer.get("isLearner") is True,
        errors=tuple(text for text in texts if not _ALARM.fullmatch(text)),
        alarms=tuple(_alarm(int(match[1] or 0), match[2]) for match in alarms),
        db_quota=parse_uint64(answer, "dbSizeQuota") or None,
        revision=parse_uint64(header, "revision"),
        storage_version=_text(answer, "storageVersion") or None,
        downgrades_to=_parse_downgrade(answer.get("downgradeInfo")),
    )


def _parse_downgrade(told: object) -> str | None:
    if not isinstance(told, dict) or told.get("enabled") is not True:
        return None
    return _text(told, "targetVersion") or None


def parse_count(answer: dict[str, Any]) -> int:
    """Read the answer to `count_keys`; raises NotEtcd."""
    return parse_uint64(answer, "count")


def parse_states(answer: dict[str, Any]) -> dict[bytes, KeyState]:
    """Read when the keys of an answer were changed; raises NotEtcd."""
    return {
        base64.b64decode(_text(row, "key")): KeyState(
            created=parse_uint64(row, "create_revision"),
            modified=parse_uint64(row, "mod_revision"),
            version=parse_uint64(row, "version"),
        )
        for row in _rows(answer, "kvs")
    }


def parse_token(answer: dict[str, Any]) -> str:
    """Read the answer to `authenticate`; raises NotEtcd, without the token."""
    if not (token := _text(answer, "token")):
        raise NotEtcd("answers without a token")
    return token


def parse_members(answer: dict[str, Any]) -> tuple[Member, ...]:
    """Read the answer to `list_members`, in etcd's order; raises NotEtcd."""
    return tuple(
        Member(
            id=parse_uint64(row, "ID"),
            name=_text(row, "name"),
            peer_urls=_texts(row, "peerURLs"),
            client_urls=_texts(row, "clientURLs"),
            is_learner=row.get("isLearner") is True,
        )
        for row in _rows(answer, "members")
    )


def parse_alarms(answer: dict[str, Any]) -> tuple[Alarm, ...]:
    """Read the answer to LIST_ALARMS; raises NotEtcd."""
    return tuple(
        _alarm(parse_uint64(row, "memberID"), _text(row, "alarm"))
        for row in _rows(answer, "alarms")
    )


def _alarm(member_id: int, name: str) -> Alarm:
    if name not in set(AlarmType):
        raise NotEtcd(f"has an alarm that this engine does not know: {name!r}")
    return Alarm(member_id, AlarmType(name))


def parse_health(content: bytes) -> Health:
    """Read the body of GET /health, whose verdict is a string; raises NotEtcd."""
    answer = _parse_object(content)
    verdict = answer.get("health")
    if verdict not in {"true", "false"}:
        raise NotEtcd(f"/health has no verdict: {_excerpt(content)}")
    is_healthy = verdict == "true"
    return Health(is_healthy, "" if is_healthy else _text(answer, "reason"))


def parse_version(content: bytes) -> Version:
    """Read the body of GET /version; raises NotEtcd."""
    answer = _parse_object(content)
    if "etcdserver" not in answer:
        raise NotEtcd(f"/version does not name etcd: {_excerpt(content)}")
    return Version(server=_text(answer, "etcdserver"), cluster=_text(answer, "etcdcluster"))


def parse_uint64(row: dict[str, Any], name: str) -> int:
    """Read an unsigned 64-bit field, where missing means zero; raises NotEtcd naming the field."""
    value = row.get(name, "0")
    if isinstance(value, str) and _DIGITS.fullmatch(value) and int(value) <= _MAX_UINT64:
        return int(value)
    raise NotEtcd(f"{name!r} is not a 64-bit number in a string: {value!r}")


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name, "")
    if not isinstance(value, str):
        raise NotEtcd(f"{name!r} is not text: {value!r}")
    return value


def _texts(row: dict[str, Any], name: str) -> tuple[str, ...]:
    values = row.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise NotEtcd(f"{name!r} is not a list of texts: {values!r}")
    return tuple(values)


def _rows(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows = answer.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise NotEtcd(f"{name!r} is not a list of objects: {rows!r}")
    return rows


def _parse_object(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError as error:
        raise NotEtcd(f"answers no JSON but {_excerpt(content)}") from error
    if not isinstance(answer, dict):
        raise NotEtcd(f"answers no JSON object but {_excerpt(content)}")
    return answer


def _excerpt(content: bytes) -> str:
    text = content.decode("utf-8", "replace").strip()
    return repr(text if len(text) <= 120 else f"{text[:120]}…") if text else "nothing"  # noqa: PLR2004
