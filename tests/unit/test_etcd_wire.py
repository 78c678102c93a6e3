"""What the gateway's bytes mean, in the shapes that each version was seen to send."""

from __future__ import annotations

import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.etcd import keyspace, wire
from tasks.etcd.wire import GatewayError, GrpcCode, NotEtcd
from tasks.model.endpoints import EndpointStatus
from tasks.model.members import Alarm, AlarmType, Member

UINT64 = st.integers(min_value=0, max_value=2**64 - 1)
MEMBER_1, MEMBER_3 = 6747866729065714054, 18009259094196400809

STATUS_3_4 = b"""{"header":{"cluster_id":"8095231554358031432","member_id":"6747866729065714054",
"revision":"1","raft_term":"2"},"version":"3.4.23","dbSize":"20480","leader":"6747866729065714054",
"raftIndex":"15","raftTerm":"2","raftAppliedIndex":"15","dbSizeInUse":"16384"}"""
STATUS_NO_LEADER = b"""{"header":{"cluster_id":"1", "member_id":"2", "raft_term":"2"},
"version":"3.5.30", "dbSize":"20480", "raftIndex":"11", "raftTerm":"2", "raftAppliedIndex":"10",
"errors":["etcdserver: no leader", "memberID:2 alarm:NOSPACE "], "dbSizeInUse":"16384"}"""
MEMBERS = b"""{"header":{"cluster_id":"1","member_id":"2","raft_term":"2"},"members":[
{"ID":"6747866729065714054","name":"etcd1","peerURLs":["https://10.0.0.1:2380"],
"clientURLs":["https://10.0.0.1:2379"]},
{"ID":"18009259094196400809","peerURLs":["https://10.0.0.4:2380"],"isLearner":true}]}"""

NO_LEADER = "etcdserver: request timed out"
BAD_CERTIFICATE = (
    'connection error: desc = "error reading server preface: remote error: tls: bad certificate"'
)
COMMON_NAME = b"CommonName of client sending a request against gateway will be ignored and not used"
ERRORS = {
    "3.4, 3.5.1": (
        {"error": NO_LEADER, "message": NO_LEADER, "code": 14},
        GrpcCode.UNAVAILABLE,
        NO_LEADER,
    ),
    "3.4 alarm list without a leader": (
        {"error": "context deadline exceeded", "message": "context deadline exceeded", "code": 2},
        GrpcCode.UNKNOWN,
        "context deadline exceeded",
    ),
    "3.5": ({"code": 14, "message": BAD_CERTIFICATE}, GrpcCode.UNAVAILABLE, BAD_CERTIFICATE),
    "3.6": (
        {"code": 5, "message": "etcdserver: member not found", "details": []},
        GrpcCode.NOT_FOUND,
        "etcdserver: member not found",
    ),
    "only error": ({"error": "etcdserver: no"}, GrpcCode.UNKNOWN, "etcdserver: no"),
    "a stream's": (
        {"error": {"grpc_code": 14, "http_code": 503, "message": "etcdserver: no leader"}},
        GrpcCode.UNAVAILABLE,
        "etcdserver: no leader",
    ),
    "a code of no known meaning": ({"code": 99, "message": "new"}, GrpcCode.UNKNOWN, "new"),
}


def test_status() -> None:
    """Every field of a status is read, with ids as numbers."""
    assert wire.parse_status(wire.parse_answer(STATUS_3_4)) == EndpointStatus(
        cluster_id=8095231554358031432,
        member_id=MEMBER_1,
        version="3.4.23",
        leader=MEMBER_1,
        raft_term=2,
        raft_index=15,
        raft_applied_index=15,
        db_size=20480,
        db_size_in_use=16384,
        revision=1,
    )


