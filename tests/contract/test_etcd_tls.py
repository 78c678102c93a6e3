"""Every way in which TLS between the engine and a real etcd goes wrong, and what is then said."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.etcd.login import PAUSE_SECONDS
from tasks.etcd.probe import Probe
from tasks.etcd.snapshots import SnapshotStream
from tasks.etcd.tls import client_context
from tasks.model.errors import CertificateRefused, EtcdRefused, EtcdUnavailable, NotAuthorised
from tests.contract.etcd_real import Leaf, RealCluster, TestAuthority, find_binaries
from tests.contract.etcd_users import RUNBOOKS, login_as

CALL_SECONDS = 2.0
LOGIN_SECONDS = 5.0
READS = 5
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
REJECTED = "rejects our client certificate"
BINARIES = [
    *(pytest.param(path, id=version) for version, path in find_binaries().items()),
] or [pytest.param(None, marks=pytest.mark.skip(reason="no etcd binary is on this machine"))]


@pytest.fixture(scope="module", params=BINARIES)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealCluster]:
    """Start a cluster of one."""
    with closing(RealCluster(request.param, tmp_path_factory.mktemp("etcd"), size=1)) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
async def member(cluster: RealCluster) -> Endpoint:
    """Wait until the cluster is healthy, and lend its endpoint."""
    async with cluster.client() as client:
        await client.wait_until_healthy(cluster.members, 20)
    return cluster.endpoints[0]


async def failure_of(endpoint: Endpoint, tls: ssl.SSLContext) -> str:
    """Ask for the status, which must fail as what a retry may heal; returns its sentence."""
    async with EtcdClient((endpoint,), tls, CALL_SECONDS) as client:
        with pytest.raises(EtcdUnavailable) as caught:
            await client.get_status(endpoint)
    assert caught.value.host == endpoint.name
    assert endpoint.url in str(caught.value)
    return str(caught.value)


def without_certificate(trusted: bytes) -> ssl.SSLContext:
    """Make the context of a client that has no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trusted.decode())
    return context


async def version_of(cluster: RealCluster) -> str:
    """Get the version that the cluster runs."""
    async with cluster.client() as client:
        return (await client.get_version(cluster.endpoints[0])).server


REJECTED_CLIENTS = {
    "none": "requires a client certificate and none was presented",
    "of another authority": "does not trust the authority of our client certificate",
    "expired": "our client certificate has expired",
    "without client auth": REJECTED,
}


@pytest.mark.parametrize("fault", REJECTED_CLIENTS)
async def test_client_certificate_rejected(
    cluster: RealCluster, member: Endpoint, fault: str
) -> None:
    """Etcd's reason is told every time, although its alert loses the race against a reset."""
    trusted = cluster.authority.pem
    leaf = {
        "none": None,
        "of another authority": TestAuthority("other").issue(usages=CLIENT),
        "expired": cluster.authority.issue(usages=CLIENT, is_expired=True),
        "without client auth": cluster.authority.issue(usages=SERVER),
    }[fault]
    tls = (
        client_context(trusted, leaf.certificate, leaf.key)
        if leaf
        else without_certificate(trusted)
    )
    # 3.4 is built with a Go that sends the alert "bad certificate" for any reason.
    is_old = (await version_of(cluster)).startswith("3.4.")
    said = REJECTED if is_old else REJECTED_CLIENTS[fault]
    for _ in range(5):
        assert said in await failure_of(member, tls)


@pytest.mark.parametrize("name", ["test authority", "other"])
async def test_server_of_another_authority(
    cluster: RealCluster, member: Endpoint, name: str
) -> None:
    """A server of another authority is rejected, also when its name is the same (a new key)."""
    leaf = cluster.authority.issue(usages=CLIENT)
    message = await failure_of(
        member, client_context(TestAuthority(name).pem, leaf.certificate, leaf.key)
    )
    assert "signed by another authority" in message
    assert "openssl s_client" in message


