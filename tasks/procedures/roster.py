"""Where members can be asked: those that the inventory names, and those that only the list has.

And what asks them: the gate before each step, and the steps on a client of all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from tasks.engine.run import Run, end_all
from tasks.etcd.client import EtcdClient
from tasks.model.cluster import ClusterHealth
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.members import DesiredMember
from tasks.model.observation import HostObservation
from tasks.model.plan import Step
from tasks.plans import obstacles
from tasks.plans.addresses import desired_member
from tasks.plans.health import refuse_unseen
from tasks.plans.reconfiguration import RemoveMember
from tasks.steps import health


class Roster:
    """Where members can be asked: the inventory's, and every further one that the list names.

    It has one client for the run, whose connections are kept between the looks.
    """

    def __init__(self, known: Iterable[DesiredMember]) -> None:
        self._by_url = {member.client_url: member for member in known}
        self._silent: frozenset[str] = frozenset()
        self._client: EtcdClient | None = None
        self._asking: asyncio.Task[frozenset[int]] | None = None
        self._suspects: frozenset[str] = frozenset()
        self._condemned: frozenset[int] | None = None

    @property
    def members(self) -> tuple[DesiredMember, ...]:
        """All that are known."""
        return tuple(self._by_url.values())

    def add(self, member: DesiredMember) -> None:
        """Ask one that joins, too."""
        self._by_url.setdefault(member.client_url, member)

    def drop(self, client_url: str | None) -> None:
        """Forget one that was removed: nobody is to wait for its answer."""
        self._by_url.pop(client_url or "", None)

    async def connect(self, run: Run) -> EtcdClient:
        """Get the client of all of them; raises AuthorityRefused where it cannot be made."""
        endpoints = await health.reach_endpoints(run, self.members, self._silent)
        if self._client is None:
            client = await health.make_client(run, endpoints)
            self._client = await run.on_exit.enter_async_context(client)
        self._client.endpoints = endpoints
        return self._client

    @asynccontextmanager
    async def open(self, run: Run) -> AsyncIterator[EtcdClient]:
        """Lend the client of all of them; it stays open until the run ends."""
        yield await self.connect(run)

    def condemn(self, ids: frozenset[int]) -> None:
        """Take these members for ill, whose data are wrong, and their alarm CORRUPT for known.

        From then on no look counts them, and none tells of the alarm: it must not forbid what
        heals them.
        """
        self._condemned = ids

    def suspect(self, run: Run, hosts: frozenset[str]) -> None:
        """Take the members of these hosts for dead: no look waits long for them.

        They are asked once with the patience that everyone else has, beside all else;
        `find_alive` has what came of it.
        """
        suspects = tuple(member for member in self.members if member.name in hosts)
        if suspects:
            self._suspects = frozenset(member.name for member in suspects)
            self._silent |= {member.client_url for member in suspects}
            self._asking = asyncio.ensure_future(self._ask_patiently(run, suspects))
            run.on_exit.push_async_callback(end_all, (self._asking,))

    async def find_alive(self) -> frozenset[int]:
        """Tell the ids of those suspects that are healthy; waits for all their answers."""
        alive = await self._asking if self._asking else frozenset()
        return alive - (self._condemned or frozenset())

    async def reconsider(
        self, run: Run, found: ClusterHealth, reached: Iterable[str]
    ) -> ClusterHealth:
        """Look again, with patience, where a suspect is slow and not dead.

        Only those are waited for whose hosts are reached: a host without power answers nobody.
        """
        if self._suspects.isdisjoint(reached):
            return found
        alive = await self.find_alive()
        if all(m.is_healthy for m in found.seen_members() if m.member.id in alive):
            return found
        self._silent = frozenset()
        return await self.look(run, settled=True)

    async def _ask_patiently(self, run: Run, suspects: tuple[DesiredMember, ...]) -> frozenset[int]:
        client = await self.connect(run)
        endpoints = await health.reach_endpoints(run, suspects)
        found = await asyncio.gather(*map(client.observe_endpoint, endpoints))
        return frozenset(e.status.member_id for e in found if e.status and e.is_healthy)

    async def look(self, run: Run, *, settled: bool = False) -> ClusterHealth:
        """Ask all members; those that the list names and nobody knew are asked, too.

        `settled`: for a plan, which must not conclude from the middle of an election that quorum
        is lost. Raises Refused when etcd's authentication hides the members, and where some came
        back that a restore has ended.
        """
        patience = run.inventory.etcd.settings.election_seconds
        while True:
            async with self.open(run) as client:
                observing = (
                    client.observe_settled(patience) if settled else client.observe_cluster()
                )
                found = await observing
            refuse_unseen(found)
            health.refuse_others(run, found)
            if self._condemned is not None:
                found = found.condemning(self._condemned)
            self._silent = frozenset(e.endpoint for e in found.endpoints if e.status is None)
            further = {
                m.client_url: m.as_desired
                for m in found.seen_members()
                if m.client_url and m.client_url not in self._by_url
            }
            if not further:
                return found
            self._by_url |= further


async def pass_gate(run: Run, roster: Roster, step: Step) -> None:
    """See that a step of the plan may be done now; waits some seconds for members to come back.

    Raises MemberFailed when the cluster does not allow it in time, at once for a stale plan.
    """

    async def look() -> tuple[str, ...]:
        live = (await roster.look(run)).seen_members()
        alive = await roster.find_alive() if isinstance(step, RemoveMember) else frozenset()
        return obstacles.find_obstacles(step, live, alive)

    await health.stand_at_gate(
        look, f"not done: {step.sentence.splitlines()[0]}", obstacles.is_stale
    )


def on_client(
    roster: Roster, action: Callable[..., Awaitable[Any]]
) -> Callable[[Run, Any], Awaitable[None]]:
    """Give a step of `reconfiguration` a client of all members for as long as it runs."""

    async def do(run: Run, step: Step) -> None:
        async with roster.open(run) as client:
            await action(run, client, step)

    return do


def known_roster(run: Run) -> Roster:
    """Make the roster of the members whose address the inventory fixes."""
    return Roster(locate_known(run.inventory, {}))


def locate_known(
    inventory: Inventory, observed: dict[str, HostObservation]
) -> tuple[DesiredMember, ...]:
    """Say where the inventory's members are, of those whose address is known."""
    found = []
    for host in inventory.hosts:
        seen = observed.get(host.name)
        try:
            found.append(desired_member(inventory, host, seen.detected_address if seen else None))
        except Refused:
            continue  # without an address and unreachable: the member list knows it
    return tuple(found)
