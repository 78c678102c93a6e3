"""What a failed call means to the operator: one sentence on what is wrong and the way out.

Owns the translation of TLS and socket errors and of the gateway's error bodies. Pure: it is
given what was raised and answers text, or the error of our own tree.
"""

from __future__ import annotations

import ssl
from enum import Enum
from typing import TYPE_CHECKING

from tasks.etcd.wire import GatewayError, GrpcCode, asks_for_token, asks_for_user
from tasks.model.errors import EtcdRefused, EtcdUnavailable, NotAuthorised
from tasks.model.rbac import AUTHENTICATION_IS_ON, NO_RIGHTS, STALE_LOGIN, UNKNOWN_USER

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEE_SERVED = "look at what is served: openssl s_client -connect {address} </dev/null"

_OTHER_AUTHORITY = (
    "etcd's server certificate is signed by another authority than this cluster's: "
    "is this address really a member, or is a new authority being rolled out?"
)

# OpenSSL's X509_V_ERR numbers: why *we* reject what the server presents.
_REJECTED_SERVER = {
    # An authority with the same name and another key, such as the last one.
    7: _OTHER_AUTHORITY,
    9: "etcd's server certificate is not valid yet: compare the clocks of that host and this one",
    10: "etcd's server certificate has expired: renew it on the host (no restart is needed)",
    18: "etcd's server certificate is self-signed, not by the cluster's authority",
    19: _OTHER_AUTHORITY,
    20: _OTHER_AUTHORITY,
    26: "etcd's server certificate lacks the usage 'server auth': issue it again",
    62: "etcd's server certificate does not name this host: issue it again with this name",
    64: "etcd's server certificate does not name this address: issue it again with this address",
}

# TLS alerts (RFC 8446, 6.2): why *etcd* rejects what we present.
_ALERTS = {
    "CERTIFICATE_REQUIRED": "etcd requires a client certificate and none was presented",
    "UNKNOWN_CA": "etcd does not trust the authority of our client certificate: "
    "its trusted CA file is another one, or etcd was not restarted since it changed",
    "CERTIFICATE_EXPIRED": "etcd says that our client certificate has expired: issue a new one, "
    "and compare the clocks of that host and this one",
    # Before Go 1.21 the alert for any rejected client certificate.
    "BAD_CERTIFICATE": "etcd rejects our client certificate: it has expired, lacks the usage "
    "'client auth', another authority signed it, or none was presented; the member's journal says "
    "which",
    "HANDSHAKE_FAILURE": "etcd and this runner have no TLS cipher suite in common: "
    "see ETCD_CIPHER_SUITES",
    "PROTOCOL_VERSION": "etcd speaks no TLS version that this runner accepts (1.2 or newer)",
    "INTERNAL_ERROR": "etcd cannot use its own server certificate: it and its key do not match, "
    "or a file is missing or unreadable",
}

IS_A_LEARNER = "it is a learner, which does not serve this until promoted"

_TRANSIENT_CODES = {GrpcCode.CANCELLED, GrpcCode.DEADLINE_EXCEEDED, GrpcCode.UNAVAILABLE}
# Older builds answer some of these with code 2, so that the sentence decides.
_TRANSIENT_MESSAGES = (
    "no leader",
    "timed out",
    "deadline exceeded",
    "leader changed",
    "unhealthy cluster",
    "server stopped",
    "too many requests",
    "not leader",
    "in sync with leader",
)


class Stage(Enum):
    """How far a call came before its time was over."""

    CONNECT = "connect"
    HANDSHAKE = "handshake"
    ANSWER = "answer"


def explain_time_out(stage: Stage, address: str, seconds: float) -> str:
    """Say why a call may have had no answer within its time."""
    return {
        Stage.CONNECT: f"no TCP connection to {address} within {seconds:g} s: the host is down, "
        "or a firewall drops the port",
        # etcd listens at once but serves its clients only after it has joined a quorum.
        Stage.HANDSHAKE: f"{address} accepts connections but does not serve within {seconds:g} s: "
        "etcd waits for a quorum of its peers (see that the others run and that peer ports are "
        "open), or hangs (frozen, or its disk does not answer; see its journal)",
        Stage.ANSWER: f"no answer within {seconds:g} s: the cluster has no leader, or the member's "
        "disk or network is too slow",
    }[stage]


