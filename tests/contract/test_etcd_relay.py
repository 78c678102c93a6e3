"""Etcd asked by openssl with a pair on the disk of its host, against every etcd found here."""

from __future__ import annotations

from contextlib import closing
from pathlib import PurePosixPath
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from tasks.etcd.client import EtcdClient
from tasks.etcd.relay import RelayTransport
from tasks.hosts.served import carry_command, parse_served, served_command
from tasks.model.urls import split_url
from tests.contract.etcd_real import RealCluster, TestAuthority, find_binaries
from tests.contract.local_host import LocalHost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 30.0
BINARIES = find_binaries()
REAL = [pytest.param(path, id=f"real-{version}") for version, path in BINARIES.items()]
NONE = pytest.param(None, marks=pytest.mark.skip(reason="no etcd binary is on this machine"))


@pytest.fixture(scope="module", params=REAL or [NONE])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealCluster]:
    """Start a cluster of each version that there is."""
    with closing(RealCluster(request.param, tmp_path_factory.mktemp("etcd"))) as cluster:
        cluster.start()
        yield cluster


def relayed(
    cluster: RealCluster,
    directory: Path,
    *,
    signer: TestAuthority | None = None,
    trusting: TestAuthority | None = None,
) -> EtcdClient:
    """Make a client whose requests this machine's openssl sends, with files of a host."""
    leaf = (signer or cluster.authority).issue("127.0.0.1")
    files = [directory / name for name in ("pair.pem", "pair-key.pem", "trusted.pem")]
    contents = (leaf.certificate, leaf.key, (trusting or cluster.authority).pem)
    for path, content in zip(files, contents, strict=True):
        path.write_bytes(content)
    host = LocalHost()

    async def carry(netloc: str, request: str) -> tuple[int, str, str]:
        address, _, port = netloc.rpartition(":")
        pair, key, trusted = map(PurePosixPath, files)
        command = carry_command(pair, key, trusted, address, int(port), request)
        (result,) = await host.run(command, keep_going=True)
        return result.status, result.stdout, result.stderr

    return EtcdClient(cluster.endpoints, cluster.client_tls(), 10.0, RelayTransport(carry))


async def test_the_members_are_seen_as_over_https(cluster: RealCluster, tmp_path: Path) -> None:
    """Members, leader and reads are the same ones that a direct client sees."""
    deadline = monotonic() + SECONDS
    async with cluster.client() as client, relayed(cluster, tmp_path) as other:
        while True:
            direct = await client.wait_until_healthy(cluster.members, SECONDS)
            health = await other.wait_until_healthy(cluster.members, SECONDS)
            # On a busy machine another one may be elected between the two.
            if health.leader_name == direct.leader_name or monotonic() > deadline:
                break
    assert health.leader_name == direct.leader_name
    for seen, before in zip(health.endpoints, direct.endpoints, strict=True):
        # A member tells its client URLs a moment after it is healthy.
        assert {m.id for m in seen.members} == {m.id for m in before.members}


async def test_a_named_member_is_asked_where_its_host_listens(cluster: RealCluster) -> None:
    """Whatever its host knows its name as; nothing listens at none."""
    port = split_url(cluster.endpoints[0].url)[1]
    for name in ("127.0.0.1", "etcd1.nowhere.invalid"):
        (result,) = await LocalHost().run(served_command(name, port))
        assert parse_served(result) is not None, result.stdout
    (result,) = await LocalHost().run(served_command("etcd1.nowhere.invalid", 1))
    assert "refused" in result.stdout


async def test_each_failure_is_told_as_over_https(cluster: RealCluster, tmp_path: Path) -> None:
    """Another authority on either side, and nothing that listens, have their own sentences."""
    stranger = TestAuthority("stranger")
    async with relayed(cluster, tmp_path, trusting=stranger) as client:
        seen = await client.observe_endpoint(client.endpoints[0])
        assert "signed by another authority" in str(seen.error)
    async with relayed(cluster, tmp_path, signer=stranger) as client:
        seen = await client.observe_endpoint(client.endpoints[0])
        assert not seen.is_up
        assert "etcd rejects our" in str(seen.error) or "does not trust" in str(seen.error)
    cluster.kill(2)
    async with relayed(cluster, tmp_path) as client:
        seen = await client.observe_endpoint(client.endpoints[2])
        assert "refuses connections" in str(seen.error)
    cluster.heal()
