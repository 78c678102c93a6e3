"""What the client of etcd promises, held against the fake and against every etcd found here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tasks.etcd.client import EtcdClient
from tasks.etcd.leadership import hand_over
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import (
    EtcdRefused,
    EtcdUnavailable,
    MemberFailed,
    NotAuthorised,
    Refused,
)
from tasks.model.members import Alarm, AlarmType, Member
from tests.contract.etcd_fake import FakeEtcd, make_members
from tests.contract.etcd_real import BOTH, RealCluster, find_binaries
from tests.contract.etcd_users import PASSWORDS, READER, RUNBOOKS, login_as

START_SECONDS = 60.0
ELECTION_SECONDS = 60.0
"""Votes are split again and again where three members share a processor with other tests."""
CALL_SECONDS = 0.5
LOGIN_SECONDS = 5.0
"""Etcd hashes the password for some 60 ms, and much longer where others want the processor."""
HANGS = 15.0
"""A call that takes longer has ignored its time limit; a busy machine takes some seconds."""
NOTHING_HERE = pytest.mark.skip(reason="no etcd binary is on this machine")

BINARIES = find_binaries()
Cluster = FakeEtcd | RealCluster


@dataclass(frozen=True)
class Build:
    """A version of etcd, faked or real."""

    version: str
    binary: Path | None = None

    def make(self, directory: Path, size: int, *, gateway_is_broken: bool = False) -> Cluster:
        """Make a cluster that has not started."""
        if self.binary is None:
            return FakeEtcd(make_members(size), self.version, gateway_is_broken=gateway_is_broken)
        usages = (ExtendedKeyUsageOID.SERVER_AUTH,) if gateway_is_broken else BOTH
        return RealCluster(self.binary, directory, size, server_usages=usages)


FAKES = [pytest.param(Build(v), id=f"fake-{v}") for v in ("3.4.23", "3.5.30", "3.7.3")]
REAL = [pytest.param(Build(v, path), id=f"real-{v}") for v, path in BINARIES.items()]
NONE_HERE = pytest.param(Build("none"), id="real", marks=NOTHING_HERE)


@pytest.fixture(scope="module", params=FAKES + (REAL or [NONE_HERE]))
def build(request: pytest.FixtureRequest) -> Build:
    """Choose each version that there is."""
    build: Build = request.param
    return build


@pytest.fixture(scope="module")
def running(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start one cluster of three for all tests that leave it as they found it."""
    with closing(build.make(tmp_path_factory.mktemp("etcd"), size=3)) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    """Lend the shared cluster, and start again what the test killed."""
    yield running
    running.heal()


@pytest.fixture
def own_cluster(build: Build, tmp_path: Path) -> Iterator[Cluster]:
    """Start a cluster of one that the test may leave in any state."""
    with closing(build.make(tmp_path, size=1)) as cluster:
        cluster.start()
        yield cluster


@asynccontextmanager
async def healthy(cluster: Cluster) -> AsyncIterator[EtcdClient]:
    """Wait until a cluster has become healthy, and lend its client."""
    async with cluster.client(CALL_SECONDS) as client:
        await client.wait_until_healthy(cluster.members, START_SECONDS)
        yield client


