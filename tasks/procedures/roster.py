"""Where members can be asked: those that the inventory names, and those that only the list has."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

from tasks.engine.run import Run
from tasks.etcd.client import EtcdClient
from tasks.model.cluster import ClusterHealth, DesiredMember
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.observation import HostObservation
from tasks.plans.addresses import desired_member
from tasks.plans.health import refuse_unseen
from tasks.steps import health


class Roster:
    """Where members can be asked: the inventory's, and every further one that the list names."""

    def __init__(self, known: Iterable[DesiredMember]) -> None:
        self._by_url = {member.client_url: member for member in known}
        self._silent: frozenset[str] = frozenset()

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

    def open(self, run: Run) -> AbstractAsyncContextManager[EtcdClient]:
        """Open a client of all of them."""
        return health.etcd_client(run, self.members, self._silent)

    async def look(self, run: Run, *, settled: bool = False) -> ClusterHealth:
        """Ask all members; those that the list names and nobody knew are asked, too.

        `settled`: for a plan, which must not conclude from the middle of an election that quorum
        is lost. Raises Refused when etcd's authentication hides the members.
        """
        while True:
            async with self.open(run) as client:
                found = await (client.observe_settled() if settled else client.observe_cluster())
            refuse_unseen(found)
            self._silent = frozenset(e.endpoint for e in found.endpoints if e.status is None)
            further = {
                m.client_url: m.as_desired
                for m in found.seen_members()
                if m.client_url and m.client_url not in self._by_url
            }
            if not further:
                return found
            self._by_url |= further


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
            found.append(desired_member(host, seen.detected_address if seen else None))
        except Refused:
            continue  # without an address and unreachable: the member list knows it
    return tuple(found)
