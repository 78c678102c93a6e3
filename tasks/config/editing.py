"""A member's own addresses, and the members that it names, changed in its settings.

Each is one edit of `settings`: what else the files say stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from tasks.config.launch import NotUnderstood
from tasks.config.settings import add_setting, edit_settings, read_settings
from tasks.model.member_settings import (
    CLIENT_ADDRESSES,
    PEER_ADDRESSES,
    Place,
    Settings,
    SettingsFiles,
)
from tasks.model.members import DesiredMember

INITIAL_CLUSTER = "initial-cluster"
INITIAL_STATE = "initial-cluster-state"
_AUTHORITY = re.compile(r"(?P<scheme>[a-z]+://)(?P<host>\[[^\]]*\]|[^:/\[\]]*)(?P<rest>.*)")


def name_members(files: SettingsFiles, members: tuple[DesiredMember, ...]) -> SettingsFiles:
    """Name the members in a member's settings, which it reads at its first start only.

    Settings that name the same, in whatever order, stay. Raises NotUnderstood where they cannot
    be changed.
    """
    wanted = tuple(f"{member.member}={member.peer_url}" for member in members)
    found = read_settings(files)
    if not found.faults and set(found.split(INITIAL_CLUSTER)) == set(wanted):
        return files
    return edit_settings(files, {INITIAL_CLUSTER: ",".join(wanted)})


def name_itself_alone(files: SettingsFiles) -> SettingsFiles:
    """Let a member without its data find nobody to begin with, so that it ends at once.

    It names itself alone, and a cluster that exists. With a list of all members etcd asks those,
    comes up with an empty log under the old id, and votes: as the second of three it made a quorum
    with one that others were ahead of (seen on 3.7.3, without a leader). With a state of new it
    begins an empty cluster. Raises NotUnderstood where that cannot be written.
    """
    found = read_settings(files)
    own = [
        each
        for each in found.split(INITIAL_CLUSTER)
        if each.partition("=")[0] == found.value("name")
    ]
    if found.faults or len(own) != 1:
        notice = found.faults[0] if found.faults else None
        place = notice.place if notice else Place(files.files[0].path)
        said = notice.sentence if notice else "its --initial-cluster does not name it once"
        raise NotUnderstood(place, said)
    return _with_initial(files, own[0])


def name_existing(files: SettingsFiles, members: tuple[DesiredMember, ...]) -> SettingsFiles:
    """Let a member join a cluster that exists of these members; raises NotUnderstood."""
    return _with_initial(files, ",".join(f"{m.member}={m.peer_url}" for m in members))


def _with_initial(files: SettingsFiles, cluster: str) -> SettingsFiles:
    files = edit_settings(files, {INITIAL_CLUSTER: cluster})
    return add_setting(files, INITIAL_STATE, "existing", beside=INITIAL_CLUSTER)


def name_at_its_address(files: SettingsFiles, member: DesiredMember) -> SettingsFiles:
    """Let a member's own entry of the initial cluster have its peer URL; the others' stay.

    Etcd reads it where there are no data, and ends for one that is not what it tells its peers.
    Raises NotUnderstood where it cannot be written.
    """
    entries = read_settings(files).split(INITIAL_CLUSTER)
    own = f"{member.member}={member.peer_url}"
    wanted = [own if entry.partition("=")[0] == member.member else entry for entry in entries]
    if wanted == list(entries):
        return files
    return edit_settings(files, {INITIAL_CLUSTER: ",".join(dict.fromkeys(wanted))})


def readdress(
    files: SettingsFiles,
    member: DesiredMember,
    former: Iterable[str] = (),
    listens: Mapping[str, str] | None = None,
) -> SettingsFiles:
    """Give a member its new address in each URL that has the old one; the others stay.

    The old ones are those that it advertises, and `former` URLs. Where these have names, `listens`
    maps the old address that it listens on to the new one. Raises NotUnderstood where they cannot
    be changed, or the member would not tell others the new ones.
    """
    found = read_settings(files)
    if found.faults:
        raise NotUnderstood(found.faults[0].place, found.faults[0].sentence)
    urls = tuple(former)
    own = dict(listens or {})
    peer = own | _moves(found, PEER_ADDRESSES[0], member.peer_url, urls)
    client = own | _moves(found, CLIENT_ADDRESSES[0], member.client_url, urls)
    wanted = {
        name: ",".join(_move(url, moves) for url in found.split(name))
        for names, moves in (
            (PEER_ADDRESSES, {**client, **peer}),
            (CLIENT_ADDRESSES, {**peer, **client}),
        )
        for name in names
        if any(_host(url) in moves for url in found.split(name))
    }
    edited = edit_settings(files, wanted)
    after = read_settings(edited)
    for name, url in (
        (PEER_ADDRESSES[0], member.peer_url),
        (CLIENT_ADDRESSES[0], member.client_url),
    ):
        if url not in after.split(name):
            place = found[name].place if name in found else Place(files.unit)
            raise NotUnderstood(place, f"{name} cannot be made {url} here; set it by hand")
    return edited


def _moves(found: Settings, name: str, url: str, former: tuple[str, ...]) -> dict[str, str]:
    """Map the old hosts to the new one, as they stand in URLs."""
    new = _host(url)
    old = [_host(each) for each in (*found.split(name), *former)]
    return {host: new for host in old if host not in {"", new}}


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _move(url: str, moves: dict[str, str]) -> str:
    parts = _AUTHORITY.fullmatch(url)
    new = moves.get(_host(url))
    if parts is None or new is None:
        return url
    host = f"[{new}]" if ":" in new else new
    return f"{parts['scheme']}{host}{parts['rest']}"
