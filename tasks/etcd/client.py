"""The calls that a runbook makes of etcd, and what an observation of a whole cluster asks.

Judges nothing: whether an observation is good, or a change of the members safe, is for the plans.
What reads may be repeated; what changes the members may have been done although its answer was
lost, so look before repeating.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

from tasks.etcd import keyspace, wire
from tasks.etcd.gateway import Endpoint, Gateway
from tasks.etcd.prometheus import parse_metrics
from tasks.model.cluster import ClusterHealth
from tasks.model.diagnosis import MemberMetrics
from tasks.model.endpoints import EndpointHealth, EndpointStatus
from tasks.model.errors import EtcdRefused, MemberFailed, NotAuthorised, Refused, RunbookError
from tasks.model.histories import Past, find_fork, find_suspects, unchanged
from tasks.model.members import Alarm, AlarmType, DesiredMember, Member
from tasks.model.snapshots import DataHash

HASH_SECONDS = 60.0
"""For `hash_kv`, `read_data`: etcd reads all of its data, some seconds for two gigabytes."""
SPACE_SECONDS = 900.0
"""For `compact` and `defragment`: etcd answers when all is written; 8 GB on a slow disk."""
POLL_SECONDS = 0.15
ELECTION_SECONDS = 5.0
"""By etcd's default timeout: an election takes 1 to 2 s, and a second one when votes are split."""
NO_REASON = "no quorum, or an alarm is raised (etcd 3.4 does not say which)"

LISTED_KEYS = 500
"""Of which some are compared; where a member's data are another history, any of them tells."""
COMPARED_SECONDS = 5.0
"""How long the answer holds: a hash reads all of a member's data."""

LEASE_SECONDS = 2
"""Etcd makes it longer where an election may take longer."""
_HEALTH_KEY = b"etcd-runbooks/health"
T = TypeVar("T")
D = TypeVar("D")


