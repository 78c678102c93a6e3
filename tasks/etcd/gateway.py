"""The way to etcd's JSON gateway, for all endpoints of a cluster; the only httpx import.

Owns connections, time limits, the log-in where RBAC asks for one, and the translation of failures.
Knows no call but the log-in's; those are in `client`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from tasks.etcd import wire
from tasks.etcd.failures import (
    IS_A_LEARNER,
    Stage,
    explain_connection_failure,
    explain_time_out,
    translate_gateway_error,
)
from tasks.etcd.handshake import find_alert
from tasks.etcd.login import Login
from tasks.model.errors import EtcdRefused, EtcdUnavailable
from tasks.model.urls import address_port

_DROPPED = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_STAGES = {
    "connection.connect_tcp.started": Stage.CONNECT,
    "connection.start_tls.started": Stage.HANDSHAKE,
    "connection.start_tls.complete": Stage.ANSWER,
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A member's client URL; with `connect_to`, TCP goes there and TLS still verifies the URL.

    `patience_seconds` is a shorter limit of its own, for one that did not answer before.
    `unreachable` says why there is no way to it: it is not asked, and that is its state. `name` is
    its host's, `member` what etcd shall call it.
    """

    name: str
    url: str
    connect_to: tuple[str, int] | None = None
    patience_seconds: float | None = None
    unreachable: str | None = None
    member: str = ""


class Gateway:
    """Asks any endpoint of one cluster; used as `async with`, after which nothing is open."""

    def __init__(
        self,
        endpoints: tuple[Endpoint, ...],
        tls: ssl.SSLContext,
        timeout_seconds: float = 5.0,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        login: Login | None = None,
        explains: bool = True,
    ) -> None:
        self.endpoints = endpoints
        self._tls = tls
        self._login = login
        # Why a connection was dropped is asked over another one, which takes up to a second.
        self._explains = explains and transport is None
        self._timeout_seconds = timeout_seconds
        self._http = httpx.AsyncClient(
            verify=tls,
            transport=transport,
            trust_env=False,  # A proxy from the environment must never see the cluster's traffic.
            timeout=None,  # noqa: S113 - `_send` bounds the whole call, not each of its phases
            limits=httpx.Limits(keepalive_expiry=None),
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def _call(
        self, endpoint: Endpoint, call: wire.Call, parse: Callable[[dict[str, Any]], T]
    ) -> T:
        def parse_content(content: bytes) -> T:
            return parse(wire.parse_answer(content))

        return await self._ask(endpoint, "POST", call.path, parse_content, call.body)

    async def _ask(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        parse: Callable[[bytes], T],
        body: dict[str, Any] | None = None,
        query: dict[str, str] | None = None,
    ) -> T:
        clock = asyncio.get_running_loop().time
        deadline = clock() + (endpoint.patience_seconds or self._timeout_seconds)
        while True:
            token = self._token(path)
            content = await self._send(endpoint, method, path, body, query, token)
            try:
                return parse(content)
            except wire.GatewayError as error:
                is_over = path == wire.LOG_IN or clock() > deadline
                if is_over or not await self._renew(endpoint, token, error):
                    raise translate_gateway_error(error, endpoint.name, endpoint.url) from error
            except wire.NotEtcd as error:
                raise EtcdRefused(endpoint.url, f"{path} {error}", wire.GrpcCode.UNKNOWN) from error

    def _token(self, path: str) -> str | None:
        """Get what to show there; 3.4 refuses a log-in that shows a token which has ended."""
        return self._login.token if self._login and path != wire.LOG_IN else None

    async def _renew(self, endpoint: Endpoint, token: str | None, error: wire.GatewayError) -> bool:
        """Log in, or wait for the token to arrive, where etcd asks for one; False where not."""
        login = self._login
        if login is None or not (wire.asks_for_user(error) or wire.asks_for_token(error)):
            return False

        async def log_in() -> str:
            # A learner logs nobody in, and knows the tokens of the others.
            for asked in (endpoint, *(e for e in self.endpoints if e.url != endpoint.url)):
                try:
                    return await self._call(asked, login.call, wire.parse_token)
                except EtcdRefused as refused:
                    if IS_A_LEARNER not in refused.message:
                        raise
            raise EtcdUnavailable(f"{endpoint.url}: no voter can be asked to log in")

        await login.renew(endpoint.url, token, log_in)
        return True

    async def _send(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        query: dict[str, str] | None,
        token: str | None,
    ) -> bytes:
        if endpoint.unreachable:
            raise EtcdUnavailable(f"{endpoint.url}: {endpoint.unreachable}", host=endpoint.name)
        origin = httpx.URL(endpoint.url)
        host, port = endpoint.connect_to or (origin.host, origin.port or 443)
        stage = Stage.ANSWER  # A kept connection has neither of the others.

        async def follow(event: str, _: dict[str, Any]) -> None:
            nonlocal stage
            if event in _STAGES:
                stage = _STAGES[event]

        try:
            async with asyncio.timeout(endpoint.patience_seconds or self._timeout_seconds):
                response = await self._http.request(
                    method,
                    origin.copy_with(host=host, port=port, path=path),
                    params=query,
                    json=body,
                    headers=_headers(origin, token),
                    extensions={"sni_hostname": origin.host, "trace": follow},
                )
        except TimeoutError as error:
            limit = endpoint.patience_seconds or self._timeout_seconds
            reason = explain_time_out(stage, address_port(host, port), limit)
            raise EtcdUnavailable(f"{endpoint.url}: {reason}", host=endpoint.name) from error
        # httpx translates the TLS errors of a handshake, but not the alert that TLS 1.3 sends after
        # it, which is how etcd rejects a client certificate.
        except (httpx.TransportError, OSError) as error:
            cause: Exception = error
            if isinstance(error, _DROPPED) and self._explains:
                cause = await find_alert(host, port, origin.host, self._tls) or error
            reason = explain_connection_failure(cause, address_port(host, port))
            raise EtcdUnavailable(f"{endpoint.url}: {reason}", host=endpoint.name) from error
        return response.content

    async def _stream(
        self, endpoint: Endpoint, call: wire.Call, parse: Callable[[bytes], T]
    ) -> AsyncIterator[T]:
        """Stream an answer line by line; each must come within `timeout_seconds`."""
        origin = httpx.URL(endpoint.url)
        host, port = endpoint.connect_to or (origin.host, origin.port or 443)
        has_ended, has_begun = False, False
        while not has_ended:
            token = self._token(call.path)
            try:
                async with self._http.stream(
                    "POST",
                    origin.copy_with(host=host, port=port, path=call.path),
                    json=call.body,
                    headers=_headers(origin, token),
                    extensions={"sni_hostname": origin.host},
                    timeout=self._timeout_seconds,
                ) as response:
                    async for line in response.aiter_lines():
                        if line.strip():
                            part = parse(line.encode())
                            has_begun = True
                            yield part
                has_ended = True
            except wire.GatewayError as error:
                if has_begun or not await self._renew(endpoint, token, error):
                    raise translate_gateway_error(error, endpoint.name, endpoint.url) from error
            except wire.NotEtcd as error:
                raise EtcdRefused(endpoint.url, str(error), wire.GrpcCode.UNKNOWN) from error
            except (httpx.TransportError, OSError) as error:
                reason = explain_connection_failure(error, address_port(host, port))
                raise EtcdUnavailable(f"{endpoint.url}: {reason}", host=endpoint.name) from error


def _headers(origin: httpx.URL, token: str | None) -> dict[str, str]:
    authorization = {"Authorization": token} if token else {}
    return {"Host": origin.netloc.decode("ascii")} | authorization