def test_count_and_hash_of_the_data() -> None:
    """A count of 0 is left out of the answer; a hash is not, or it is none."""
    assert wire.parse_count({"header": {}}) == 0
    assert wire.parse_count({"count": "12"}) == 12
    found = keyspace.parse_hash({"hash": 2597, "compact_revision": "7"})
    assert keyspace.parse_hash({"hash": 1, "compact_revision": "-1"}).compact_revision == 0
    assert (found.hash, found.compact_revision) == (2597, 7)
    with pytest.raises(wire.NotEtcd):
        keyspace.parse_hash({"compact_revision": "7"})


def test_status_without_leader() -> None:
    """Without a leader the key is left out, which reads as 0, and the errors say so."""
    status = wire.parse_status(wire.parse_answer(STATUS_NO_LEADER))
    assert status.leader == 0
    assert status.errors == ("etcdserver: no leader",)
    assert status.alarms == (Alarm(2, AlarmType.NOSPACE),), "told without a quorum as well"


def test_an_alarm_of_nobody_in_particular() -> None:
    """Etcd 3.5 does not know whose data is wrong; it is an alarm all the same."""
    answer = wire.parse_answer(
        STATUS_NO_LEADER.replace(b"memberID:2 alarm:NOSPACE ", b"alarm:CORRUPT ")
    )
    status = wire.parse_status(answer)
    assert status.alarms == (Alarm(0, AlarmType.CORRUPT),)
    assert status.errors == ("etcdserver: no leader",)


def test_members() -> None:
    """A member that never started has neither a name nor client URLs."""
    assert wire.parse_members(wire.parse_answer(MEMBERS)) == (
        Member(MEMBER_1, "etcd1", ("https://10.0.0.1:2380",), ("https://10.0.0.1:2379",)),
        Member(MEMBER_3, "", ("https://10.0.0.4:2380",), (), is_learner=True),
    )


@pytest.mark.parametrize(
    ("content", "alarms"),
    [
        (b"{}", ()),  # 3.4, which leaves out even the header
        (b'{"header":{"cluster_id":"1"}}', ()),
        (b'{"alarms":[{"memberID":"2","alarm":"NOSPACE"}]}', (Alarm(2, AlarmType.NOSPACE),)),
        (
            b'{"header":{}, "alarms":[{"memberID":"2", "alarm":"CORRUPT"}, {"alarm":"NOSPACE"}]}',
            (Alarm(2, AlarmType.CORRUPT), Alarm(0, AlarmType.NOSPACE)),
        ),
    ],
)
def test_alarms(content: bytes, alarms: tuple[Alarm, ...]) -> None:
    """No alarm is an empty object in 3.4 and a lone header later."""
    assert wire.parse_alarms(wire.parse_answer(content)) == alarms


@pytest.mark.parametrize(
    ("content", "health"),
    [
        (b'{"health":"true"}', wire.Health(is_healthy=True)),
        (b'{"health":"true","reason":""}', wire.Health(is_healthy=True)),
        (b'{"health":"false"}\n', wire.Health(is_healthy=False)),
        (
            b'{"health":"false","reason":"RAFT NO LEADER"}\n',
            wire.Health(is_healthy=False, reason="RAFT NO LEADER"),
        ),
    ],
)
def test_health(content: bytes, health: wire.Health) -> None:
    """The verdict is a string, and 3.4 gives no reason."""
    assert wire.parse_health(content) == health


def test_version() -> None:
    """Both versions are read; the cluster's is not decided before the first leader."""
    content = b'{"etcdserver":"3.5.30","etcdcluster":"not_decided"}'
    assert wire.parse_version(content) == wire.Version("3.5.30", "not_decided")


@pytest.mark.parametrize(("body", "code", "message"), ERRORS.values(), ids=ERRORS)
def test_error_bodies(body: dict[str, object], code: GrpcCode, message: str) -> None:
    """An error is told by its body alone, whatever shape the build gives it."""
    with pytest.raises(GatewayError) as caught:
        wire.parse_answer(json.dumps(body).encode())
    assert caught.value.code is code
    assert caught.value.message == message


