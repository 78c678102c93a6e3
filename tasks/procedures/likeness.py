"""After which member a joining host is made, and what it lacks for that; changes nothing.

Composes steps; owns none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from tasks.config import likeness
from tasks.config.launch import NotUnderstood
from tasks.config.likeness import Model, Unlike
from tasks.config.settings import read_settings
from tasks.config.units import read_service
from tasks.engine.run import Run, both
from tasks.model.errors import Refused
from tasks.model.layout import Layout
from tasks.model.member_settings import Settings, SettingsFiles, TextFile
from tasks.model.members import DesiredMember, SeenMember
from tasks.model.observation import Directory, FileState, HostObservation, Likeness, Places
from tasks.report.inventories import file_diff
from tasks.steps import installation

_COMMANDS = ("ExecStartPre", "ExecStartPost", "ExecCondition", "ExecReload", "ExecStop")
_PACKAGED = ("/usr/lib/systemd/", "/lib/systemd/")
_OWN = frozenset({"data-dir", "wal-dir", "config-file", "log-outputs"})
"""Settings with paths that the run itself sees to, or etcd."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """The member that joining ones are made like, and in what others differ from it.

    `trusted` is its trusted file.
    """

    model: Model
    unlike: tuple[Unlike, ...]
    is_alone: bool
    trusted: FileState | None

    @property
    def remarks(self) -> tuple[str, ...]:
        """Say what a joining member takes of the model that other members have otherwise."""
        return tuple(f"the new member takes what the model has: {each}" for each in self.unlike)


def find_pattern(
    run: Run,
    live: tuple[SeenMember, ...],
    observed: dict[str, HostObservation],
    joining: Iterable[str],
) -> Pattern | None:
    """Choose after whom joining members are made; None where that is our own layout.

    Raises Refused where no member can be a model.
    """
    members = tuple(
        Model(run.inventory.layout(m.host), m.as_desired, settings)
        for m in live
        if m.is_healthy
        and m.host not in joining
        and m.host in observed
        and (settings := observed[m.host].settings)
        and settings.units
    )
    if not members:
        raise Refused(
            "no healthy member's host can be read, so that how a member of this cluster runs is "
            "not known; bring one back within reach of SSH first"
        )
    try:
        chosen = likeness.choose_model(members)
    except NotUnderstood as error:
        raise Refused(f"no member can be the model of a joining one: {error}") from error
    if chosen is None:
        return None
    model, unlike = chosen
    trusted = observed[model.layout.host].authority
    return Pattern(model, unlike, is_alone=len(members) == 1, trusted=trusted)


def make_files(
    run: Run,
    pattern: Pattern,
    member: DesiredMember,
    members: tuple[DesiredMember, ...],
    seen: HostObservation,
) -> SettingsFiles:
    """Make what says how a joining member starts; raises Refused for what cannot be carried."""
    model, layout = pattern.model, run.inventory.layout(member.name)
    try:
        files = likeness.make_alike(model, layout, member, members, seen.hostname)
        made = read_settings(files)
        likeness.refuse_leftovers(model, made, pattern.unlike, is_alone=pattern.is_alone)
    except NotUnderstood as error:
        raise Refused(
            f"{member.name} cannot be made like {model.layout.host}: {error}", host=member.name
        ) from error
    unit = files.units[0]
    there = seen.settings.text(unit.path) if seen.settings else None
    if unit.path.startswith(_PACKAGED) and there != unit.text:
        raise Refused(
            f"{unit.path} of {model.layout.host} belongs to a package, and {member.name} has "
            f"{'another one' if there else 'none'}; install the same package there",
            host=member.name,
        )
    return files


def to_write(files: SettingsFiles) -> tuple[TextFile, ...]:
    """List the files that the run writes; what is a package's is there as it is."""
    return tuple(file for file in files.files if not file.path.startswith(_PACKAGED))


