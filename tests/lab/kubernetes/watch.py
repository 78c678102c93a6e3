"""Asks every API server of a cluster all the time whether it is ready, past the runbooks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.lab.kubernetes.cluster import KubernetesCluster, probe
from tests.lab.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.lab.host import Host

PAUSE_SECONDS = 0.1
"""Between one answer and the next question; the longest time "not ready" is that much too long."""


@dataclass(frozen=True, slots=True)
class ApiReport:
    """How long, in seconds, a node's API server was not ready at most; and how long none was.

    `refused` lists what was answered instead of 200, and how often (`-`: nobody answered).
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
        ready = {
            name: [at for at, said in seen if said == "200"] for name, seen in self._seen.items()
        }
        ends = {name: [seen[0][0], *ready[name], seen[-1][0]] for name, seen in self._seen.items()}
        refused: dict[str, dict[str, int]] = {name: {} for name in self._seen}
        for name, seen in self._seen.items():
            for _, said in seen:
                if said != "200":
                    refused[name][said] = refused[name].get(said, 0) + 1
        return ApiReport(
            {name: _longest(times) for name, times in ends.items()},
            _longest(at for times in ends.values() for at in times),
            refused,
        )

    def _ask(self, node: Host) -> None:
        said = probe(node, self._path)
        self._seen[node.name].append((time.monotonic(), said))


def _longest(times: Iterable[float]) -> float:
    return max((later - sooner for sooner, later in pairwise(sorted(times))), default=0.0)