async def observe_until(
    client: EtcdClient, is_so: Callable[[ClusterHealth], bool]
) -> ClusterHealth:
    """Observe until what a fault brings about has come; returns that observation."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            health = await client.observe_cluster()
            if is_so(health):
                return health
            await asyncio.sleep(0.1)


async def test_healthy_cluster_has_no_problems(cluster: Cluster, build: Build) -> None:
    """Every endpoint of a healthy cluster tells the same ids, leader and members."""
    progress: list[tuple[str, ...]] = []
    async with cluster.client(CALL_SECONDS) as client:
        health = await client.wait_until_healthy(cluster.members, START_SECONDS, progress.append)
    assert all(progress), "progress is only told while there are problems"
    assert [e.name for e in health.endpoints] == [m.name for m in cluster.members]
    assert health.reads_linearizable
    assert health.leader_name in {m.name for m in cluster.members}
    for endpoint in health.endpoints:
        assert endpoint.is_healthy
        assert endpoint.error is None
        assert endpoint.status is not None
        assert endpoint.status.version == build.version
        own = next(m for m in endpoint.members if m.id == endpoint.status.member_id)
        assert own.name == endpoint.name
        assert own.client_urls == (endpoint.endpoint,)
        assert not endpoint.alarms


async def test_leadership_is_handed_over_and_seen_to_be_taken(cluster: Cluster) -> None:
    """To whom it is wanted; on a busy machine members may elect another by themselves."""
    async with healthy(cluster) as client, asyncio.timeout(START_SECONDS):
        health = await client.observe_settled()
        wanted = next(m for m in health.seen_members() if not m.is_leader).member
        while (leader := (await client.observe_settled()).leader_name) != wanted.name:
            if leader is not None:
                with suppress(EtcdUnavailable):  # nobody leads just now; a step asks again
                    await hand_over(client, leader, preferred=wanted.id)
        moved = None
        while moved is None:
            with suppress(EtcdUnavailable):
                moved = await hand_over(client, "nobody")
        assert not moved


async def test_leadership_goes_to_whom_a_plan_names() -> None:
    """By the host's name, which a plan knows."""
    fake = FakeEtcd()
    async with fake.client() as client:
        first = (await client.observe_cluster()).leader_name
        heir = next(e.name for e in reversed(fake.endpoints) if e.name != first)
        assert await hand_over(client, str(first), preferred=heir)
        assert (await client.observe_cluster()).leader_name == heir


async def test_each_call_answers(cluster: Cluster, build: Build) -> None:
    """Every single call works on every endpoint, and both member lists agree."""
    async with healthy(cluster) as client:
        for endpoint in client.endpoints:
            assert (await client.get_health(endpoint)).is_healthy
            version = await client.get_version(endpoint)
            assert version.server == build.version
            await client.read_linearizable(endpoint)
            members = await client.list_members(endpoint)
            assert members == await client.list_members(endpoint, linearizable=False)
            assert {(m.name, m.peer_urls) for m in members} == {
                (m.name, (m.peer_url,)) for m in cluster.members
            }


async def test_one_member_killed(cluster: Cluster) -> None:
    """With one of three killed the reads go on, and the problem names that member alone."""
    async with healthy(cluster) as client:
        cluster.kill(2)

        def is_down_to_etcd3(health: ClusterHealth) -> bool:
            problems = health.find_problems(cluster.members)
            return all(problem.startswith("etcd3: ") for problem in problems)

        health = await observe_until(client, is_down_to_etcd3)
        assert health.reads_linearizable
        assert [e.is_healthy for e in health.endpoints] == [True, True, False]
        assert "refuses connections" in str(health.endpoints[2].error)
        with pytest.raises(EtcdUnavailable, match=r"^etcd3: https://.*refuses connections"):
            await client.get_status(client.endpoints[2])


async def test_quorum_lost(cluster: Cluster) -> None:
    """With two of three killed the survivor tells of no leader, and no call hangs."""
    async with healthy(cluster) as client:
        cluster.kill(1, 2)
        started = time.monotonic()
        health = await client.observe_cluster()
        assert time.monotonic() - started < HANGS
        assert not health.reads_linearizable
        assert not any(e.is_healthy for e in health.endpoints)

        health = await observe_until(
            client, lambda h: h.endpoints[0].status is not None and not h.endpoints[0].status.leader
        )
        survivor = health.endpoints[0]
        assert survivor.status is not None
        assert survivor.status.errors == ("etcdserver: no leader",)
        assert len(survivor.members) == 3, "its own view needs no quorum"
        assert health.leader_name is None
        assert "etcd1: has no leader" in health.find_problems(cluster.members)
        started = time.monotonic()
        with pytest.raises(EtcdUnavailable, match="no leader"):
            await client.read_linearizable(client.endpoints[0])
        assert time.monotonic() - started < HANGS

        cluster.heal()
        health = await client.wait_until_healthy(cluster.members, START_SECONDS)
        assert health.reads_linearizable


