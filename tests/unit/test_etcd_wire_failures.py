"""What an operator is told when a call of etcd's gateway fails."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from tasks.etcd.failures import (
    Stage,
    explain_connection_failure,
    explain_time_out,
    translate_gateway_error,
)
from tasks.etcd.relay import explain_complaint
from tasks.etcd.wire import COMMON_NAME_IGNORED, GatewayError, GrpcCode
from tasks.model.errors import EtcdRefused, EtcdUnavailable, NotAuthorised

ADDRESS = "10.0.0.1:2379"
URL = f"https://{ADDRESS}"


def alert(reason: str) -> ssl.SSLError:
    """Make the error that OpenSSL's binding raises for an alert."""
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


def rejection(code: int) -> ssl.SSLCertVerificationError:
    """Make the error of a server certificate that does not verify."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "some reason"
    return error


CONNECTIONS = [
    (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), f"{ADDRESS} refuses connections"),
    (ConnectionResetError(errno.ECONNRESET, "reset"), "the connection was reset"),
    (BrokenPipeError(errno.EPIPE, "broken"), "the connection was reset"),
    (OSError(errno.EHOSTUNREACH, "No route to host"), f"{ADDRESS}: No route to host"),
    (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
    (EOFError(), "closed without an answer"),
    (rejection(7), "signed by another authority"),
    (rejection(9), "not valid yet: compare the clocks"),
    (rejection(10), "has expired: renew it on the host"),
    (rejection(20), "signed by another authority"),
    (rejection(62), "does not name this host"),
    (rejection(64), f"openssl s_client -connect {ADDRESS}"),
    (rejection(99), "is rejected: some reason"),
    (alert("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "none was presented"),
    (alert("TLSV1_ALERT_UNKNOWN_CA"), "does not trust the authority of our client certificate"),
    (alert("SSLV3_ALERT_CERTIFICATE_EXPIRED"), "our client certificate has expired"),
    (alert("SSLV3_ALERT_BAD_CERTIFICATE"), "rejects our client certificate"),
    (alert("TLSV1_ALERT_INTERNAL_ERROR"), "cannot use its own server certificate"),
    (alert("WRONG_VERSION_NUMBER"), "does not speak TLS"),
    (alert("NO_SUITABLE_SIGNATURE"), "TLS failed: no suitable signature"),
]


@pytest.mark.parametrize(("cause", "said"), CONNECTIONS)
def test_cause_is_found_under_the_library_error(cause: Exception, said: str) -> None:
    """The reason is found wherever a library has wrapped it: as cause, context or in a group."""
    wrapped = RuntimeError("All connection attempts failed")
    wrapped.__cause__ = ExceptionGroup("attempts", [cause])
    in_context = RuntimeError()
    in_context.__context__ = cause
    for error in (cause, wrapped, in_context):
        assert said in explain_connection_failure(error, ADDRESS)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (Stage.CONNECT, "no TCP connection to 10.0.0.1:2379 within 0.5 s"),
        (Stage.HANDSHAKE, "waits for a quorum of its peers"),
        (Stage.ANSWER, "no answer within 0.5 s: the cluster has no leader"),
    ],
)
def test_time_out_says_how_far_the_call_came(stage: Stage, said: str) -> None:
    """A host that is down, an etcd without a quorum and a stuck one are told apart."""
    assert said in explain_time_out(stage, ADDRESS, 0.5)


GATEWAY = [
    (14, "etcdserver: request timed out", EtcdUnavailable, "reach each other's peer ports"),
    (14, "etcdserver: leader changed", EtcdUnavailable, "leader changed"),
    (14, "etcdserver: unhealthy cluster", EtcdUnavailable, "unhealthy cluster"),
    (2, "etcdserver: no leader", EtcdUnavailable, "reach each other's peer ports"),
    (2, "context deadline exceeded", EtcdUnavailable, "deadline exceeded"),
    (4, "context deadline exceeded", EtcdUnavailable, "deadline exceeded"),
    (8, "etcdserver: too many requests", EtcdUnavailable, "too many requests"),
    (8, "etcdserver: mvcc: database space exceeded", EtcdRefused, "space exceeded"),
    (14, "etcdserver: rpc not supported for learner", EtcdRefused, "it is a learner"),
    (14, 'desc = "remote error: tls: bad certificate"', EtcdRefused, "lacks the usage 'client"),
    (14, "write tcp a->b: write: broken pipe", EtcdUnavailable, "lacks the usage 'client auth'"),
    (16, COMMON_NAME_IGNORED, NotAuthorised, "user add etcd-runbooks"),
    (3, "etcdserver: user name is empty", NotAuthorised, "grant-role etcd-runbooks root"),
    (5, "etcdserver: member not found", EtcdRefused, "member not found"),
]


@pytest.mark.parametrize(("code", "message", "kind", "said"), GATEWAY)
def test_gateway_error_is_retried_only_where_that_may_help(
    code: int, message: str, kind: type[Exception], said: str
) -> None:
    """The sentence decides before the code does, and the endpoint is named."""
    error = translate_gateway_error(GatewayError(GrpcCode(code), message), "master01", URL)
    assert type(error) is kind
    assert said in str(error)
    assert URL in str(error)


def test_what_openssl_says_of_no_name_is_no_complaint() -> None:
    """The line after it is why there was no answer."""
    said = "Can't use SSL_get_servername\nread:errno=104\n"
    assert str(explain_complaint(1, said)) == "read:errno=104"
    assert str(explain_complaint(1, "Can't use SSL_get_servername\n")) == "no answer"


def test_what_the_system_said_to_openssl_is_the_reason() -> None:
    """The same whenever it is asked: the thread's number before it is not part of it."""
    for thread in ("40875A40DA7F0000", "4077994AC87F0000"):
        said = (
            f"{thread}:error:80000071:system library:BIO_connect:No route to host:"
            "../crypto/bio/bio_sock2.c:117:calling connect()\n"
        )
        met = explain_complaint(1, said)
        told = explain_connection_failure(met, "10.0.0.3:2379")
        assert told == "no connection to 10.0.0.3:2379: No route to host"
    refused = "40:error:8000006F:system library:BIO_connect:Connection refused:x.c:1:calling"
    assert isinstance(explain_complaint(1, refused), ConnectionRefusedError)
