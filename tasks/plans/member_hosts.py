"""Who leaves and who joins, on which host, with which data; and what is to be known of that.

`reconfiguration` has the order of the member list itself, `member_changes` the whole plan.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.machines import Host
from tasks.model.members import DesiredMember, SeenMember, format_id, label_members
from tasks.model.observation import DataDirectory, HostObservation, ServiceState
from tasks.model.plan import Finding, Severity
from tasks.model.pointers import pointer
from tasks.model.urls import member_url, split_url
from tasks.plans.reconfiguration import Joiner

PERSISTS_PROMOTION = (3, 5, 24)


@dataclass(frozen=True, slots=True)
class Leaver:
    """Who shall leave: the id, None when it is no member any more, and its host in the inventory.

    `word` is what the operator called it; `client_url` is known where it is, or was, a member.
    `peer_urls` are where it is, or would be by the inventory. `is_settled`: it is healthy in its
    own place, by an earlier run.
    """

    word: str
    member_id: int | None
    host: str | None
    client_url: str | None = None
    peer_urls: frozenset[str] = frozenset()
    is_settled: bool = False


def find_leavers(
    words: Iterable[str],
    inventory: Inventory,
    live: tuple[SeenMember, ...],
    joining: tuple[DesiredMember, ...],
    located: Iterable[DesiredMember] = (),
) -> tuple[Leaver, ...]:
    """Find the members that are called by name, id, host name or address; raises Refused.

    `located` are the inventory's members with the addresses that were found.

    An entry at the peer URL of one that joins is the joining itself, begun by an earlier run, as
    long as it has no vote yet, or is not where the inventory has the one that leaves.
    """
    urls = {member.peer_url for member in joining}
    homes = {member.name: member.peer_url for member in located}
    found = []
    for word in words:
        host = inventory.called(word)
        own = host.member_name if host else word
        addresses = {word, *_addresses(host)} if host else {word}
        entry = next(
            (
                m
                for m in live
                if m.member.name == own
                or format_id(m.member.id) == word.removeprefix("0x").lower()
                or addresses & {split_url(url)[0] for url in m.member.peer_urls}
            ),
            None,
        )
        if entry is None and host is None and not any(m.peer_url in urls for m in live):
            raise Refused(
                f"{word}: no member, id or host is called so; the members are "
                + label_members(live)
            )
        if entry and entry.peer_url in urls:
            pending = entry.member.is_learner or not entry.member.is_started
            if pending or (host and entry.peer_url not in _peer_urls(inventory, host, homes)):
                entry = None
        name = host.name if host else entry.host if entry else None
        found.append(
            Leaver(
                word,
                entry.member.id if entry else None,
                name,
                (entry.client_url or None) if entry else None,
                frozenset(entry.member.peer_urls if entry else _peer_urls(inventory, host, homes)),
            )
        )
    return tuple(found)


def _peer_urls(inventory: Inventory, host: Host | None, homes: dict[str, str]) -> tuple[str, ...]:
    if host is None:
        return ()
    port = host.peer_port or inventory.etcd.peer_port
    urls = [member_url(address, port) for address in _addresses(host)]
    return (*urls, homes[host.name]) if host.name in homes else tuple(urls)


def _addresses(host: Host) -> set[str]:
    return {a for a in (host.address, host.peer_address, host.client_address) if a}


def settle_in_place(
    leavers: tuple[Leaver, ...],
    live: tuple[SeenMember, ...],
    joining: tuple[DesiredMember, ...],
    *,
    planned: bool,
) -> tuple[Leaver, ...]:
    """Mark those that are healthy in their own place as replaced already; nothing else is down.

    A healthy member cannot be replaced by its own host, so that there is nothing to do for it:
    an earlier run has ended, or died in its last look.
    """
    urls = {member.peer_url for member in joining}
    ids = {leaver.member_id for leaver in leavers}
    is_ill = any(not (m.is_healthy or m.member.is_learner or m.member.id in ids) for m in live)
    healthy = {
        m.member.id for m in live if m.is_healthy and not m.member.is_learner and m.peer_url in urls
    }
    if planned or is_ill:
        return leavers
    return tuple(
        replace(leaver, member_id=None, is_settled=True) if leaver.member_id in healthy else leaver
        for leaver in leavers
    )


def judge_joiner(
    inventory: Inventory,
    member: DesiredMember,
    seen: HostObservation,
    live: tuple[SeenMember, ...],
    *,
    is_leaving_here: bool,
    is_configured: bool,
) -> tuple[Joiner, bool]:
    """Say whether a host can join with the data it has, and whether that must be set aside.

    `is_leaving_here`: the member that leaves was on this very host, so that old data is its own
    and is retired first. Raises Refused for data of which nothing is known.
    """
    entry = next((m for m in live if member.peer_url in m.member.peer_urls), None)
    has_data = seen.data is DataDirectory.INITIALISED
    has_files = has_data or seen.data is DataDirectory.LEFTOVERS
    runs = seen.service is not None and seen.service.state in (
        ServiceState.ACTIVE,
        ServiceState.ACTIVATING,
    )
    pending = entry is not None and (entry.member.is_learner or not entry.member.is_started)
    if entry is not None and not pending:
        return Joiner(member, has_data and not is_leaving_here), False
    if pending and entry is not None:
        if entry.is_healthy or (has_data and runs):
            return Joiner(member, has_data=True), False
        stale = entry.member.is_learner and (entry.member.is_started or has_data)
        keeps = has_data and not entry.member.is_learner
        return Joiner(member, keeps, is_stale=stale), has_files and not keeps
    if has_files and not is_leaving_here and (has_data or not is_configured):
        raise Refused(
            f"{member.name}: {inventory.layout(member.name).data} holds data, and this host is no "
            "member; "
            "move it away first (it is left alone)"
        )
    return Joiner(member), has_files and not is_leaving_here


def version_findings(
    inventory: Inventory, live: tuple[SeenMember, ...], joining: tuple[str, ...]
) -> tuple[Finding, ...]:
    """Tell a joining member's version that the others do not have, and one that may forget.

    Source: etcd's CHANGELOG-3.5, 3.5.20 and 3.5.24: a learner's promotion was not always persisted.
    """
    if not joining:
        return ()
    wanted = inventory.etcd.version
    found: tuple[Finding, ...] = ()
    if (3, 5, 0) <= inventory.etcd.version_tuple < PERSISTS_PROMOTION:
        found = (
            Finding(
                Severity.WARNING,
                ", ".join(joining),
                f"etcd {wanted} may forget at a restart that a learner was promoted; 3.5.24 and "
                "later do not: upgrade the cluster soon",
            ),
        )
    others = sorted({m.version for m in live if m.version and m.version != wanted})
    if not others:
        return found
    minor = wanted.rpartition(".")[0]
    severe = any(other.rpartition(".")[0] != minor for other in others)
    return (
        *found,
        Finding(
            Severity.REFUSAL if severe else Severity.WARNING,
            ", ".join(joining),
            f"would run etcd {wanted} of the inventory beside members that run "
            f"{', '.join(others)}; replacing members is not upgrading them",
        ),
    )


def warn_of_stranded(inventory: Inventory, gone: frozenset[str]) -> tuple[str, ...]:
    """Say of what is on the hosts that leave that it stays in the inventory."""
    others = (*inventory.clients, *inventory.dependents)
    return tuple(
        f"{other.name} is on {other.host}, which leaves: it stays in the inventory, at that "
        "machine's address; take it out where the machine is gone"
        for other in others
        if other.host in gone
    )


def warn_of_hosts(
    leavers: tuple[Leaver, ...],
    observed: dict[str, HostObservation],
    others: set[str],
    inventory: Inventory,
    awaited: frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """Say of each old member whose host is not stopped why that is; who was asked, and who not."""
    returning = "When it comes back, its etcd ends by itself on hearing that it was removed"
    found = []
    for leaver in leavers:
        if leaver.is_settled:
            found.append(
                f"{leaver.host} is a healthy member in its own place: taken as replaced already. "
                "A healthy member is replaced by another host, with planned"
            )
        elif leaver.host is None and leaver.member_id is None:
            found.append(
                f"{leaver.word} is neither a member nor in the inventory: taken as replaced "
                "already; nothing was asked of its host"
            )
        elif leaver.host is None:
            found.append(
                f"{leaver.word} has no host in the inventory, so that none was asked: its etcd is "
                f"not stopped. {returning}; disable it there"
            )
        elif leaver.host in others:
            found.append(
                f"the machine that was {leaver.host} before is not in the inventory and was not "
                f"asked: its etcd is not stopped. {returning}; disable it there"
            )
        elif leaver.host not in observed:
            found.append(
                f"{leaver.host} "
                + (
                    "has not answered over SSH yet: unless it does, its etcd is not stopped. "
                    if leaver.host in awaited
                    else "cannot be reached over SSH: its etcd is not stopped. "
                )
                + f"{returning}; then {pointer('remove_member', member=[leaver.host])} disables it "
                "there, or, once the inventory has no such host, "
                f"`{inventory.layout(leaver.host).ending}` on it"
            )
    return tuple(found)