async def test_wait_ends_when_its_time_is_over(cluster: Cluster) -> None:
    """A cluster that stays unhealthy ends in MemberFailed, which names each problem once."""
    told: list[tuple[str, ...]] = []
    async with healthy(cluster) as client:
        cluster.kill(2)
        started = time.monotonic()
        with pytest.raises(MemberFailed, match=r"not healthy after 0.5 s:\n  - etcd") as caught:
            await client.wait_until_healthy(cluster.members, 0.5, told.append)
        assert time.monotonic() - started < HANGS
        address = cluster.endpoints[2].url.removeprefix("https://")
        assert f"\n  - etcd3: {address} refuses connections" in str(caught.value)
        assert "journal" in str(caught.value)
        assert told
        assert all(before != after for before, after in pairwise(told)), "only changes are told"


async def test_space_alarm(cluster: Cluster) -> None:
    """NOSPACE leaves the members up and with the quorum's ear; they may not write, that is all."""
    async with healthy(cluster) as client:
        await cluster.raise_nospace(1)
        full = await client.get_status(client.endpoints[1])
        raised = Alarm(full.member_id, AlarmType.NOSPACE)
        assert await client.list_alarms(client.endpoints[0]) == (raised,)
        # Each member tells of the alarm once it has applied the entry that raised it.
        health = await observe_until(
            client, lambda h: all(e.status and e.status.alarms == (raised,) for e in h.endpoints)
        )
        assert health.reads_linearizable
        assert all(e.is_up and e.is_healthy and not e.may_write for e in health.endpoints)
        assert not any(e.error for e in health.endpoints)
        assert health.is_settled
        assert [m.is_healthy for m in health.seen_members()] == [True] * 3
        assert not health.find_faults(cluster.members)
        (told,) = health.find_problems(cluster.members)
        assert told.startswith("etcd2: alarm NOSPACE"), "once, by the member's name"
        await client.wait_until_healthy(cluster.members, START_SECONDS)
        await cluster.clear_nospace(1)
        await observe_until(client, lambda h: all(e.may_write for e in h.endpoints))


async def test_corrupt_alarm(own_cluster: Cluster) -> None:
    """CORRUPT makes /health false everywhere, and is told once, of the member that it names."""
    async with healthy(own_cluster) as client:
        await own_cluster.raise_corrupt(0)
        health = await observe_until(client, lambda h: all(e.alarms for e in h.endpoints))
        assert not (await client.get_health(client.endpoints[0])).is_healthy
        (member,) = health.seen_members()
        assert member.is_healthy
        assert member.alarms == {AlarmType.CORRUPT}
        (told,) = health.find_problems(own_cluster.members)
        assert told.startswith("etcd1: alarm CORRUPT")


async def test_an_election_is_looked_at_again(cluster: Cluster) -> None:
    """A cluster whose leader has just gone shows a quorum again within the same observation."""
    async with healthy(cluster) as client:
        leader = (await client.observe_cluster()).leader_name
        cluster.kill(next(i for i, m in enumerate(cluster.members) if m.name == leader))
        health = await client.observe_settled(ELECTION_SECONDS)
        assert sum(m.is_healthy for m in health.seen_members()) == 2
        # Who leads was asked beside that, and by one who had not heard yet.
        await observe_until(client, lambda h: h.leader_name not in (None, leader))


async def test_learner(own_cluster: Cluster) -> None:
    """An added learner has no name until it starts; then it answers for itself alone."""
    async with healthy(own_cluster) as client:
        added = await own_cluster.add_learner()
        [member] = [m for m in await client.list_members(client.endpoints[0]) if not m.is_started]
        assert member.is_learner
        assert member.peer_urls == (added.peer_url,)
        assert member.client_urls == ()
        problems = (await client.observe_cluster()).find_problems(own_cluster.members)
        assert any("an unstarted member" in problem for problem in problems)

        endpoint = await own_cluster.start_learner()
        async with own_cluster.client(CALL_SECONDS, (endpoint,)) as learner:
            health = await observe_until(learner, lambda h: h.endpoints[0].status is not None)
            [observed] = health.endpoints
            assert observed.status is not None
            assert observed.status.is_learner
            assert observed.members == ()
            assert "is a learner" in str(observed.error)
            with pytest.raises(EtcdRefused, match="is a learner"):
                await learner.read_linearizable(endpoint)


