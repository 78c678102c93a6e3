"""As which cluster a restore is done: what an earlier run has begun, and what is over.

The hosts' marks are all that is remembered of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.inventory import Inventory
from tasks.model.restores import Mark, RestoreHost

LEAP = 1_000_000_000
"""How far revisions are raised above the highest that was recorded: a week of 1,500 writes a
second, as Kubernetes' own page on restores advises for etcd's --bump-revision."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run was asked for, and what is known beside the hosts.

    `told` says of what the restore is. `highest` is the highest revision that anybody recorded,
    `revision` the snapshot's (of a survivor's none is known yet), `size` its bytes. `left` are the
    hosts of the inventory that are left out by the operator's word, `reached` those of them that
    can be reached, `fenced` those of these that serve what a restore has ended. `has_programs`: the
    runner can lend etcd's programs to a host. `apiservers` are the API servers outside that the run
    stops first and starts last, `unheard` those that it cannot, with the reason.
    """

    runbook: str
    told: str
    token: str
    sha256: str
    size: int
    revision: int
    highest: int
    left: frozenset[str]
    reached: tuple[str, ...] = ()
    fenced: tuple[str, ...] = ()
    apiservers: tuple[str, ...] = ()
    unheard: tuple[tuple[str, str], ...] = ()
    is_rehearsed: bool = False
    has_programs: bool = False
    accepts_old_revisions: bool = False
    accepts_apiservers: bool = False


def find_done(sha256: str, hosts: tuple[RestoreHost, ...]) -> Mark | None:
    """Find the restore from this very snapshot that is over on all hosts; None: there is none.

    One that was to be done again, and died after members were stopped, goes on.
    """
    if any(host.staged for host in hosts) and not all(host.runs for host in hosts):
        return None
    marks = [host.marked for host in hosts]
    first = marks[0]
    if first is None or not first.opened or first.sha256 != sha256:
        return None
    return first if all(first.is_same(mark) and mark.opened for mark in marks if mark) else None


def choose_mark(
    inventory: Inventory, wanted: Wanted, hosts: tuple[RestoreHost, ...]
) -> tuple[Mark, bool]:
    """Choose as which cluster is restored: what an earlier run has begun goes on.

    The second part says whether it does. Of what is only ready beside the data, the revision must
    still be above all that was recorded meanwhile.
    """
    names = tuple(sorted(host.host for host in hosts))

    def fits(mark: Mark | None) -> bool:
        return (
            mark is not None
            and not mark.opened
            and mark.hosts == names
            and mark.runbook == wanted.runbook
            and wanted.sha256 in {"", mark.sha256}
        )

    placed = [h.marked for h in hosts if h.marked and fits(h.marked)]
    if placed:
        return max(placed, key=lambda mark: mark.token), True
    ready = [
        h.staged
        for h in hosts
        if h.staged
        and fits(h.staged)
        and (h.staged.revision > wanted.highest or not h.staged.raised)
    ]
    if ready and wanted.sha256:
        return max(ready, key=lambda mark: mark.token), True
    raises = can_raise(inventory, hosts)
    target = max(wanted.highest, wanted.revision) + LEAP if raises else wanted.revision
    new = Mark(
        runbook=wanted.runbook,
        token=wanted.token,
        sha256=wanted.sha256,
        hosts=names,
        revision=target,
        raised=target - _written(wanted.revision) if raises else 0,
    )
    return new, False


def raise_above(mark: Mark, sha256: str, revision: int) -> Mark:
    """Say how far a snapshot is raised of which only now is known what it has."""
    written = _written(revision)
    raised = max(mark.revision - written, LEAP) if mark.raised else 0
    known = {"sha256": sha256, "raised": raised, "revision": written + raised or revision}
    return mark.model_copy(update=known)


def _written(revision: int) -> int:
    """Say from where etcd's tool raises: data without a write have 1, and it begins at 0 there."""
    return revision if revision > 1 else 0


def can_raise(inventory: Inventory, hosts: tuple[RestoreHost, ...]) -> bool:
    """Whether every host's programs can raise the revision; those of the runner are as new."""
    found = [host.best_tools(inventory.etcd.version) for host in hosts]
    return all(tools.bumps for tools in found if tools is not None)
