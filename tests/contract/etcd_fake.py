"""An etcd cluster that exists only as answers, in the shapes of a given version.

Passes the same suite as the real one (test_etcd.py), so that what is tested against it holds. It
knows what the client asks and what a test breaks; it stores no keys and speaks no TLS.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any

import httpx

from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.etcd.login import Login
from tasks.model.members import DesiredMember, quorum
from tests.contract.etcd_users import PASSWORDS, READER

FIRST_ID = 0x8E9E05C52164694D  # above 2**63: ids are unsigned
CLUSTER_ID = 0xCDF818194E3A8C32


def make_members(count: int = 3) -> tuple[DesiredMember, ...]:
    """Make members etcd1, etcd2, … at documentation addresses."""
    return tuple(
        DesiredMember(f"etcd{i}", f"https://192.0.2.{i}:2380", f"https://192.0.2.{i}:2379")
        for i in range(1, count + 1)
    )


class FakeEtcd(httpx.AsyncBaseTransport):
    """A cluster as an httpx transport: `EtcdClient(fake.endpoints, tls, transport=fake)`.

    Members are counted from 0. The first that runs is the leader, or who was chosen.
    """

    def __init__(
        self,
        members: tuple[DesiredMember, ...] | None = None,
        version: str = "3.5.30",
        *,
        gateway_is_broken: bool = False,
    ) -> None:
        self.members = members or make_members()
        self.learner = DesiredMember("etcd4", "https://192.0.2.99:2380", "https://192.0.2.99:2379")
        self.endpoints = tuple(Endpoint(m.name, m.client_url) for m in self.members)
        self.version = version
        self.gateway_is_broken = gateway_is_broken
        self.running = {member.client_url: True for member in self.members}
        self.alarms: list[tuple[int, str]] = []
        self.auth_is_enabled = False
        self.tokens: dict[str, dict[str, str]] = {}
        self.requests: list[httpx.Request] = []
        # A real one blocks only until its members know that the leader is gone.
        self.no_leader_seconds = 0.3
        self.chosen = 0
        self._rows: list[dict[str, Any]] = [
            {
                "ID": str(FIRST_ID + i),
                "name": member.name,
                "peerURLs": [member.peer_url],
                "clientURLs": [member.client_url],
            }
            for i, member in enumerate(self.members)
        ]

    def client(
        self,
        timeout_seconds: float = 1.0,
        endpoints: tuple[Endpoint, ...] | None = None,
        login: Login | None = None,
    ) -> EtcdClient:
        """Make a client of this cluster; its certificate has a common name unless it logs in."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        way = _Nameless(self) if login else self
        return EtcdClient(
            endpoints or self.endpoints, tls, timeout_seconds, transport=way, login=login
        )

    def start(self) -> None:
        """Do nothing: the members answer from the beginning."""

    def kill(self, *members: int) -> None:
        """Let members refuse connections."""
        for i in members:
            self.running[self.members[i].client_url] = False

    def heal(self) -> None:
        """Let all members answer again."""
        for i in range(len(self.members)):
            self.start_member(i)

    def start_member(self, i: int) -> None:
        """Let a killed member answer again; it has forgotten the tokens."""
        url = self.members[i].client_url
        if not self.running[url]:
            self.tokens[url] = {}
        self.running[url] = True

    def close(self) -> None:
        """Let all members refuse connections."""
        self.kill(*range(len(self.members)))

    async def raise_nospace(self, i: int) -> None:
        """Raise member `i`'s NOSPACE alarm."""
        self.alarms.append((FIRST_ID + i, "NOSPACE"))

    async def clear_nospace(self, i: int) -> None:
        """Take member `i`'s NOSPACE alarm back."""
        self.alarms.remove((FIRST_ID + i, "NOSPACE"))

    async def raise_corrupt(self, i: int) -> None:
        """Raise member `i`'s CORRUPT alarm."""
        self.alarms.append((FIRST_ID + i, "CORRUPT"))

    async def add_learner(self) -> DesiredMember:
        """Add a learner, which does not start."""
        row = {"ID": str(FIRST_ID + 99), "peerURLs": [self.learner.peer_url], "isLearner": True}
        self._rows.append(row)
        return self.learner

    async def start_learner(self) -> Endpoint:
        """Start the learner, which must have been added."""
        self._rows[-1] |= {"name": self.learner.name, "clientURLs": [self.learner.client_url]}
        self.running[self.learner.client_url] = True
        return Endpoint(self.learner.name, self.learner.client_url)

    async def enable_auth(self) -> None:
        """Turn on RBAC."""
        self.auth_is_enabled = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer as the member whose client URL the Host header names."""
        self.requests.append(request)
        url = f"https://{request.headers['host']}"
        if not self.running.get(url, False):
            raise httpx.ConnectError("refused") from ConnectionRefusedError(111, "refused")
        row = next(row for row in self._rows if url in row.get("clientURLs", ()))
        if request.url.path.startswith("/v3/"):
            if self.auth_is_enabled and "nameless" not in request.extensions:
                return httpx.Response(400, text=_COMMON_NAME)
            if self.gateway_is_broken:
                broken = "write tcp: write: broken pipe" if self._is_3_4 else _BROKEN_GATEWAY
                return self._error(503, 14, broken)
            return await self._gateway(row, request)
        if request.url.path == "/health":
            return await self._health(request.url.params.get("exclude"))
        cluster = f"{self.version.rpartition('.')[0]}.0"
        return _answer(200, etcdserver=self.version, etcdcluster=cluster)

    async def _gateway(  # noqa: PLR0911 - one for each path
        self, row: dict[str, Any], request: httpx.Request
    ) -> httpx.Response:
        body = json.loads(request.content)
        if denied := self._deny(request):
            return denied
        match request.url.path:
            case "/v3/auth/authenticate":
                return self._authenticate(row, body)
            case "/v3/maintenance/status":
                return self._status(row)
            case "/v3/cluster/member/list":
                is_local = self._is_3_4 or not body.get("linearizable")
                return await self._guarded(row, {"members": self._rows}, is_local=is_local)
            case "/v3/maintenance/alarm":
                alarms = [{"memberID": str(i), "alarm": kind} for i, kind in self.alarms]
                answer = {"alarms": alarms} if alarms else {}
                return await self._guarded(row, answer, has_header=not self._is_3_4)
            case "/v3/maintenance/transfer-leadership":
                return self._transfer(row, int(body["targetID"]))
            case "/v3/kv/range":
                return await self._guarded(row, {})
            case path if path.startswith("/v3/cluster/member/"):
                return self._change_members(path.rpartition("/")[2], body)
        return httpx.Response(404, text="404 page not found\n")

    def _authenticate(self, row: dict[str, Any], body: dict[str, str]) -> httpx.Response:
        if row.get("isLearner"):
            return self._error(503, 14, "etcdserver: rpc not supported for learner")
        if not self.auth_is_enabled:
            return self._error(400, 9, "etcdserver: authentication is not enabled")
        if PASSWORDS.get(body["name"]) != body["password"]:
            return self._error(
                400, 3, "etcdserver: authentication failed, invalid user ID or password"
            )
        token = f"token.{sum(map(len, self.tokens.values()))}"
        for url, is_up in self.running.items():
            if is_up:
                self.tokens.setdefault(url, {})[token] = body["name"]
        return _answer(200, header=self._header(row), token=token)

    def _deny(self, request: httpx.Request) -> httpx.Response | None:
        """Ask for a user where RBAC does; status, members and alarms only in later versions."""
        path, token = request.url.path, request.headers.get("authorization")
        is_free = path in _FREE_BEFORE and self.version.startswith(("3.4.", "3.5.16"))
        if path == "/v3/auth/authenticate":
            is_free = not (self._is_3_4 and token)
        if not self.auth_is_enabled or is_free:
            return None
        if token is None:
            return self._error(400, 3, "etcdserver: user name is empty")
        known = self.tokens.get(f"https://{request.headers['host']}", {})
        if token not in known:
            return self._error(401, 16, "etcdserver: invalid auth token")
        if known[token] == READER and path not in _FREE_BEFORE:
            return self._error(403, 7, "etcdserver: permission denied")
        return None

    def _transfer(self, row: dict[str, Any], target: int) -> httpx.Response:
        if row["ID"] != str(self._leader):
            return self._error(503, 14, "etcdserver: not leader")
        self.chosen = target
        return _answer(200)

    def _change_members(self, verb: str, body: dict[str, Any]) -> httpx.Response:
        if verb == "add":
            taken = {url for row in self._rows for url in row["peerURLs"]}
            if taken & set(body["peerURLs"]):
                return self._error(400, 9, "etcdserver: Peer URLs already exists")
            self._rows.append(
                {"ID": str(FIRST_ID + 98), "peerURLs": body["peerURLs"], "isLearner": True}
            )
            return _answer(200)
        entry = next((row for row in self._rows if row["ID"] == body["ID"]), None)
        if entry is None:
            return self._error(404, 5, "etcdserver: member not found")
        if verb == "promote":
            return self._error(
                412 if self._is_3_4 else 400,
                9,
                "etcdserver: can only promote a learner member which is in sync with leader"
                if entry.get("isLearner")
                else "etcdserver: can only promote a learner member",
            )
        if verb == "update":
            entry["peerURLs"] = body["peerURLs"]
        else:
            self._rows.remove(entry)
        return _answer(200)

    @property
    def _is_3_4(self) -> bool:
        return self.version.startswith("3.4.")

    @property
    def _leader(self) -> int:
        voters = [row for row in self._rows if not row.get("isLearner")]
        up = [row for row in voters if any(self.running.get(u) for u in row["clientURLs"])]
        ids = [int(str(row["ID"])) for row in up]
        first = self.chosen if self.chosen in ids else next(iter(ids), 0)
        return first if len(up) >= quorum(len(voters)) else 0

    async def _health(self, excluded: str | None) -> httpx.Response:
        reason = ""
        if counting := [kind for _, kind in self.alarms if kind != excluded]:
            reason = f"ALARM {counting[0]}"
        elif not self._leader:
            await asyncio.sleep(self.no_leader_seconds)
            reason = "RAFT NO LEADER"
        verdict = {"health": "false" if reason else "true"}
        if not self._is_3_4:
            verdict["reason"] = reason
        return _answer(503 if reason else 200, **verdict)

    def _header(self, row: dict[str, Any]) -> dict[str, str]:
        return {"cluster_id": str(CLUSTER_ID), "member_id": row["ID"], "raft_term": "2"}

    def _status(self, row: dict[str, Any]) -> httpx.Response:
        answer = {
            "header": self._header(row),
            "version": self.version,
            "dbSize": "20480",
            "raftIndex": "8",
            "raftTerm": "2",
            "raftAppliedIndex": "8",
            "dbSizeInUse": "16384",
        }
        if self.version.startswith(("3.6.", "3.7.")):
            answer["dbSizeQuota"] = "2147483648"
        errors = [f"memberID:{i} alarm:{kind} " for i, kind in self.alarms]
        if self._leader:
            answer["leader"] = str(self._leader)
        else:
            errors.append("etcdserver: no leader")
        extra = {"errors": errors} if errors else {}
        return _answer(200, **answer, **extra, **_learner(row))

    async def _guarded(
        self,
        row: dict[str, Any],
        answer: dict[str, Any],
        *,
        is_local: bool = False,
        has_header: bool = True,
    ) -> httpx.Response:
        """Answer what neither a learner nor a missing leader forbids."""
        if row.get("isLearner"):
            return self._error(503, 14, "etcdserver: rpc not supported for learner")
        if not self._leader and not is_local:
            await asyncio.sleep(3600)  # far longer than any client waits
        header = {"header": self._header(row)} if has_header else {}
        return _answer(200, **header, **answer)

    def _error(self, http_status: int, code: int, message: str) -> httpx.Response:
        old = {"error": message} if self._is_3_4 else {}
        return _answer(http_status, **old, message=message, code=code)


class _Nameless(httpx.AsyncBaseTransport):
    """Marks the requests of a client whose certificate has no common name."""

    def __init__(self, fake: FakeEtcd) -> None:
        self._fake = fake

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "nameless": True}
        return await self._fake.handle_async_request(request)


_FREE_BEFORE = (
    "/v3/maintenance/status",
    "/v3/cluster/member/list",
    "/v3/maintenance/alarm",
)
_BROKEN_GATEWAY = (
    'connection error: desc = "error reading server preface: remote error: tls: bad certificate"'
)
_COMMON_NAME = (
    "CommonName of client sending a request against gateway will be ignored and not used as "
    "expected\n"
)


def _learner(row: dict[str, Any]) -> dict[str, bool]:
    return {"isLearner": True} if row.get("isLearner") else {}


def _answer(http_status: int, **body: Any) -> httpx.Response:  # noqa: ANN401
    return httpx.Response(http_status, json=body)