async def test_members_change(own_cluster: Cluster) -> None:
    """Each change is in the list; what etcd says no to is told apart from what it may do later."""
    first, second = "https://127.0.0.1:1", "https://127.0.0.1:2"
    async with healthy(own_cluster) as client:
        asked = client.endpoints[0]
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while True:
            try:
                await client.add_learner(asked, first)
                break
            except EtcdUnavailable:  # "unhealthy cluster", while its members have just connected
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.3)
        [added] = [m for m in await client.list_members(asked) if not m.is_started]
        assert added.is_learner
        assert added.peer_urls == (first,)
        with pytest.raises(EtcdUnavailable, match="in sync with leader"):
            await client.promote_member(asked, added.id)
        own = await client.get_status(asked)
        with pytest.raises(EtcdRefused, match="can only promote a learner"):
            await client.promote_member(asked, own.member_id)
        with pytest.raises(EtcdRefused, match="already exist"):
            await client.add_learner(asked, first)
        await client.update_member(asked, added.id, second)
        [moved] = [m for m in await client.list_members(asked) if m.id == added.id]
        assert moved.peer_urls == (second,)
        await client.remove_member(asked, added.id)
        assert added.id not in {m.id for m in await client.list_members(asked)}
        with pytest.raises(EtcdRefused, match="member not found"):
            await client.remove_member(asked, added.id + 1)


async def test_authentication_is_on(own_cluster: Cluster) -> None:
    """With RBAC on, /health goes on and the calls say that the gateway ignores certificates."""
    async with healthy(own_cluster) as client:
        await own_cluster.enable_auth()
        with pytest.raises(NotAuthorised, match=r"RBAC"):
            await client.get_status(client.endpoints[0])
        observed = await client.observe_endpoint(client.endpoints[0])
        assert observed.is_healthy
        health = await client.observe_settled()
        (told,) = health.find_problems(own_cluster.members)
        assert "RBAC" in told
        async with asyncio.timeout(2 * START_SECONDS):
            with pytest.raises(Refused, match="RBAC"):
                await client.wait_until_healthy(own_cluster.members, 4 * START_SECONDS)


@pytest.fixture
def guarded(build: Build, tmp_path: Path) -> Iterator[Cluster]:
    """Start a cluster of three that the test turns RBAC on in."""
    with closing(build.make(tmp_path, size=3)) as cluster:
        cluster.start()
        yield cluster


async def test_a_user_is_let_in_where_authentication_is_on(guarded: Cluster) -> None:
    """One log-in serves every call at every member, also where a member forgets its token."""
    login = login_as(RUNBOOKS)
    async with guarded.client(LOGIN_SECONDS, login=login) as client:
        await client.wait_until_healthy(guarded.members, START_SECONDS)
        assert login.token is None, "nobody logs in where nothing asks for it"
        await guarded.enable_auth()
        health = await client.wait_until_healthy(guarded.members, START_SECONDS)
        assert health.rbac is None
        for endpoint in client.endpoints:
            await client.read_linearizable(endpoint)
            await client.list_members(endpoint)
            await client.list_alarms(endpoint)
        token = login.token
        assert token
        guarded.kill(0)
        guarded.start_member(0)
        await client.wait_until_healthy(guarded.members, START_SECONDS)
        await client.read_linearizable(client.endpoints[0])
        (added,) = await add_learner(client, "https://127.0.0.1:1")
        await client.remove_member(client.endpoints[1], added.id)


