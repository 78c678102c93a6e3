"""Old members that came back after a restore: by their cluster's id they are told from the cluster.

A majority of them is a cluster of its own, with the data of before, and serves whoever asks. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from tasks.model.cluster import ClusterHealth
from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.members import format_id
from tasks.model.pointers import pointer


def find_fenced(
    inventory: Inventory, health: ClusterHealth, fenced: Mapping[str, str]
) -> dict[str, str]:
    """Name the hosts whose members serve what a restore has ended, with the id.

    None where all of the inventory's do: the data of before were taken back on every host.
    """
    ids = {e.name: format_id(e.status.cluster_id) for e in health.endpoints if e.status}
    found = {name: each for name, each in ids.items() if each in fenced}
    return {} if is_taken_back(inventory, health, fenced) else found


def is_taken_back(inventory: Inventory, health: ClusterHealth, fenced: Mapping[str, str]) -> bool:
    """Whether every member of the inventory serves the data of before a restore."""
    ids = {e.name: format_id(e.status.cluster_id) for e in health.endpoints if e.status}
    found = {ids.get(host.name) for host in inventory.hosts}
    return len(found) == 1 and not found.isdisjoint(fenced)


def fence_sentence(
    inventory: Inventory, found: Mapping[str, str], fenced: Mapping[str, str]
) -> str:
    """Say who came back with old data, since when they are that, and what stops them."""
    names = sorted(found)
    why = "; ".join(
        f"cluster id {each}, ended by {fenced[each]}" for each in sorted({*found.values()})
    )
    way = pointer("recover_quorum", consent=inventory.name, without=names)
    return (
        f"{', '.join(names)} came back with the data of before {inventory.name} was restored, or "
        f"wiped and with the id of then ({why}): what clients write there is not in the cluster. "
        f"{way} stops them, and "
        f"{pointer('replace_member', member=names)} lets them join then. Where the old data were "
        "put back on purpose, check_health forgets it as soon as all members serve them"
    )


def refuse_fenced(inventory: Inventory, health: ClusterHealth, fenced: Mapping[str, str]) -> None:
    """Raise Refused while such members serve: they are not to be taken for the cluster."""
    if found := find_fenced(inventory, health, fenced):
        raise Refused(f"{fence_sentence(inventory, found, fenced)}. Nothing was changed")
