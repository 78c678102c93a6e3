"""New leaf certificates: staged on all hosts at once, swapped one member at a time.

Etcd reads its pairs again at each handshake, so nothing is restarted. Every key is new and is
made where it stays; what is replaced is kept aside.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.observation import PairsObservation
from tasks.model.plan import Stage, Step
from tasks.model.pointers import pointer


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLeaves(Step):
    """Make new keys on a host, sign for them, and put both beside the live pairs."""

    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapLeaves(Step):
    """Put the staged pairs in place of the live ones, and see that they are served."""

    name: str
    labels: tuple[str, ...]


def refuse_reinstalled(inventory: Inventory, observed: dict[str, PairsObservation]) -> None:
    """Raise Refused for members' hosts that have nothing of etcd's: no pair can be put there."""
    bare = [
        host.name
        for host in inventory.hosts
        if (seen := observed.get(host.name)) is not None
        and seen.trusted is None
        and not any(pair.certificate or pair.key for pair in seen.pairs.values())
    ]
    if bare:
        raise Refused(
            "\n".join(
                f"{name} has no certificate of etcd's at all: it was reinstalled, it seems; "
                f"{pointer('replace_member', member=[name])} lets it join again"
                for name in bare
            )
        )


Work = dict[str, dict[str, tuple[str, ...]]]
"""Host or client -> a pair's label -> why it is to be replaced."""


def leaf_steps(
    work: Work, order: Iterable[str], connections: dict[str, str], staging: Stage, swapping: Stage
) -> tuple[Step, ...]:
    """Plan the replacement of pairs: all are staged before the first is swapped.

    `order` is the order of swapping; `connections` says on which host's connection a name is.
    """
    steps: list[Step] = []
    for name in order:
        if reasons := {label: why for label, why in work.get(name, {}).items() if why}:
            why = "; ".join(f"{label}: {', '.join(texts)}" for label, texts in reasons.items())
            labels, host = tuple(reasons), connections[name]
            steps += (
                StageLeaves(
                    stage=staging,
                    host=host,
                    name=name,
                    labels=labels,
                    sentence=f"make and sign new pairs for {name}, beside the live ones ({why})",
                ),
                SwapLeaves(
                    stage=swapping,
                    host=host,
                    name=name,
                    labels=labels,
                    sentence=f"swap {', '.join(labels)} of {name}, and see them served",
                ),
            )
    return tuple(sorted(steps, key=lambda step: step.stage))
