"""Shared files are never overwritten in silence, and nobody is locked out by what it holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from tasks.model.certificates import Generation
from tasks.model.errors import Refused
from tasks.model.fields import HOST_PLACE
from tasks.model.inventory import Inventory
from tasks.model.layout import Layout, generation_files
from tasks.model.pods import APISERVER
from tasks.model.pointers import parameter
from tasks.model.sharing import Sharing

SHOWN = 3
"""Certificates that one line names; kubespray's first host has those of all nodes."""


def find_users(
    inventory: Inventory, seen: Iterable[Sharing], *, pairs_only: bool = False
) -> tuple[str, ...]:
    """Name every process outside etcd that uses a member's file, and no client of the inventory.

    Files with further names (hard links) are named too: what those names show stays as it is.
    `pairs_only` leaves the trusted files out.
    """
    found: list[str] = []
    for host in seen:
        declared, layout = _declared(inventory, host.host), inventory.layout(host.host)
        if pairs_only:
            declared |= set(map(str, layout.trusted_files))
        users: dict[str, list[str]] = {}
        for user in host.users:
            is_own = layout.has_apiserver and user.process == APISERVER
            if user.path not in declared and not is_own:
                users.setdefault(user.path, []).append(str(user))
        found += [
            f"{host.host}: {path} is also used by {', '.join(dict.fromkeys(names))}"
            for path, names in users.items()
        ]
        found += [
            f"{host.host}: {path} has another name on that host (a hard link), which would keep "
            "what it is now"
            for path in host.linked
            if path not in declared
        ]
    return tuple(found)


def find_strays(
    inventory: Inventory, seen: Iterable[Sharing], authority: str, *, used: bool
) -> tuple[str, ...]:
    """Name the certificates of an authority (fingerprint) that no client of the inventory covers.

    `used`: those that a running process names; else those that lie beside the members' only.
    """
    found: list[str] = []
    for host in seen:
        declared = _declared(inventory, host.host)
        in_use = {stray.path for stray in host.strays if stray.user is not None}
        for stray in host.strays:
            if stray.issuer != authority or stray.path in declared:
                continue
            if used and stray.user is not None:
                found.append(f"{host.host}: {stray.path}, which {stray.user} uses")
            elif not used and stray.path not in in_use:
                found.append(f"{host.host}: {stray.path}")
    return tuple(found)


def find_lacking(seen: Sharing, model: Layout, new: Iterable[str]) -> tuple[str, ...]:
    """Tell, for hosts that are made like a model, which certificates they will not have.

    Those are the ones beside its member's that are called after its host: what else runs there has
    them for a client's, as kube-apiserver has kubespray's node-HOST.pem.
    """
    own = re.compile(rf"(?<![A-Za-z0-9]){re.escape(model.host)}(?![A-Za-z0-9])")
    found = sorted({s.path for s in seen.strays if own.search(PurePosixPath(s.path).name)})
    return tuple(
        f"{name} gets no {path}: it would be a client's, as {path_there} is on {model.host}; if it "
        f"is needed, name it under `clients` of the inventory (host: {name}, with certificate, key "
        f"and trusted), and rotate_certificates makes it"
        for name in sorted(new)
        for path_there in found
        for path in [own.sub(name, path_there)]
    )


def find_keys(inventory: Inventory, seen: Iterable[Sharing], going: str) -> tuple[str, ...]:
    """Name the files on hosts that hold the key of an authority (fingerprint) that is to go."""
    return tuple(
        f"{host.host}: {path} is the old authority's key; what signs with it there would go on "
        "doing so, and no member would accept it"
        for host in seen
        for path, authority in host.keys
        if authority == going and path not in _own_keys(inventory, host.host)
    )


def _own_keys(inventory: Inventory, host: str) -> frozenset[str]:
    """Name the files in which an authority that lies on its hosts has its key; they change."""
    pair = inventory.layout(host).authority
    if pair is None or not inventory.authority.on_hosts:
        return frozenset()
    return frozenset(str(generation_files(pair, each)[1]) for each in Generation)


def adoption_rows(seen: Iterable[Sharing]) -> tuple[tuple[str, str], ...]:
    """Tell, by host, what a rotation of the authority will have to ask about."""
    rows: list[tuple[str, str]] = []
    for host in seen:
        users: dict[str, set[str]] = {}
        for user in host.users:
            users.setdefault(user.path, set()).add(user.process)
        rows += [
            (host.host, f"{path} is also used by {', '.join(sorted(names))}")
            for path, names in users.items()
        ]
        rows += [(host.host, f"{path} has another name (a hard link)") for path in host.linked]
        strays = sorted({s.path.replace(host.host, HOST_PLACE) for s in host.strays})
        shown = ", ".join([*strays[:SHOWN], *(["..."] if len(strays) > SHOWN else [])])
        if strays:
            rows.append(
                (
                    host.host,
                    f"{len(strays)} certificate(s) of the authority are none of the members' "
                    f"({shown}): those that are in use belong under `clients`, or a rotation of "
                    "the authority leaves them behind",
                )
            )
    return tuple(rows)


def refuse_users(
    inventory: Inventory,
    seen: Iterable[Sharing],
    strangers: Iterable[str] = (),
    *,
    accepted: bool,
    accept: str,
) -> tuple[str, ...]:
    """Raise Refused when others use what would be overwritten; else returns the list to show.

    `strangers` tells of further authorities in it. `accept` is what the operator sets to have them
    overwritten.
    """
    users = (*find_users(inventory, seen), *strangers)
    if users and not accepted:
        raise Refused(
            "files that would be overwritten are not etcd's alone; nothing was changed:\n  - "
            + "\n  - ".join(users)
            + "\ngive etcd files of its own, or name these users under `clients` with what makes "
            "them read the files again (after_change); to change the files all the same, with "
            f"this list seen, set {accept}"
        )
    return users


def refuse_strays(inventory: Inventory, seen: Iterable[Sharing], going: str) -> None:
    """Raise Refused when a running process would be locked out once an authority is retired."""
    if strays := find_strays(inventory, seen, going, used=True):
        raise Refused(
            f"authority {going[:12]} is not retired while its certificates are in use; nothing "
            "was changed:\n  - "
            + "\n  - ".join(strays)
            + "\nname them under `clients` of the inventory, so that they are renewed too; or stop "
            f"before the end ({parameter(until='certificates')}) and renew them by hand"
        )


def _declared(inventory: Inventory, host: str) -> frozenset[str]:
    return frozenset(
        str(path)
        for client in inventory.clients
        if client.host == host
        for path in (client.certificate, client.key, client.trusted)
        if path is not None
    )
