"""Asks every API server of a cluster all the time whether it is ready, past the runbooks."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from tests.lab.kubernetes.cluster import KubernetesCluster, probe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

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


class ApiWatch:
    """A new connection to each API server again and again, for as long as the block."""

    def __init__(self, cluster: KubernetesCluster, path: str = "/readyz") -> None:
        self._nodes = list(cluster.nodes.values())
        self._path = path
        self._ends = threading.Event()
        self._seen: dict[str, list[tuple[float, str]]] = {node.name: [] for node in self._nodes}
        self._threads = [
            threading.Thread(target=self._ask, args=(node,), daemon=True) for node in self._nodes
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

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
        while not self._ends.is_set():
            said = probe(node, self._path)
            self._seen[node.name].append((time.monotonic(), said))
            self._ends.wait(PAUSE_SECONDS)


def _longest(times: Iterable[float]) -> float:
    return max((later - sooner for sooner, later in pairwise(sorted(times))), default=0.0)
