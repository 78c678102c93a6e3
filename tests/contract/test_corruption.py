"""A value changed in one member's database, on real etcds: the hashes find whose data are wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from tasks.engine.run import open_run
from tasks.hosts.batch import Result
from tasks.hosts.services import parse_last_words
from tasks.model.corruption import Comparison, HashRow
from tasks.model.errors import Refused, Unverified
from tasks.plans.corruption import find_guilty, is_ended
from tasks.steps.corruption import compare_data, disarm_corrupt
from tests.contract.etcd_real import RealCluster, find_binaries
from tests.unit.plan_cases import inventory

FOUND = find_binaries()
HASHING = sorted(v for v in FOUND if tuple(map(int, v.split("."))) >= (3, 5, 30))
"""From this version on a gateway tells the hash; before, etcdctl is asked on the hosts."""
VERSIONS = [pytest.param(v, marks=() if v == HASHING[-1] else pytest.mark.chaos) for v in HASHING]
SECONDS = 20.0
VALUE, OTHER, THIRD = b"the-same-everywhere", b"not-the-same-at-all", b"other-than-the-rest"


@pytest.fixture(params=VERSIONS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealCluster]:
    """Start three members."""
    with (
        closing(RealCluster(FOUND[str(request.param)], tmp_path, size=3)) as cluster,
        temporary_settings({PREFECT_HOME: tmp_path}),
    ):
        cluster.start()
        yield cluster


async def fill(cluster: RealCluster) -> None:
    """Write a key whose name is looked for in the databases, and others."""
    async with cluster.client(5.0) as client:
        await client.wait_until_healthy(cluster.members, SECONDS)
    await cluster.put(VALUE.decode(), *(f"key{n}" for n in range(20)))
    time.sleep(0.3)  # noqa: ASYNC251 - until the members have written it


async def rot(cluster: RealCluster, i: int, to: bytes = OTHER) -> None:
    """Change what one member has on its disk, behind its back; it serves again."""
    restart_rotten(cluster, i, to)
    async with cluster.client(5.0) as client:
        await client.wait_until_healthy(cluster.members, SECONDS)


def restart_rotten(cluster: RealCluster, i: int, to: bytes) -> None:
    """Change what one member has on its disk while it is stopped."""
    process = cluster.processes.pop(i)
    process.terminate()
    process.wait(timeout=10)
    database = cluster.directory / cluster.members[i].name / "member/snap/db"
    content = database.read_bytes()
    assert VALUE in content
    database.write_bytes(content.replace(VALUE, to))
    cluster.start_member(i)


async def compare(cluster: RealCluster) -> Comparison:
    """Compare as the runbook does."""
    async with open_run(inventory(), "repair_corruption") as run, cluster.client(5.0) as client:
        comparison, _ = await compare_data.fn(run, client)
    return comparison


@pytest.mark.parametrize("victim", range(3))
async def test_the_guilty_one_is_found(cluster: RealCluster, victim: int) -> None:
    """Whichever it is, leader or follower; before, nobody is."""
    await fill(cluster)
    assert find_guilty(await compare(cluster), 3) == ()
    await rot(cluster, victim)
    (guilty,) = find_guilty(await compare(cluster), 3)
    assert guilty.host == cluster.members[victim].name


async def test_the_alarm_stays_while_data_differ(cluster: RealCluster) -> None:
    """And goes when they are the same; two that differ, each in its way, are no majority."""
    await fill(cluster)
    names = [member.name for member in cluster.members]
    await cluster.raise_corrupt(0)
    async with open_run(inventory(), "repair_corruption") as run, cluster.client(5.0) as client:
        assert await disarm_corrupt.fn(run, client, names)
        assert not await client.list_alarms(cluster.endpoints[0])
        await rot(cluster, 1)
        with pytest.raises(Unverified, match="the alarm CORRUPT stays"):
            await disarm_corrupt.fn(run, client, names)
        await rot(cluster, 2, THIRD)
    with pytest.raises(Refused, match="1 of 3 voters have the same"):
        find_guilty(await compare(cluster), 3)


@pytest.mark.parametrize(
    "version", [pytest.param(v, marks=() if v == HASHING[-1] else pytest.mark.chaos) for v in FOUND]
)
async def test_a_member_ends_at_its_start_with_its_id_and_what_is_looked_for(
    version: str, tmp_path: Path
) -> None:
    """On each version, where it is told to compare itself; the others go on.

    Before 3.6 one that has not made a snapshot of its log knows no peer at that moment.
    """
    gated = tuple(map(int, version.split("."))) >= (3, 6)
    flag = "feature-gates=InitialCorruptCheck" if gated else "experimental-initial-corrupt-check"
    cluster = RealCluster(FOUND[version], tmp_path, flags=(f"--{flag}=true", "--snapshot-count=5"))
    ill = cluster.members[1].name
    with closing(cluster):
        cluster.start()
        await fill(cluster)
        restart_rotten(cluster, 1, OTHER)
        assert cluster.processes.pop(1).wait(timeout=SECONDS) != 0
        log = (tmp_path / f"{ill}.log").read_text()
        words = parse_last_words(Result("", 0, log.rpartition("starting an etcd")[2], "", 0))
        async with cluster.client(5.0) as client:
            await client.wait_until_healthy(cluster.members, SECONDS, without=frozenset({ill}))
            members = await client.list_members(cluster.endpoints[0])
    ids = {member.name: member.id for member in members}
    ended = [name for name, i in ids.items() if is_ended(HashRow(name, name, i, None, "", words))]
    assert ended == [ill], words
