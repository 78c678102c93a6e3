"""The highest revision that this machine has ever seen of a cluster, and which ids it has left."""

from __future__ import annotations

from collections.abc import Collection

from tasks.engine.remembered import recall, remember
from tasks.engine.run import Run
from tasks.model.cluster import ClusterHealth
from tasks.plans.fences import fence_sentence, find_fenced, is_taken_back


def note_revision(run: Run, seen: int) -> None:
    """Note a revision that was seen, if it is higher than what is noted."""
    if seen > read_revision(run):
        remember(run.inventory.name, revision=seen)


def read_revision(run: Run) -> int:
    """Read what is noted; 0 where nothing is."""
    return recall(run.inventory.name).revision


def highest_answer(health: ClusterHealth) -> int:
    """Tell the highest revision that a member answers; 0 where none does."""
    return max((e.status.revision for e in health.endpoints if e.status), default=0)


def note_pending(run: Run, ids: Collection[str]) -> None:
    """Note the ids that a restore is about to end, for the run that finishes it."""
    known = recall(run.inventory.name).pending
    remember(run.inventory.name, pending=tuple(sorted({*known, *ids})))


def note_fenced(run: Run, ids: Collection[str], own: Collection[str]) -> dict[str, str]:
    """Note that a restore is over: the ids that it ended, none of which is the cluster's own."""
    known = recall(run.inventory.name)
    told = f"{run.runbook} of {run.started:%Y-%m-%d %H:%M}Z"
    ended = dict.fromkeys((*known.pending, *ids), told) | known.fenced
    fenced = {each: told for each, told in sorted(ended.items()) if each not in own}
    remember(run.inventory.name, pending=(), fenced=fenced)
    return fenced


def forget_fenced(run: Run, found: ClusterHealth) -> bool:
    """Forget what a restore has ended, where all members serve that: it was taken back."""
    is_back = is_taken_back(run.inventory, found, recall(run.inventory.name).fenced)
    if is_back:
        remember(run.inventory.name, fenced={})
    return is_back


def tell_fenced(run: Run, found: ClusterHealth) -> tuple[str, ...]:
    """Say who came back that a restore has ended."""
    inventory, fenced = run.inventory, recall(run.inventory.name).fenced
    others = find_fenced(inventory, found, fenced)
    return (fence_sentence(inventory, others, fenced),) if others else ()
