"""The inventory and the member list, compared both ways; and the command that leads out.

A member that only one of the two knows is never passed over: "done" would say that the cluster is
as the inventory wants it.
"""

from __future__ import annotations

from collections.abc import Iterable

from tasks.model.errors import Refused
from tasks.model.members import DesiredMember, SeenMember, format_id
from tasks.model.pointers import pointer
from tasks.model.urls import split_url


def find_gone(known: Iterable[DesiredMember], live: tuple[SeenMember, ...]) -> tuple[str, ...]:
    """Name the members of the inventory that the list has neither by name nor by peer URL.

    An empty list is that of a cluster which nobody could be asked for: nothing is known then.
    """
    if not live:
        return ()
    names = {m.member.name for m in live}
    urls = {url for m in live for url in m.member.peer_urls}
    return tuple(m.name for m in known if m.member not in names and m.peer_url not in urls)


def lead_back(name: str) -> str:
    """Say what is wrong with a member that the list lacks, and the commands that lead out."""
    return (
        f"{name} is in the inventory and is no member any more: "
        f"{pointer('replace_member', member=[name])} lets it join again; "
        f"{pointer('remove_member', member=[name], write_inventory=True)} takes it out of the "
        "inventory"
    )


def refuse_gone(known: Iterable[DesiredMember], live: tuple[SeenMember, ...]) -> None:
    """Raise Refused when a member of the inventory is not in the list."""
    if gone := find_gone(known, live):
        raise Refused("\n".join(map(lead_back, gone)))


def refuse_disagreement(
    live: tuple[SeenMember, ...],
    known: tuple[DesiredMember, ...],
    *,
    named: frozenset[str] = frozenset(),
    ids: frozenset[int] = frozenset(),
    unlocated: frozenset[str] = frozenset(),
) -> None:
    """Raise Refused for members that the list or the inventory alone has, all of them at once.

    The command itself is about the hosts `named` and the members `ids`, which are excepted. The
    hosts `unlocated`, whose address nobody could say, are known by their name.
    """
    urls = {member.peer_url for member in known}
    at_home = {member.name: member.peer_url for member in known}
    problems = []
    for m in live:
        name = m.host
        if m.member.id in ids or urls.intersection(m.member.peer_urls):
            continue
        if name in named or name in unlocated:
            continue
        entry = f"{m.label} ({format_id(m.member.id)}) at {m.peer_url}"
        if name in at_home:
            problems.append(
                f"{entry} is at {at_home[name]} in the inventory: correct its address there, or "
                "move the member to it with "
                f"{pointer('update_member', member=name, address=split_url(at_home[name])[0])}"
            )
        else:
            problems.append(
                f"{entry} is in the member list and not in the inventory: put it into the "
                "inventory, or take it out with "
                f"{pointer('remove_member', member=[format_id(m.member.id)])}"
            )
    expected = (m for m in known if m.name not in named)
    listed = {m.host for m in live}
    gone = (*find_gone(expected, live), *sorted(unlocated - named - listed))
    problems += map(lead_back, gone)
    if problems:
        raise Refused(
            "the cluster's members and the inventory's are not the same:\n  - "
            + "\n  - ".join(problems)
            + "\nor name them in this run, too"
        )