async def test_server_certificate_expired(cluster: RealCluster, member: Endpoint) -> None:
    """An expired server certificate is named, and a renewed one on disk heals it at once."""
    cluster.write_leaf("server", cluster.authority.issue("127.0.0.1", is_expired=True))
    try:
        message = await failure_of(member, cluster.client_tls())
    finally:
        cluster.write_leaf("server", cluster.authority.issue("127.0.0.1"))
    assert "server certificate has expired: renew it on the host" in message
    async with cluster.client() as client:
        await client.wait_until_healthy(cluster.members, 10)


async def test_server_certificate_and_key_differ(cluster: RealCluster, member: Endpoint) -> None:
    """A server pair that does not match, as a write seen halfway, is told as such."""
    mixed = Leaf(cluster.authority.issue("127.0.0.1").certificate, cluster.authority.issue().key)
    cluster.write_leaf("server", mixed)
    try:
        message = await failure_of(member, cluster.client_tls())
    finally:
        cluster.write_leaf("server", cluster.authority.issue("127.0.0.1"))
    assert "cannot use its own server certificate" in message


async def test_server_certificate_for_another_address(
    cluster: RealCluster, member: Endpoint
) -> None:
    """Through a tunnel the URL's own address is verified, not the one that TCP goes to."""
    port = int(member.url.rpartition(":")[2])
    tls = cluster.client_tls()
    for url, said in (
        ("https://192.0.2.7:2379", "does not name this address"),
        ("https://etcd.example.org:2379", "does not name this host"),
    ):
        assert said in await failure_of(Endpoint("etcd1", url, ("127.0.0.1", port)), tls)


async def test_tunnel_with_address_in_certificate(cluster: RealCluster, member: Endpoint) -> None:
    """Through a tunnel a member answers for an address that only its certificate has."""
    port = int(member.url.rpartition(":")[2])
    cluster.write_leaf("server", cluster.authority.issue("192.0.2.7", "2001:db8::7", "127.0.0.1"))
    try:
        for url in ("https://192.0.2.7:2379", "https://[2001:db8::7]:2379"):
            tunnelled = Endpoint("etcd1", url, ("127.0.0.1", port))
            async with EtcdClient((tunnelled,), cluster.client_tls(), CALL_SECONDS) as client:
                assert (await client.get_health(tunnelled)).is_healthy
                assert (await client.get_status(tunnelled)).leader
    finally:
        cluster.write_leaf("server", cluster.authority.issue("127.0.0.1"))


async def test_client_makes_no_second_handshake(cluster: RealCluster, member: Endpoint) -> None:
    """A kept connection outlives a server certificate that has expired since."""
    async with cluster.client() as client:
        await client.get_status(member)
        cluster.write_leaf("server", cluster.authority.issue("127.0.0.1", is_expired=True))
        try:
            assert (await client.get_health(member)).is_healthy
        finally:
            cluster.write_leaf("server", cluster.authority.issue("127.0.0.1"))


@pytest.mark.parametrize("common_name", ["test", None])
async def test_authentication_names_its_way_out(
    cluster: RealCluster, tmp_path: Path, common_name: str | None
) -> None:
    """RBAC is told the same way to a certificate with a common name and to one without."""
    with closing(RealCluster(cluster.binary, tmp_path, size=1)) as own:
        own.start()
        async with own.client() as client:
            await client.wait_until_healthy(own.members, 20)
        await own.enable_auth()
        leaf = own.authority.issue(usages=CLIENT, common_name=common_name)
        tls = client_context(own.authority.pem, leaf.certificate, leaf.key)
        async with EtcdClient(own.endpoints, tls, CALL_SECONDS) as client:
            with pytest.raises(EtcdRefused, match=r"RBAC"):
                await client.read_linearizable(own.endpoints[0])


async def test_a_token_that_has_ended_is_renewed(cluster: RealCluster, tmp_path: Path) -> None:
    """Etcd forgets a simple token some time after it was last shown; that is no failure."""
    login = login_as(RUNBOOKS)
    flags = ("--auth-token-ttl=1",)
    with closing(RealCluster(cluster.binary, tmp_path, size=1, flags=flags)) as own:
        own.start()
        async with own.client(LOGIN_SECONDS, login=login) as client:
            await client.wait_until_healthy(own.members, 20)
            await own.enable_auth()
            await client.read_linearizable(own.endpoints[0])
            first = login.token
            await asyncio.sleep(3)
            await client.read_linearizable(own.endpoints[0])
            assert first != login.token
            login.token = "another-that-has-ended"
            stream = SnapshotStream(client, own.endpoints[0])
            assert sum([len(part) async for part in stream.parts()]) > stream.size > 0


