"""Asking etcd through its members' hosts: HTTP that someone else carries, for want of a key here.

A transport for `EtcdClient`. Who carries the request gives back what the connection printed; the
pair that it used never leaves the host. Small calls only: no snapshot comes this way.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable

import httpx

TIMED_OUT = 124
"""Exit status of coreutils' timeout."""

Carry = Callable[[str, str], Awaitable[tuple[int, str, str]]]
"""Given host:port and a whole request: exit status, what came back, and what was complained of."""

_NO_COMPLAINT = "Can't use SSL_get_servername"
"""What openssl s_client says whenever it asks by address."""
_SYSTEM_ERROR = re.compile(r"error:80([0-9A-F]{6}):system library:\w*:([^:]+):")
"""What a call of the system's met: its errno, and in words."""
_VERIFY_ERROR = re.compile(r"verify error:num=(\d+)")
_ALERT = re.compile(r":((?:tlsv1|sslv3|tlsv13)[\w ]*alert [\w ]+):")


class RelayTransport(httpx.AsyncBaseTransport):
    """Carries each request to the endpoint that its Host header names."""

    def __init__(self, carry: Carry) -> None:
        self._carry = carry

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and read its answer; raises what a connection of our own would."""
        body = await request.aread()
        netloc = request.headers["host"]
        # HTTP/1.0: etcd closes after its answer, and never sends it in chunks.
        head = [
            f"{request.method} {request.url.raw_path.decode('ascii')} HTTP/1.0",
            f"Host: {netloc}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        text = "\r\n".join([*head, "", body.decode()])
        status, answer, complaint = await self._carry(netloc, text)
        if not answer.startswith("HTTP/1."):
            raise httpx.ConnectError(_excerpt(complaint)) from explain_complaint(status, complaint)
        return _parse(answer)


def _parse(answer: str) -> httpx.Response:
    head, _, body = answer.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.split("\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    return httpx.Response(int(first.split()[1]), headers=kept, content=body.encode())


def explain_complaint(status: int, complaint: str) -> OSError:
    """Read what openssl s_client complained of as the error that our own TLS would raise."""
    if found := _VERIFY_ERROR.search(complaint):
        rejected = ssl.SSLCertVerificationError(1, _excerpt(complaint))
        rejected.verify_code, rejected.verify_message = int(found[1]), _excerpt(complaint)
        return rejected
    if found := _ALERT.search(complaint):
        alert = ssl.SSLError(1, found[1])
        alert.reason = found[1].upper().replace(" ", "_")
        return alert
    if found := _SYSTEM_ERROR.search(complaint):
        return OSError(int(found[1], 16), found[2])
    if "errno=111" in complaint or "Connection refused" in complaint:
        return ConnectionRefusedError(111, "refused")
    if status == TIMED_OUT:
        return TimeoutError("no answer in time")
    return OSError(_excerpt(complaint))


def _excerpt(complaint: str) -> str:
    lines = [line for line in complaint.splitlines() if line.strip() and line != _NO_COMPLAINT]
    return (lines[0] if lines else "no answer")[:200]
