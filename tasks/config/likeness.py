"""A joining member's settings after those of a member that runs: the cluster's own layout.

What is a member's own (its name, its addresses, its files, the members that it starts with) is
exchanged; every other byte stays as the model has it. No key and no certificate is among it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from tasks.config.editing import INITIAL_CLUSTER, name_members, readdress
from tasks.config.environment import read_environment
from tasks.config.launch import NotUnderstood
from tasks.config.rendering import MARK, InitialState
from tasks.config.settings import add_setting, edit_settings, read_settings
from tasks.model.certificates import Role
from tasks.model.fields import is_local
from tasks.model.layout import Layout
from tasks.model.member_settings import Place, Setting, Settings, SettingsFiles, TextFile
from tasks.model.members import DesiredMember
from tasks.model.urls import has_name, split_url

_ALL = ("0.0.0.0", "::")  # noqa: S104 - where all of a host's addresses are heard
INITIAL_STATE = "initial-cluster-state"
_FIRST_START = frozenset({INITIAL_CLUSTER, INITIAL_STATE})
_FORBIDDEN = {
    "force-new-cluster": "a member that starts with it makes a cluster of its own",
    "discovery": "it is only for a cluster that is new",
    "discovery-srv": "it cannot be had together with a list of the members",
    "discovery-endpoints": "it is only for a cluster that is new",
}


@dataclass(frozen=True, slots=True)
class Model:
    """A member: how it runs, where it is, and the files that say so."""

    layout: Layout
    member: DesiredMember
    files: SettingsFiles

    @property
    def is_preset(self) -> bool:
        """Whether these runbooks have written its unit."""
        return bool(self.files.units) and self.files.units[0].text.startswith(MARK)


def make_alike(
    model: Model,
    layout: Layout,
    member: DesiredMember,
    members: tuple[DesiredMember, ...],
    host_name: str,
) -> SettingsFiles:
    """Make what a member joins with; `members` are all there are then, itself among them.

    `host_name` is what its system is called. Raises NotUnderstood, with file and line, for what
    cannot be carried over.
    """
    found = read_settings(model.files)
    for name, why in _FORBIDDEN.items():
        if name in found and found.value(name) not in {"false", ""}:
            raise NotUnderstood(found[name].place, f"{name} is set, and {why}; take it out")
    files = _moved(model, layout, member, host_name)
    if read_settings(files).value("name") != member.member:
        files = edit_settings(files, {"name": member.member})
    former = (model.member.peer_url, model.member.client_url)
    files = readdress(files, member, former, exchanged_address(model.layout, layout))
    _refuse_strange_listeners(files, member, layout)
    if INITIAL_CLUSTER not in read_settings(files):
        named = ",".join(f"{each.member}={each.peer_url}" for each in members)
        files = add_setting(files, INITIAL_CLUSTER, named, beside="name")
    files = name_members(files, members)
    return add_setting(files, INITIAL_STATE, str(InitialState.EXISTING), beside=INITIAL_CLUSTER)


def _moved(model: Model, layout: Layout, member: DesiredMember, host_name: str) -> SettingsFiles:
    """Write the paths of the other member, in whichever line they stand, and its own address."""
    paths = {str(old): str(new) for old, new in _paths(model.layout, layout) if old and old != new}
    addresses = {
        _address(old): _address(new)
        for old, new in (
            (model.member.peer_url, member.peer_url),
            (model.member.client_url, member.client_url),
        )
    } | exchanged_address(model.layout, layout)

    def move(file: TextFile, *, is_environment: bool) -> TextFile:
        text = file.text
        if is_environment:
            text = _readdress_others(file, addresses)
        if paths:
            words = "|".join(map(re.escape, sorted(paths, key=len, reverse=True)))
            text = re.sub(rf"(?<![\w./@+-])({words})(?![\w/@+-])", lambda m: paths[m[1]], text)
        return replace(file, text=text)

    return SettingsFiles(
        model.files.unit,
        host_name,
        tuple(move(file, is_environment=False) for file in model.files.units),
        tuple(move(file, is_environment=True) for file in model.files.further),
    )


def exchanged_address(old: Layout, new: Layout) -> dict[str, str]:
    """Map a host's own address to another one's; by it a member of named URLs listens."""
    own = (old.address, new.address)
    return {own[0]: own[1]} if own[0] and own[1] and own[0] != own[1] else {}


def _refuse_strange_listeners(files: SettingsFiles, member: DesiredMember, new: Layout) -> None:
    """Raise NotUnderstood where a member of named URLs would listen where its model does."""
    found = read_settings(files)
    for name, url in (
        ("listen-peer-urls", member.peer_url),
        ("listen-client-urls", member.client_url),
    ):
        for each in found.split(name) if has_name(url) else ():
            address = split_url(each)[0]
            if address != new.address and address not in _ALL and not is_local(address):
                raise NotUnderstood(
                    found[name].place,
                    f"{name} has {each}, which is no address of {new.host}'s that is known; give "
                    "its host an `address` in the inventory that is one, as the model's is",
                )


def _paths(old: Layout, new: Layout) -> Iterable[tuple[object, object]]:
    for role in Role:
        before, after = old.pair(role), new.pair(role)
        yield before.certificate, after.certificate
        yield before.key, after.key
    yield old.data, new.data
    yield old.wal, new.wal


def _readdress_others(file: TextFile, addresses: Mapping[str, str]) -> str:
    """Exchange the address in the URLs of variables that are not etcd's: etcdctl's endpoints."""
    text = file.text
    for name, given in reversed(read_environment(file.path, file.text).assignments):
        if name.startswith("ETCD_"):
            continue
        for slot in given.slots:
            value = text[slot.start : slot.end]
            for old, new in addresses.items():
                value = value.replace(f"//{old}:", f"//{new}:")
            text = text[: slot.start] + value + text[slot.end :]
    return text


def _address(url: str) -> str:
    return urlsplit(url).netloc.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class Unlike:
    """A setting that the model has otherwise than another member, beyond what is its own."""

    model: Setting
    other: str
    value: str

    def __str__(self) -> str:
        have = self.value or "unset"
        return (
            f"{self.model.name} is {self.model.value} ({self.model.place}), on {self.other} {have}"
        )


def find_unlike(model: Model, others: Iterable[Model]) -> tuple[Unlike, ...]:
    """Make each other member after the model, and tell what it has otherwise in truth.

    Raises NotUnderstood where one cannot be made so.
    """
    found = []
    for other in others:
        alike = make_alike(
            model, other.layout, other.member, (other.member,), other.files.host_name
        )
        made, real = read_settings(alike), read_settings(other.files)
        original = read_settings(model.files)
        for name in sorted({*made, *real} - _FIRST_START):
            if made.value(name) != real.value(name):
                place = original[name].place if name in original else Place(other.files.unit)
                setting = Setting(name, original.value(name) or "unset", place)
                found.append(Unlike(setting, other.member.name, real.value(name)))
    return tuple(found)


def choose_model(members: tuple[Model, ...]) -> tuple[Model, tuple[Unlike, ...]] | None:
    """Choose the member that most others are like; None where most have our own layout.

    Raises NotUnderstood where none can be a model.
    """
    if 2 * sum(each.is_preset for each in members) >= len(members):
        return None
    best: tuple[Model, tuple[Unlike, ...]] | None = None
    first: NotUnderstood | None = None
    for model in members:
        if model.is_preset:
            continue
        try:
            others = (m for m in members if m is not model and not m.is_preset)
            unlike = find_unlike(model, others)
        except NotUnderstood as error:
            first = first or error
            continue
        if best is None or len(unlike) < len(best[1]):
            best = model, unlike
    if best is None and first is not None:
        raise first
    return best


def refuse_leftovers(
    model: Model, made: Settings, unlike: tuple[Unlike, ...], *, is_alone: bool
) -> None:
    """Raise NotUnderstood for a setting that is the model's own, and of which no rule is known.

    What other members have, too, is nobody's own. `is_alone`: there is none to compare with, so
    that only an address tells.
    """
    words = {_address(model.member.peer_url), _address(model.member.client_url)}
    differing = {each.model.name for each in unlike}
    if not is_alone:
        words |= {model.layout.host, model.layout.member, model.files.host_name}
        words |= set(filter(None, (model.layout.address,)))
    mine = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(map(re.escape, words))})(?![A-Za-z0-9])")
    for name, setting in made.items():
        if name not in _FIRST_START and (is_alone or name in differing):
            found = mine.search(setting.value)
            if found:
                raise NotUnderstood(
                    setting.place,
                    f"{name} is {setting.value!r}, which names {found[1]} of {model.layout.host}, "
                    "and no rule tells what a new member has there; let it be the same on all",
                )