async def test_a_password_that_changes_ends_the_token(cluster: RealCluster, tmp_path: Path) -> None:
    """What is told then is that the password is another one now."""
    with closing(RealCluster(cluster.binary, tmp_path, size=1)) as own:
        own.start()
        async with own.client(LOGIN_SECONDS, login=login_as(RUNBOOKS)) as client:
            await client.wait_until_healthy(own.members, 20)
            await own.enable_auth()
            await client.read_linearizable(own.endpoints[0])
            await own.change_password(RUNBOOKS, "another")
            await asyncio.sleep(PAUSE_SECONDS)
            with pytest.raises(NotAuthorised, match=r"login.password points to"):
                await client.read_linearizable(own.endpoints[0])


async def test_the_probe_logs_in(cluster: RealCluster, tmp_path: Path) -> None:
    """It reads as the user, in a thread of its own, with a token of its own."""
    login = login_as(RUNBOOKS)
    with closing(RealCluster(cluster.binary, tmp_path, size=1)) as own:
        own.start()
        async with own.client(LOGIN_SECONDS, login=login) as client:
            await client.wait_until_healthy(own.members, 20)
            await own.enable_auth()
        probe = Probe(own.endpoints, own.client_tls(None), login=login)
        probe.start()
        async with asyncio.timeout(20):
            while sum(gap.reads for gap in probe.results()) < READS:
                await asyncio.sleep(0.1)
        probe.stop()
        assert login.token is None


def open_descriptors() -> int:
    """Count this process's open file descriptors."""
    return len(list(Path("/dev/fd").iterdir()))


def test_context_leaves_no_descriptor_open() -> None:
    """Neither a context that is made nor one that is refused leaves a pipe behind."""
    authority = TestAuthority()
    leaf, other = authority.issue(usages=CLIENT), authority.issue(usages=CLIENT)
    before = open_descriptors()
    context = client_context(authority.pem, leaf.certificate, leaf.key)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1
    with pytest.raises(CertificateRefused, match="cannot be used together"):
        client_context(authority.pem, leaf.certificate, other.key)
    assert open_descriptors() == before


def test_context_trusts_a_whole_bundle() -> None:
    """While an authority is replaced, the old and the new one are both trusted."""
    old, new = TestAuthority("old"), TestAuthority("new")
    leaf = new.issue(usages=CLIENT)
    context = client_context(old.pem + new.pem, leaf.certificate, leaf.key)
    assert len(context.get_ca_certs()) == 2


def test_context_takes_a_long_chain_and_refuses_what_no_pipe_holds() -> None:
    """A chain of about 60 KiB is used; a larger one than the pipe is refused, not waited for."""
    authority = TestAuthority()
    leaf = authority.issue(usages=CLIENT)
    chain = leaf.certificate + authority.pem * (60 * 1024 // len(authority.pem))
    client_context(authority.pem, chain, leaf.key)
    with pytest.raises(CertificateRefused, match="of which a pipe takes 65536"):
        client_context(authority.pem, leaf.certificate + authority.pem * 200, leaf.key)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("authority", "the authority's certificate cannot be read"),
        ("certificate", "cannot be used together"),
        ("key", "cannot be used together"),
    ],
)
def test_context_refuses_what_is_not_pem(part: str, said: str) -> None:
    """What is not PEM is refused, and none of it is repeated in the message."""
    authority = TestAuthority()
    leaf = authority.issue(usages=CLIENT)
    given = {"authority": authority.pem, "certificate": leaf.certificate, "key": leaf.key}
    given[part] = b"secret rubbish"
    with pytest.raises(CertificateRefused, match=said) as caught:
        client_context(given["authority"], given["certificate"], given["key"])
    assert "secret rubbish" not in str(caught.value)