async def find_likeness(
    run: Run,
    pattern: Pattern,
    member: DesiredMember,
    members: tuple[DesiredMember, ...],
    seen: HostObservation,
) -> Likeness:
    """Say how a host is made like the model's, and what it lacks; raises Refused."""
    files = make_files(run, pattern, member, members, seen)
    model, layout = pattern.model, run.inventory.layout(member.name)
    named = (model.layout.host, member.name)
    texts = to_write(files)
    moved = _directories(model.layout, layout, files)
    needed = _needed(files, read_settings(files), layout)
    accounts = _accounts(files, run.inventory.accounts(member.name), pattern.trusted)
    groups = _groups(files, pattern.trusted)
    there, here = await both(
        installation.see_places(run, run.hosts[named[0]], tuple(moved), ()),
        installation.see_places(
            run, run.hosts[named[1]], (*moved.values(), *needed), tuple(sorted(accounts | groups))
        ),
    )
    accounts |= {each.owner for each in there.found.values()}
    groups |= {each.group for each in there.found.values()}
    if absent := [path for path in needed if path not in here.found]:
        raise Refused(
            f"there is no {absent[0]}, which {needed[absent[0]]} as on {named[0]}; put it there",
            host=member.name,
        )
    return Likeness(
        named[0],
        "\n".join(
            file_diff(model.files.text(file.path) or "", file.text, file.path, *named)
            for file in texts
        ),
        texts,
        tuple(_lacking(moved, there, here, layout, seen)),
        tuple(sorted((accounts - here.accounts - here.groups | groups - here.groups) - {"root"})),
        pattern.trusted,
    )


def _directories(old: Layout, new: Layout, files: SettingsFiles) -> dict[str, str]:
    """Say which directories a member needs: the model's, and the new one's in its place."""
    pairs = {
        str(before.certificate.parent): str(after.certificate.parent)
        for before, after in zip(old.pairs, new.pairs, strict=False)
    } | {
        str(before.key.parent): str(after.key.parent)
        for before, after in zip(old.pairs, new.pairs, strict=False)
    }
    wal = {str(old.wal.parent): str(new.wal.parent)} if old.wal and new.wal else {}
    trusted = {str(path.parent): str(path.parent) for path in new.trusted_files}
    named = {
        word.lstrip("-+"): word.lstrip("-+")
        for _, value in read_service(files, "WorkingDirectory", "ReadWritePaths")
        for word in value.split()
        if word.startswith("/")
    }
    own = {str(old.state): str(new.state), str(old.data): str(new.data)}
    return dict(sorted((pairs | trusted | named | wal | own).items(), key=lambda it: len(it[1])))


def _lacking(
    moved: dict[str, str], there: Places, here: Places, layout: Layout, seen: HostObservation
) -> Iterable[Directory]:
    """List what is to be made; of what is there only the member's own directories are changed."""
    own = {str(layout.data), str(layout.state)}
    own |= {room.path for room in seen.rooms if room.is_mount and room.is_empty}
    for old, new in moved.items():
        if old not in there.found:
            continue
        wanted = replace(there.found[old], path=new)
        if new not in here.found or (new in own and here.found[new] != wanted):
            yield wanted


def _needed(files: SettingsFiles, settings: Settings, layout: Layout) -> dict[str, str]:
    """List the files that must be there, which the run does not bring, and what needs them."""
    found = {}
    for key, value in read_service(files, *_COMMANDS):
        program = value.split()[0]
        if not program.startswith("-"):
            found[program.lstrip("@:+!|")] = f"the unit's {key}= runs"
    own = {str(path) for path in layout.credentials}
    for name, setting in settings.items():
        for path in re.findall(r"(?:^|[=,])(/[^,\s]+)", setting.value):
            if name not in _OWN and path not in own:
                found[path] = f"--{name} ({setting.place}) names"
    return {path: why for path, why in found.items() if PurePosixPath(path).is_absolute()}


def _accounts(
    files: SettingsFiles, certificates: Iterable[str], trusted: FileState | None
) -> set[str]:
    owners = {file.owner for file in (*files.files, *((trusted,) if trusted else ()))}
    units = {value for _, value in read_service(files, "User")}
    return {*owners, *units, *certificates} - {"root"}


def _groups(files: SettingsFiles, trusted: FileState | None) -> set[str]:
    """List the groups that must be there: an account of that name may have another one."""
    units = {value for _, value in read_service(files, "Group")}
    owned = {file.group for file in (*files.files, *((trusted,) if trusted else ()))}
    return owned | units - {"root"}
