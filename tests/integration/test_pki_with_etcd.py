"""Certificates of our own authority before the real etcd, each version that is on this machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tasks.etcd.tls import client_context
from tasks.model.certificates import AuthorityPolicy, CertificatePolicy, Role
from tasks.pki.authority import Authority, create_authority
from tasks.pki.keys import make_key, private_pem
from tasks.pki.leaf import wanted_leaf
from tests.contract.etcd_real import find_binaries, free_ports
from tests.unit.pki_requests import P256, make_request

BINARIES = find_binaries()
HEALTHY_WITHIN_SECONDS = 120.0


def now() -> datetime:
    """Not when this was imported: what lives for an hour has ended before a long session has."""
    return datetime.now(UTC)


@pytest.fixture
def authority() -> Authority:
    """Make an authority."""
    return create_authority(AuthorityPolicy(key=P256), now())


@pytest.fixture(params=sorted(BINARIES))  # without any, the test is skipped
def endpoint(request: pytest.FixtureRequest, tmp_path: Path, authority: Authority) -> Iterator[str]:
    """Start a member with the planned server and peer certificates; ended whatever happens."""
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    for role in (Role.SERVER, Role.PEER):
        want = wanted_leaf(CertificatePolicy().leaf(role), role, "etcd1", ("127.0.0.1",), ())
        key = make_key(want.key)
        certificate = authority.sign(make_request(want, key), want, now())
        (tmp_path / role.certificate_file).write_bytes(certificate)
        (tmp_path / role.key_file).write_bytes(private_pem(key))
    peer, client = (f"https://127.0.0.1:{port}" for port in free_ports(2))
    command = [
        *(str(BINARIES[request.param]), "--name=etcd1", "--data-dir=data", "--logger=zap"),
        *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
        *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
        *(f"--initial-cluster=etcd1={peer}", "--client-cert-auth", "--peer-client-cert-auth"),
        *("--cert-file=server.pem", "--key-file=server-key.pem", "--trusted-ca-file=ca.pem"),
        *("--peer-cert-file=peer.pem", "--peer-key-file=peer-key.pem"),
        "--peer-trusted-ca-file=ca.pem",
    ]
    with (tmp_path / "etcd.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield client
    finally:
        process.kill()
        process.wait(timeout=10)


def test_the_engines_certificate_opens_the_gateway(endpoint: str, authority: Authority) -> None:
    """The gateway dials etcd with the server's certificate, so that one is a client's too."""
    certificate, key = authority.issue_client("etcd-runbooks", timedelta(hours=1), now())
    tls = client_context(authority.certificate_pem, certificate, key)
    deadline = time.monotonic() + HEALTHY_WITHIN_SECONDS
    answer = None
    with httpx.Client(verify=tls, trust_env=False, timeout=2, base_url=endpoint) as http:
        while time.monotonic() < deadline and (answer is None or answer.is_error):
            time.sleep(0.1)
            try:
                answer = http.post("/v3/maintenance/status", json={})
            except httpx.TransportError:
                continue
        assert answer is not None
        assert answer.status_code == httpx.codes.OK, answer.text
        assert answer.json()["leader"] == answer.json()["header"]["member_id"]
    stranger = create_authority(AuthorityPolicy(key=P256), now())
    foreign = client_context(
        authority.certificate_pem, *stranger.issue_client("x", timedelta(hours=1), now())
    )
    with (
        httpx.Client(verify=foreign, trust_env=False, timeout=2) as http,
        pytest.raises(httpx.TransportError),
    ):
        http.get(f"{endpoint}/health")
