"""Asks every API server of a cluster all the time whether it is ready, past the runbooks."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING

from tests.lab.kubernetes.cluster import KubernetesCluster, probe
from tests.lab.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.lab.host import Host

Interval = tuple[float, float]

PAUSE_SECONDS = 0.1
"""Between one answer and the next question; the longest time "not ready" is that much too long."""


@dataclass(frozen=True, slots=True)
class ApiReport:
    """How long, in seconds, a node's API server was not ready at most; and how long none was.

    One that said 200 twice, and nothing else in between, was ready meanwhile, however long the
    question took. `refused` lists what was answered instead of 200, and how often (`-`: nobody
    answered).
    """

    longest: Mapping[str, float]
    longest_without_any: float
    refused: Mapping[str, Mapping[str, int]]


class ApiWatch(Watching):
    """A new connection to each API server again and again, for as long as the block."""

    def __init__(self, cluster: KubernetesCluster, path: str = "/readyz") -> None:
        nodes = list(cluster.nodes.values())
        self._path = path
        self._seen: dict[str, list[tuple[float, str]]] = {node.name: [] for node in nodes}
        super().__init__(PAUSE_SECONDS, *(partial(self._ask, node) for node in nodes))

    def report(self) -> ApiReport:
        """Sum up; call it after the block."""
        return sum_up(self._seen)

    def _ask(self, node: Host) -> None:
        said = probe(node, self._path)
        self._seen[node.name].append((time.monotonic(), said))


def sum_up(answers: Mapping[str, list[tuple[float, str]]]) -> ApiReport:
    """Make the report of each node's answers, with the time of each."""
    away = {name: _away(seen) for name, seen in answers.items()}
    refused: dict[str, dict[str, int]] = {}
    for name, seen in answers.items():
        refused[name] = dict(Counter(said for _, said in seen if said != "200"))
    return ApiReport(
        {name: _longest(times) for name, times in away.items()},
        _longest(reduce(_both, away.values())),
        refused,
    )


def _away(seen: list[tuple[float, str]]) -> list[Interval]:
    """List the times from an answer that was the last good one to the next good one."""
    found, since, is_away = [], seen[0][0], False
    for at, said in seen:
        if said != "200":
            is_away = True
            continue
        if is_away:
            found.append((since, at))
        since, is_away = at, False
    return [*found, (since, seen[-1][0])] if is_away else found


def _both(some: list[Interval], others: list[Interval]) -> list[Interval]:
    """List the times that are in one interval of each list."""
    overlaps = ((max(a, c), min(b, d)) for a, b in some for c, d in others)
    return [(begin, end) for begin, end in overlaps if begin < end]


def _longest(times: list[Interval]) -> float:
    return max((end - begin for begin, end in times), default=0.0)
