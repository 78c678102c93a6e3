"""A real TLS handshake, both ways, with the certificates that the authority issues."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.model.certificates import AuthorityPolicy, CertificatePolicy, KeySpec, Role
from tasks.pki.authority import Authority, create_authority
from tasks.pki.keys import make_key, private_pem
from tasks.pki.leaf import wanted_leaf
from tests.unit.pki_requests import P256, make_request

POLICY = CertificatePolicy()
ADDRESS = "192.168.100.200"


def now() -> datetime:
    """Not when this was imported: what lives for an hour has ended before a long session has."""
    return datetime.now(UTC)


def issue(authority: Authority, role: Role, directory: Path) -> Path:
    """Issue one role's pair; returns a file with both, as ssl wants it."""
    want = wanted_leaf(POLICY.leaf(role), role, "master01", (ADDRESS, "fd00::1"), ())
    key = make_key(want.key)
    certificate = authority.sign(make_request(want, key), want, now())
    return write(directory / f"{role}.pem", certificate + private_pem(key))


def write(path: Path, content: bytes) -> Path:
    """Write a file."""
    path.write_bytes(content)
    return path


def context(side: ssl._SSLMethod, authority: Authority, pair: Path | None) -> ssl.SSLContext:
    """Verify the other side strictly (RFC 5280) and present the pair."""
    made = ssl.SSLContext(side)
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(cadata=authority.certificate_pem.decode())
    if pair:
        made.load_cert_chain(pair)
    return made


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """Do a handshake in memory and send a byte each way; raises ssl.SSLError."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asker = client.wrap_bio(down, up, server_hostname=name)
    answerer = server.wrap_bio(up, down, server_side=True)
    waiting = {asker, answerer}
    for _ in range(10):
        for side in tuple(waiting):
            try:
                side.do_handshake()
                waiting.discard(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    asker.write(b"?")
    assert answerer.read(1) == b"?"
    answerer.write(b"!")
    assert asker.read(1) == b"!"


@pytest.mark.parametrize(
    "spec", [KeySpec(algo="rsa", size=2048), P256, KeySpec(algo="ed25519")], ids=str
)
@pytest.mark.parametrize("name", [ADDRESS, "fd00::1", "master01", "localhost", "127.0.0.1"])
def test_members_and_clients_trust_each_other(tmp_path: Path, spec: KeySpec, name: str) -> None:
    """Under every name of the host, both sides verifying strictly."""
    authority = create_authority(AuthorityPolicy(key=spec), now())
    server = context(ssl.PROTOCOL_TLS_SERVER, authority, issue(authority, Role.SERVER, tmp_path))
    certificate, key = authority.issue_client("etcd-runbooks", timedelta(hours=1), now())
    pairs = [
        issue(authority, Role.CLIENT, tmp_path),
        # The gateway dials etcd with the server's certificate, and peers are each other's clients.
        issue(authority, Role.PEER, tmp_path),
        tmp_path / "server.pem",
        write(tmp_path / "engine.pem", certificate + key),
    ]
    for pair in pairs:
        shake_hands(context(ssl.PROTOCOL_TLS_CLIENT, authority, pair), server, name)


def test_strangers_are_turned_away(tmp_path: Path) -> None:
    """Another name, another authority, no certificate, or a client's that plays the server."""
    ours, theirs = (create_authority(AuthorityPolicy(key=P256), now()) for _ in range(2))
    (tmp_path / "theirs").mkdir()
    member = issue(ours, Role.SERVER, tmp_path)
    mine = issue(ours, Role.CLIENT, tmp_path)
    foreign = issue(theirs, Role.CLIENT, tmp_path / "theirs")
    server = context(ssl.PROTOCOL_TLS_SERVER, ours, member)
    client = context(ssl.PROTOCOL_TLS_CLIENT, ours, mine)
    shake_hands(client, server, ADDRESS)
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        shake_hands(client, server, "192.168.100.201")
    with pytest.raises(ssl.SSLError):
        shake_hands(context(ssl.PROTOCOL_TLS_CLIENT, ours, foreign), server, ADDRESS)
    with pytest.raises(ssl.SSLError, match=r"(?i)peer.did.not.return"):
        shake_hands(context(ssl.PROTOCOL_TLS_CLIENT, ours, None), server, ADDRESS)
    impostor = context(ssl.PROTOCOL_TLS_SERVER, ours, mine)
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        shake_hands(client, impostor, ADDRESS)