async def add_learner(client: EtcdClient, peer_url: str) -> list[Member]:
    """Add one, once the members have been connected for long enough; returns its entry."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                await client.add_learner(client.endpoints[0], peer_url)
            except EtcdUnavailable:
                await asyncio.sleep(0.3)
                continue
            members = await client.list_members(client.endpoints[0])
            return [m for m in members if not m.is_started]


async def test_tokens_that_are_unknown_are_renewed_once_for_all(guarded: Cluster) -> None:
    """Many calls at once are refused a bad token, and one log-in is made."""
    login = login_as(RUNBOOKS)
    async with guarded.client(LOGIN_SECONDS, login=login) as client:
        await client.wait_until_healthy(guarded.members, START_SECONDS)
        await guarded.enable_auth()
        login.token = "no-such-token"
        first = client.endpoints[0]
        await asyncio.gather(*(client.read_linearizable(first) for _ in range(8)))
        renewed = login.token
        assert renewed != "no-such-token"
        await asyncio.gather(*(client.read_linearizable(e) for e in client.endpoints))
        assert login.token == renewed


async def test_neither_password_nor_token_is_logged(
    own_cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """At the most talkative, of all libraries: the calls are there, what they carried is not."""
    login = login_as(RUNBOOKS)
    async with own_cluster.client(LOGIN_SECONDS, login=login) as client:
        await client.wait_until_healthy(own_cluster.members, START_SECONDS)
        await own_cluster.enable_auth()
        with caplog.at_level(logging.DEBUG):
            await client.read_linearizable(client.endpoints[0])
    assert login.token
    assert "/v3/auth/authenticate" in caplog.text
    assert login.token not in caplog.text
    assert PASSWORDS[RUNBOOKS] not in caplog.text


async def test_who_may_not_is_told_the_way_out(own_cluster: Cluster) -> None:
    """No user, a wrong password, a user without the role: each its own sentence, no secret."""
    async with healthy(own_cluster):
        await own_cluster.enable_auth()
    for login, told in (
        (None, r"RBAC[^$]*user add etcd-runbooks[^$]*grant-role etcd-runbooks root"),
        (login_as(RUNBOOKS, "marker-wrong"), "login.password points to"),
        (login_as("nobody", "marker-wrong"), "no such user"),
        (login_as(READER), r"lacks the role root. `etcdctl --user root user grant-role"),
    ):
        async with own_cluster.client(LOGIN_SECONDS, login=login) as client:
            with pytest.raises(NotAuthorised, match=told) as caught:
                await client.read_linearizable(client.endpoints[0])
            health = await client.observe_settled()
            assert health.rbac == caught.value.sentence
            assert health.find_faults(own_cluster.members) == (health.rbac,)
            assert "marker" not in f"{caught.value}{health}{login!r}"
            with pytest.raises(Refused, match=told):
                await client.wait_until_healthy(own_cluster.members, 4 * START_SECONDS)


async def test_a_learner_is_seen_where_authentication_is_on(own_cluster: Cluster) -> None:
    """It lets nobody log in; the others' token is good there."""
    login = login_as(RUNBOOKS)
    async with own_cluster.client(LOGIN_SECONDS, login=login) as client:
        await client.wait_until_healthy(own_cluster.members, START_SECONDS)
        await own_cluster.add_learner()
        await own_cluster.enable_auth()
        endpoint = await own_cluster.start_learner()
        client.endpoints = (*client.endpoints, endpoint)
        health = await observe_until(
            client, lambda h: h.endpoints[1].status is not None and not h.rbac
        )
        assert health.endpoints[1].status is not None
        assert health.endpoints[1].status.is_learner


async def test_server_certificate_without_client_auth(build: Build, tmp_path: Path) -> None:
    """The gateway's trap: /health is true, and every other call names the server certificate."""
    with closing(build.make(tmp_path, size=1, gateway_is_broken=True)) as cluster:
        cluster.start()
        async with cluster.client(CALL_SECONDS) as client:
            health = await observe_until(client, lambda h: all(e.is_healthy for e in h.endpoints))
            for endpoint in health.endpoints:
                assert endpoint.status is None
                assert "server certificate lacks the usage 'client auth'" in str(endpoint.error)
            with pytest.raises((EtcdRefused, EtcdUnavailable), match="cannot reach its own etcd"):
                await client.get_status(client.endpoints[0])