def test_common_name_error_is_plain_text() -> None:
    """RBAC's refusal of a common name is the one error that is no JSON."""
    with pytest.raises(GatewayError) as caught:
        wire.parse_answer(COMMON_NAME)
    assert caught.value.message == wire.COMMON_NAME_IGNORED


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"404 page not found\n", "no JSON but '404 page not found'"),
        (b"", "no JSON but nothing"),
        (b"<html>" + b"x" * 500, "x…'"),
        (b"[]", "no JSON object"),
        (b"\xff\xfe", "no JSON"),
        (b'{"error":{}}', "an error without a sentence"),
    ],
)
def test_answers_that_no_etcd_gives(content: bytes, said: str) -> None:
    """What is not etcd's is refused with a short excerpt of it."""
    with pytest.raises(NotEtcd, match=re.escape(said)) as caught:
        wire.parse_answer(content)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("value", [1, None, "0x10", "-1", "1.0", "", "٣", "18446744073709551616"])
def test_numbers_that_no_etcd_sends(value: object) -> None:
    """Anything but the decimal digits of 64 bits is refused by the field's name."""
    with pytest.raises(NotEtcd, match="'leader'"):
        wire.parse_uint64({"leader": value}, "leader")


@pytest.mark.parametrize(
    "answer",
    [
        {"members": {}},
        {"members": ["x"]},
        {"members": [{"name": 1}]},
        {"members": [{"peerURLs": "x"}]},
        {"members": [{"clientURLs": [1]}]},
    ],
)
def test_member_lists_that_no_etcd_sends(answer: dict[str, object]) -> None:
    """A field of the wrong kind is refused by its name."""
    with pytest.raises(NotEtcd, match=r"members|name|peerURLs|clientURLs"):
        wire.parse_members(answer)


def test_status_that_no_etcd_sends() -> None:
    """A status without a header, or with errors that are no list, is refused."""
    with pytest.raises(NotEtcd, match="header"):
        wire.parse_status({"version": "3.5.30"})
    with pytest.raises(NotEtcd, match="errors"):
        wire.parse_status({"header": {}, "errors": "no leader"})


def test_unknown_alarm_is_not_passed_over() -> None:
    """An alarm that this engine does not know must stop it, not vanish."""
    with pytest.raises(NotEtcd, match="'FIRE'"):
        wire.parse_alarms({"alarms": [{"memberID": "1", "alarm": "FIRE"}]})


def test_calls() -> None:
    """Requests carry exactly what etcd understands: unknown fields would be ignored silently."""
    calls: dict[str, tuple[wire.Call, dict[str, object]]] = {
        "/v3/maintenance/status": (wire.STATUS, {}),
        "/v3/maintenance/alarm": (wire.LIST_ALARMS, {"action": "GET"}),
        "/v3/cluster/member/list": (wire.list_members(linearizable=False), {"linearizable": False}),
        "/v3/kv/range": (wire.read_key(b"foo"), {"key": "Zm9v"}),
    }
    for path, (call, body) in calls.items():
        assert call == wire.Call(path, body)


@given(UINT64)
def test_ids_round_trip(number: int) -> None:
    """Every 64-bit id survives its way as a string of digits, and 0 also by being left out."""
    assert wire.parse_uint64({"ID": str(number)}, "ID") == number
    assert wire.parse_uint64({}, "ID") == 0


@given(st.binary())
def test_keys_round_trip(key: bytes) -> None:
    """Every key survives base64."""
    assert base64.b64decode(wire.read_key(key).body["key"]) == key


@given(st.recursive(st.none() | st.booleans() | UINT64 | st.text(), st.lists))
def test_any_json_is_read_or_refused(value: object) -> None:
    """No JSON makes the parsers fail in any other way than their own."""
    content = json.dumps({"header": value, "members": value, "alarms": value, "error": value})
    for parse in (wire.parse_health, wire.parse_version, wire.parse_answer):
        with pytest.raises((GatewayError, NotEtcd)):
            parse(content.encode())
