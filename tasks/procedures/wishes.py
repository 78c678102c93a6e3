"""What an operator's words for members and hosts mean, by the inventory alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pydantic import ValidationError

from tasks.model.errors import Refused
from tasks.model.fields import is_ip_address
from tasks.model.inventory import Inventory
from tasks.model.machines import Host, SshOverride
from tasks.plans.member_names import name_addresses, name_member, place_pairs

KEPT = ("member", "pairs", "data_directory", "wal_directory", "certificates")
"""What of a host stays when its address does not."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator wants of the members, as it was typed.

    `leaving`: names, ids or addresses. `joining`: NAME=ADDRESS, or the name of a host that the
    inventory has; in pairs with `leaving`, a joiner takes the other's place and SSH options.
    `returns`: where nobody is named to join, those who leave join again. `moving`: NAME=ADDRESS of
    a member that gets another address.
    """

    leaving: tuple[str, ...] = ()
    joining: tuple[str, ...] = ()
    returns: bool = False
    moving: str | None = None
    planned: bool = False
    writes_inventory: bool = False
    skip: tuple[str, ...] = ()


def wished_inventory(inventory: Inventory, wish: Wish) -> Inventory:
    """Put the hosts that are to join into the inventory; raises Refused."""
    hosts = {host.name: host for host in inventory.hosts}
    for host, _ in joining_hosts(inventory, wish).values():
        hosts[host.name] = host
    return inventory.model_copy(update={"hosts": tuple(hosts.values())})


def completed(wish: Wish, inventory: Inventory) -> Wish:
    """Let the hosts that leave join again, where that is meant; raises Refused for a stranger."""
    if wish.joining or not wish.returns:
        return wish
    found = []
    for word in wish.leaving:
        host = inventory.called(word)
        if host is None:
            known = ", ".join(h.name for h in inventory.hosts)
            raise Refused(
                f"{word}: no such member; the inventory has {known}. For a member that only the "
                "cluster knows, by its id, name the host that takes its place (replacement, "
                "NAME=ADDRESS)"
            )
        found.append(host.name)
    return replace(wish, joining=tuple(found))


def joining_hosts(inventory: Inventory, wish: Wish) -> dict[str, tuple[Host, str | None]]:
    """Read who is to join, or to move: the host, and the inventory's host whose place it takes."""
    known = {host.name: host for host in inventory.hosts}
    found: dict[str, tuple[Host, str | None]] = {}
    for index, word in enumerate(wish.joining):
        left = wish.leaving[index] if index < len(wish.leaving) else None
        place = inventory.called(left) if left else None
        host = _read_host(word, known | {n: h for n, (h, _) in found.items()}, place)
        gone = {h.name for w in wish.leaving if (h := inventory.called(w))}
        _refuse_taken(host, [h for h in inventory.hosts if h.name not in gone])
        found[host.name] = (host, place.name if place else None)
    if wish.moving:
        word, _, address = wish.moving.partition("=")
        place = inventory.called(word)
        if place is None:
            raise Refused(f"{word}: the inventory has no such host; it has {', '.join(known)}")
        name, names = place.name, _names(place)
        if names and not place.fixed_address:
            raise Refused(
                f"{name}: its URLs have a name ({', '.join(filter(None, names.values()))}), which "
                "stays when its host moves, and the inventory does not say at which address it "
                f"listens now; write that as the `address` of {name}, then run this again"
            )
        found[name] = (_read_host(f"{name}={address}", known, place), name)
    return found


def _refuse_taken(host: Host, staying: Iterable[Host]) -> None:
    """Raise Refused when a host that joins has the name or address of one that stays."""
    for other in staying:
        if host is other or (host.name, host.address) == (other.name, other.address):
            continue
        if host.name == other.name or host.address == other.address:
            raise Refused(
                f"{host.name}={host.address}: the inventory has {other.name} at {other.address} "
                "already, and it stays; a host that joins needs a name and an address of its own"
            )


def _read_host(word: str, known: dict[str, Host], place: Host | None) -> Host:
    name, _, address = word.partition("=")
    same = known.get(name)
    if not address or (same and same.address == address):
        if same is None:
            raise Refused(
                f"{name}: the inventory has no such host; say NAME=ADDRESS "
                f"({name}=192.0.2.9), or put it into the inventory"
            )
        return same
    like = place or same
    try:
        kept = {field: getattr(same, field) for field in KEPT if same}
        kept |= {field: text for field, text in _names(same).items() if text}
        ssh = like.ssh if like else SshOverride()
        if same is None:
            member = name_member(known.values(), name, address)
            pairs = place_pairs(known.values(), name, member or name, address)
            names = name_addresses(known.values(), name, member or name)
            kept = {"member": member, "pairs": pairs, **names}
        return Host(name=name, address=address, ssh=ssh, **kept)
    except ValidationError as error:
        said = "; ".join(str(e["msg"]).removeprefix("Value error, ") for e in error.errors())
        raise Refused(f"{word}: {said}; say NAME=ADDRESS") from error


def _names(host: Host | None) -> dict[str, str | None]:
    """Get the names that a host's URLs have; they stay, whatever its address is."""
    own = {"peer_address": host.peer_address, "client_address": host.client_address} if host else {}
    return {field: text for field, text in own.items() if text and not is_ip_address(text)}


def leaving_hosts(inventory: Inventory, wish: Wish) -> frozenset[str]:
    """Name the hosts that leave and do not join: the run needs their answer late, if ever."""
    leaving = {h.name for h in inventory.hosts if h.names & set(wish.leaving)}
    return frozenset(leaving - set(joining_hosts(inventory, wish)))