class EtcdClient(Gateway):
    """Asks any endpoint of one cluster; made once a run, and used as `async with`.

    Every call ends within `timeout_seconds` (a second later when it looks into a dropped
    connection), because etcd without a leader lets some hang for longer than 10 s. Connections
    are kept for the whole run. What cannot be reached or cannot answer now raises EtcdUnavailable;
    what a retry does not change raises EtcdRefused. With a `login` it is asked as that user as soon
    as etcd asks for one; where no authentication is on, nobody logs in.
    """

    @cached_property
    def _compared(self) -> dict[tuple[str, str], tuple[float, str]]:
        return {}

    async def get_status(self, endpoint: Endpoint) -> EndpointStatus:
        """Get what the endpoint knows of itself; answered locally, also without a leader."""
        return await self._call(endpoint, wire.STATUS, wire.parse_status)

    async def list_members(
        self, endpoint: Endpoint, *, linearizable: bool = True
    ) -> tuple[Member, ...]:
        """List the members; not linearizable is the endpoint's own, possibly stale view.

        3.4 does not know the difference and always answers with its own view.
        """
        call = wire.list_members(linearizable=linearizable)
        return await self._call(endpoint, call, wire.parse_members)

    async def list_alarms(self, endpoint: Endpoint) -> tuple[Alarm, ...]:
        """List the cluster's raised alarms; needs a quorum."""
        return await self._call(endpoint, wire.LIST_ALARMS, wire.parse_alarms)

    async def read_linearizable(self, endpoint: Endpoint) -> None:
        """Read one absent key, which returns only if a quorum confirmed the read."""
        await self._call(endpoint, wire.read_key(_HEALTH_KEY), lambda _: None)

    async def get_health(self, endpoint: Endpoint) -> wire.Health:
        """Get the verdict of /health, itself a linearizable read; false is not an error.

        A full database does not make it false (every version since 3.4 knows the parameter).
        """
        excluded = {"exclude": AlarmType.NOSPACE.value}
        return await self._ask(endpoint, "GET", "/health", wire.parse_health, query=excluded)

    async def get_version(self, endpoint: Endpoint) -> wire.Version:
        """Get the server's version and the cluster's."""
        return await self._ask(endpoint, "GET", "/version", wire.parse_version)

    async def get_metrics(self, endpoint: Endpoint) -> MemberMetrics:
        """Get what a member measures of itself; needs no quorum."""
        return await self._ask(endpoint, "GET", "/metrics", parse_metrics)

    async def serves_v2(self, endpoint: Endpoint) -> bool:
        """Whether clients of the v2 API are served; asks for no key and leaves no trace."""
        return await self._ask(endpoint, "GET", "/v2/machines", lambda said: said[:4] == b"http")

    async def move_leader(self, leader: Endpoint, member_id: int) -> None:
        """Hand leadership from `leader` to a voter; only the leader itself can be asked.

        Raises EtcdUnavailable, also when the endpoint does not lead any more: look again.
        """
        await self._call(leader, wire.transfer_leadership(member_id), lambda _: None)

    async def add_learner(self, endpoint: Endpoint, peer_url: str) -> None:
        """Add a member without a vote; raises EtcdUnavailable while members (re)connect."""
        await self._call(endpoint, wire.add_learner(peer_url), lambda _: None)

    async def remove_member(self, endpoint: Endpoint, member_id: int) -> None:
        """Remove a member for good; one that runs ends by itself."""
        await self._call(endpoint, wire.remove_member(member_id), lambda _: None)

    async def promote_member(self, endpoint: Endpoint, member_id: int) -> None:
        """Give a learner its vote; raises EtcdUnavailable until it has nearly the leader's log."""
        await self._call(endpoint, wire.promote_member(member_id), lambda _: None)

    async def update_member(self, endpoint: Endpoint, member_id: int, peer_url: str) -> None:
        """Give a member another peer URL; its peers dial that one from now on."""
        await self._call(endpoint, wire.update_member(member_id, peer_url), lambda _: None)

    async def enable_downgrade(self, endpoint: Endpoint, version: str) -> None:
        """Let the cluster go down to a minor version; raises EtcdRefused where it may not."""
        await self._call(endpoint, wire.enable_downgrade(version), lambda _: None)

    async def cancel_downgrade(self, endpoint: Endpoint) -> None:
        """End a downgrade that is under way; raises EtcdRefused where none is."""
        await self._call(endpoint, wire.CANCEL_DOWNGRADE, lambda _: None)

    async def write_key(self, endpoint: Endpoint, key: bytes) -> None:
        """Write a key and delete it, so that the members save how far their data are."""
        await self._call(endpoint, wire.put_key(key), lambda _: None)
        await self._call(endpoint, wire.delete_key(key), lambda _: None)

    async def write_lease(self, endpoint: Endpoint) -> None:
        """Write through a quorum what no key, watch or revision knows of: a lease, which ends."""
        await self._call(endpoint, wire.grant_lease(LEASE_SECONDS), lambda _: None)

    async def count_keys(self, endpoint: Endpoint, revision: int) -> int:
        """Count the keys in a member's data at a revision; EtcdRefused where it is compacted."""
        return await self._call(endpoint, wire.count_keys(revision), wire.parse_count)

    async def hash_kv(self, endpoint: Endpoint, revision: int) -> DataHash:
        """Get the hash of a member's data; EtcdRefused by 3.4 and 3.5.1, and once compacted."""
        return await self._call(endpoint, keyspace.hash_kv(revision), keyspace.parse_hash)

    async def read_data(
        self, endpoint: Endpoint, revision: int
    ) -> tuple[int | None, DataHash | None]:
        """Count the keys of a member's data at a revision, and get its hash.

        None stands for what its version does not know, or what is compacted by now.
        """

        async def unless_refused(asked: Awaitable[T]) -> T | None:
            with suppress(EtcdRefused):
                return await asked
            return None

        return await asyncio.gather(
            unless_refused(self.count_keys(endpoint, revision)),
            unless_refused(self.hash_kv(endpoint, revision)),
        )

    async def compact(self, endpoint: Endpoint, revision: int) -> bool:
        """Forget the history before a revision; False where that is so already."""
        patient = replace(endpoint, patience_seconds=SPACE_SECONDS)
        try:
            await self._call(patient, keyspace.compact(revision), lambda _: None)
        except EtcdRefused as error:
            if keyspace.IS_COMPACTED in error.message:
                return False
            raise
        return True

    async def defragment(self, endpoint: Endpoint) -> None:
        """Write a member's database anew; it serves nobody until that is done."""
        patient = replace(endpoint, patience_seconds=SPACE_SECONDS)
        await self._call(patient, keyspace.DEFRAGMENT, lambda _: None)

    async def disarm(self, endpoint: Endpoint, alarm: Alarm) -> None:
        """Take an alarm back, also one of a member that is none any more."""
        await self._call(endpoint, keyspace.disarm(alarm), lambda _: None)

    async def arm(self, endpoint: Endpoint, alarm: Alarm) -> None:
        """Raise an alarm, also for a member that is none."""
        await self._call(endpoint, keyspace.arm(alarm), lambda _: None)

    async def first_key(self, endpoint: Endpoint, start: bytes) -> bytes | None:
        """Get the first key of a member's own data from there on."""
        call = keyspace.list_keys(start, keyspace.END, 1)
        return await self._call(endpoint, call, keyspace.parse_first_key)

    async def count_range(self, endpoint: Endpoint, start: bytes, end: bytes) -> int:
        """Count keys of a member's own data, by its index."""
        return await self._call(endpoint, keyspace.count_range(start, end), wire.parse_count)

    async def sample(
        self, endpoint: Endpoint, start: bytes, end: bytes, limit: int
    ) -> tuple[keyspace.Sampled, ...]:
        """Measure the first keys of a range; of their values only the lengths are kept."""
        call = keyspace.sample(start, end, limit)
        return await self._call(endpoint, call, keyspace.parse_sample)

    def stream_snapshot(self, endpoint: Endpoint) -> AsyncIterator[bytes]:
        """Stream the member's database and its checksum, part by part; raises as calls do."""
        return self._stream(endpoint, wire.SNAPSHOT, wire.parse_snapshot_line)

    async def observe_endpoint(self, endpoint: Endpoint) -> EndpointHealth:
        """Ask one endpoint, at once, for all that a health gate needs; never raises.

        What fails is missing from the answer and told in its `error`.
        """
        failures: list[str] = []
        forbidden: list[str] = []

        async def attempt(call: Awaitable[T], otherwise: D) -> T | D:
            try:
                return await call
            except RunbookError as error:
                failures.append(error.message.removeprefix(f"{endpoint.url}: "))
                if isinstance(error, NotAuthorised):
                    forbidden.append(error.sentence)
                return otherwise

        async def can_read() -> bool:
            await self.read_linearizable(endpoint)
            return True

        health, reads, status, members, alarms = await asyncio.gather(
            attempt(self.get_health(endpoint), None),
            attempt(can_read(), otherwise=False),
            attempt(self.get_status(endpoint), None),
            attempt(self.list_members(endpoint, linearizable=False), ()),
            attempt(self.list_alarms(endpoint), ()),
        )
        if health is not None and not health.is_healthy and not reads:
            failures.insert(0, f"/health is false: {health.reason or NO_REASON}")
        return EndpointHealth(
            name=endpoint.name,
            endpoint=endpoint.url,
            # /health is false for CORRUPT as well; a read that worked is the better witness.
            is_healthy=reads or (health is not None and health.is_healthy),
            status=status,
            members=members,
            alarms=tuple(dict.fromkeys((*alarms, *(status.alarms if status else ())))),
            error="; ".join(dict.fromkeys(failures)) or None,
            rbac=next(iter(forbidden), None),
            reads=reads,
            member=endpoint.member,
        )

    async def observe_cluster(self) -> ClusterHealth:
        """Ask all endpoints at once, and each for a linearizable read; never raises."""
        endpoints = tuple(await asyncio.gather(*map(self.observe_endpoint, self.endpoints)))
        suspects = find_suspects(endpoints)
        forks = await asyncio.gather(*(self._compare(*pair) for pair in suspects))
        forked = {one.name: fork for (one, _), fork in zip(suspects, forks, strict=True)}
        endpoints = tuple(replace(e, fork=forked.get(e.name, "")) for e in endpoints)
        return ClusterHealth(endpoints, reads_linearizable=any(e.reads for e in endpoints))

    async def _compare(self, one: EndpointHealth, other: EndpointHealth) -> str:
        """Say in what two members' data differ, with whom; empty where nothing is proven."""
        clock, pair = asyncio.get_running_loop().time, (one.name, other.name)
        at, fork = self._compared.get(pair, (-COMPARED_SECONDS, ""))
        if clock() - at >= COMPARED_SECONDS and one.status and other.status:
            revision = min(one.status.revision, other.status.revision)
            with suppress(RunbookError):  # the next look asks again
                fork = await self._find_fork(one.name, other.name, revision)
                self._compared[pair] = (clock(), fork)
        return fork and f"{fork}, as {other.label} has it"

    async def _find_fork(self, one: str, other: str, revision: int) -> str:
        own, its = (next(e for e in self.endpoints if e.name == name) for name in (one, other))
        listed = await self._call(own, wire.list_states(LISTED_KEYS), wire.parse_states)
        keys = unchanged(listed, revision)
        found = await asyncio.gather(
            *(self._call(its, wire.read_state(key, revision), wire.parse_states) for key in keys)
        )
        there = {key: state for states in found for key, state in states.items()}
        if fork := find_fork(Past(None, keys), Past(None, there), revision):
            return fork
        (_, hashed), (_, known) = await asyncio.gather(
            self.read_data(own, revision), self.read_data(its, revision)
        )
        return find_fork(Past(hashed, keys), Past(known, there), revision)

    async def observe_settled(self, timeout_seconds: float = ELECTION_SECONDS) -> ClusterHealth:
        """Observe, again for some seconds while an election is under way; never raises.

        One look in the middle of an election shows a cluster without a quorum.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_seconds
        while True:
            health = await self.observe_cluster()
            if health.is_settled or clock() + POLL_SECONDS >= deadline:
                return health
            await asyncio.sleep(POLL_SECONDS)

    async def wait_until_healthy(
        self,
        expected: tuple[DesiredMember, ...],
        timeout_seconds: float,
        on_progress: Callable[[tuple[str, ...]], None] | None = None,
        without: frozenset[str] = frozenset(),
    ) -> ClusterHealth:
        """Poll until the members are exactly the expected ones, up and together; return it so.

        Alarms do not count: whoever changes what they forbid looks at them before. Problems of the
        members in `without`, which nobody could reach, do not count.
        `on_progress` gets the problems that are left, each time that they change. Raises
        MemberFailed with the last problems when the time is over; the observation under way then
        is still awaited, for at most one call's limit. Raises Refused where etcd's authentication
        hides the members.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_seconds
        told: tuple[str, ...] = ()
        while True:
            health = await self.observe_cluster()
            if health.rbac:
                raise Refused(health.rbac)  # no waiting changes it
            problems = tuple(
                problem
                for problem in health.find_faults(expected)
                if problem.partition(":")[0] not in without
            )
            if not problems:
                return health
            if problems != told and on_progress is not None:
                on_progress(problems)
            told = problems
            if clock() + POLL_SECONDS >= deadline:
                raise MemberFailed(
                    f"the cluster is not healthy after {timeout_seconds:g} s:\n  - "
                    + "\n  - ".join(problems)
                    + "\nLook at the journal of etcd on the hosts named here."
                )
            await asyncio.sleep(POLL_SECONDS)