def explain_connection_failure(error: BaseException, address: str) -> str:
    """Say what broke a connection, from what a library raised and its causes."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = _REJECTED_SERVER.get(
                cause.verify_code,
                f"etcd's server certificate is rejected: {cause.verify_message}",
            )
            return f"{reason} ({_SEE_SERVED.format(address=address)})"
        if isinstance(cause, ssl.SSLError):
            return _explain_alert(cause)
        if isinstance(cause, ConnectionRefusedError):
            return f"{address} refuses connections: etcd is not running, or listens elsewhere"
        if isinstance(cause, ConnectionResetError | BrokenPipeError):
            return (
                "the connection was reset: etcd stopped or restarts, or rejects our client "
                "certificate; the member's journal says which"
            )
        if isinstance(cause, OSError) and cause.errno is not None:
            return f"no connection to {address}: {cause.strerror or cause}"
    return (
        "the connection was closed without an answer: etcd stopped or restarts, or nothing "
        f"listens behind the tunnel ({error or type(error).__name__})"
    )


def _explain_alert(error: ssl.SSLError) -> str:
    reason = error.reason or str(error)
    for alert, explanation in _ALERTS.items():
        if reason.endswith(f"ALERT_{alert}"):
            return explanation
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}:
        return "the port does not speak TLS: etcd's client URL is plain http there"
    return f"TLS failed: {reason.lower().replace('_', ' ')}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk from an error to what caused it, and into groups."""
    found: BaseException | None = error
    while found is not None:
        yield found
        if isinstance(found, BaseExceptionGroup):
            for inner in found.exceptions:
                yield from _causes(inner)
        found = found.__cause__ or found.__context__


def translate_gateway_error(
    error: GatewayError, name: str, url: str
) -> EtcdUnavailable | EtcdRefused:
    """Choose between what a retry may heal and what it won't, with the way out where known."""
    message, code = error.message, error.code
    if code is GrpcCode.UNAVAILABLE and not message.startswith("etcdserver:"):
        # The gateway is a client of its own etcd, and logs in with the *server* certificate.
        text = f"the JSON gateway cannot reach its own etcd ({message}): "
        if "bad certificate" in message:
            way_out = "recover_certificates issues it again with both, and restarts nothing"
            text += f"the server certificate lacks the usage 'client auth'; {way_out}"
            return EtcdRefused(url, text, code)
        # Mostly the same certificate is told only as a broken pipe; a restart looks so, too.
        text += (
            "it restarts, or its server certificate lacks the usage 'client auth', which "
            "check_certificates tells, and recover_certificates puts right without a restart"
        )
        return EtcdUnavailable(f"{url}: {text}", host=name)
    if forbidden := _find_forbidden(error):
        return NotAuthorised(url, forbidden, code)
    if asks_for_token(error):
        return EtcdUnavailable(f"{url}: {STALE_LOGIN}", host=name)
    is_learner = "not supported for learner" in message
    if not is_learner and (
        code in _TRANSIENT_CODES or any(text in message for text in _TRANSIENT_MESSAGES)
    ):
        hint = (
            ": a majority of the members must run and reach each other's peer ports"
            if "no leader" in message or "timed out" in message
            else ""
        )
        return EtcdUnavailable(f"{url}: {message}{hint}", host=name)
    return EtcdRefused(url, IS_A_LEARNER if is_learner else message, code)


def _find_forbidden(error: GatewayError) -> str | None:
    if asks_for_user(error):
        return AUTHENTICATION_IS_ON
    if "authentication failed" in error.message:
        return UNKNOWN_USER
    return NO_RIGHTS if "permission denied" in error.message else None
