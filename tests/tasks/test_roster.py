"""Whom an operator calls dead: a slow member is not, and a host without power is not waited for."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from tasks.model.members import DesiredMember
from tasks.procedures.roster import Roster

if TYPE_CHECKING:
    from tasks.engine.run import Run
    from tasks.model.cluster import ClusterHealth

SUSPECT = "m2"


def health(*, healthy: bool) -> ClusterHealth:
    """See the suspect healthy or not, and another one healthy."""
    members = [(1, True), (2, healthy)]
    seen = [SimpleNamespace(member=SimpleNamespace(id=n), is_healthy=ok) for n, ok in members]
    return cast("ClusterHealth", SimpleNamespace(seen_members=lambda: seen))


class Asked(Roster):
    """A roster whose suspect answers who waits, if it is alive."""

    def __init__(self, *, alive: bool) -> None:
        super().__init__(DesiredMember(f"m{n}", f"p{n}", f"c{n}") for n in (1, 2))
        self.alive, self.waited, self.looks = alive, 0, list[frozenset[str]]()

    async def _ask_patiently(self, *_: object) -> frozenset[int]:
        self.waited += 1
        return frozenset({2}) if self.alive else frozenset()

    async def find_alive(self) -> frozenset[int]:
        """Count who waits for it."""
        self.waited += 1
        return await super().find_alive()

    async def look(self, *_: object, **__: object) -> ClusterHealth:
        """See it, and note of whom no patience is had."""
        self.looks.append(self._silent)
        return health(healthy=True)


@pytest.mark.parametrize(
    ("reached", "alive", "healthy", "waits", "looks"),
    [
        ({"m1", SUSPECT}, True, False, 2, [frozenset()]),
        ({"m1", SUSPECT}, True, True, 2, []),
        ({"m1", SUSPECT}, False, False, 2, []),
        ({"m1"}, True, False, 0, []),
    ],
    ids=["slow", "in time", "dead", "no host"],
)
async def test_a_suspect_that_is_slow_is_looked_at_again(
    reached: set[str], alive: bool, healthy: bool, waits: int, looks: list[frozenset[str]]
) -> None:
    """With everyone's patience, before a plan is made; once, and only where its host answers."""
    roster, found = Asked(alive=alive), health(healthy=healthy)
    async with AsyncExitStack() as stack:
        run = cast("Run", SimpleNamespace(on_exit=stack))
        roster.suspect(run, frozenset({SUSPECT}))
        last = await roster.reconsider(run, found, reached)
    assert (roster.waited, roster.looks) == (waits, looks)
    assert last is found if not looks else last is not found


async def test_without_a_suspect_nobody_is_waited_for() -> None:
    """A planned replacement has none."""
    roster, found = Asked(alive=True), health(healthy=True)
    async with AsyncExitStack() as stack:
        run = cast("Run", SimpleNamespace(on_exit=stack))
        roster.suspect(run, frozenset())
        assert await roster.reconsider(run, found, {"m1", SUSPECT}) is found
    assert (roster.waited, roster.looks) == (0, [])
