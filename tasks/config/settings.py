"""Etcd's settings, wherever they are written: read by its own flag names, and edited.

The one way to both. An edit changes one value and leaves every other byte; it is read back, and
what the files say besides must be what they said before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.config.config_file import read_config_file
from tasks.config.flags import CONFIG_FILE, find_shadowed, read_flags, read_variables
from tasks.config.launch import Given, Launch, NotUnderstood, Slot
from tasks.config.manifest import read_manifest
from tasks.config.units import read_unit
from tasks.model.member_settings import (
    Notice,
    Place,
    Setting,
    Settings,
    SettingsFiles,
    TextFile,
    variable_name,
)

_ETCD = re.compile(r"etcd([-_.]?v?\d[\w.-]*)?")
_ENTRY = re.compile(r"^[ \t]*-[ \t]+$", re.MULTILINE)
"""What stands before a word of a manifest's command."""
_CONTAINERS = frozenset({"docker", "podman", "nerdctl", "ctr", "runc", "rkt", "systemd-nspawn"})


@dataclass(frozen=True, slots=True)
class Resolved:
    """What files say, and each value with where it is written."""

    settings: Settings
    given: Mapping[str, Given]


def read_settings(files: SettingsFiles) -> Settings:
    """Read what a member would start with; what could not be understood is in the faults."""
    return resolve(files).settings


def read_process(
    arguments: Sequence[str], variables: Mapping[str, str], files: SettingsFiles, process: str
) -> Settings:
    """Read what an etcd was started with; `files` has its `--config-file`, where it has one."""
    place = Place(process)
    launch = Launch(
        (Given("etcd", place), *(Given(word, place) for word in arguments[1:])),
        {name: Given(value, place) for name, value in variables.items()},
    )
    return _take(launch, files).settings


def edit_settings(files: SettingsFiles, wanted: Mapping[str, str]) -> SettingsFiles:
    """Give settings that are set another value, each in its own place.

    Raises NotUnderstood, with file and line, where that cannot be done without changing more.
    """
    for name, value in wanted.items():
        files = _edit(files, name, value)
    return files


def add_setting(files: SettingsFiles, name: str, value: str, *, beside: str) -> SettingsFiles:
    """Give a setting a value; one that is not set yet comes right after another one.

    Raises NotUnderstood, with file and line, where that cannot be done without changing more.
    """
    before = resolve(files)
    if before.given.get(name) is not None:
        return edit_settings(files, {name: value})
    given = before.given.get(beside)
    wanted = {**values_of(before.settings), name: value}
    ways = (
        f" --{name}={value}",
        f"\n{variable_name(name)}={value}",
        f"\nEnvironment={variable_name(name)}={value}",
        f"\n{name}: {value}",
    )
    for slot in given.slots if given else ():
        text = files.text(slot.path) or ""
        entry = _ENTRY.search(text[: slot.start])
        listed = (f"\n{entry[0]}--{name}={value}",) if entry else ()
        for way in (*listed, *ways):
            edited = put_text(files, slot.path, text[: slot.end] + way + text[slot.end :])
            after = resolve(edited).settings
            is_clean = not after.faults and len(after.ignored) == len(before.settings.ignored)
            if is_clean and values_of(after) == wanted:
                return edited
    place = given.place if given else Place(files.files[0].path if files.files else files.unit)
    raise NotUnderstood(place, f"--{name} is not set, and cannot be added here; set it by hand")


def set_anywhere(files: SettingsFiles, name: str, value: str) -> SettingsFiles:
    """Give a setting a value; one that is not set yet comes where the member's name is.

    Raises NotUnderstood, with file and line, where that cannot be done without changing more.
    """
    settings = read_settings(files)
    if settings.faults:
        raise NotUnderstood(settings.faults[0].place, settings.faults[0].sentence)
    beside = next((n for n in ("name", "data-dir", "initial-cluster") if n in settings), "name")
    return add_setting(files, name, value, beside=beside)


def changed_files(before: SettingsFiles, after: SettingsFiles) -> tuple[TextFile, ...]:
    """List the files that an edit changed, as they are after it."""
    return tuple(file for file in after.files if file.text != before.text(file.path))


def resolve(files: SettingsFiles) -> Resolved:
    """Read files, with the places of the values, for who edits them."""
    launch = read_manifest(files.manifest) if files.manifest else read_unit(files)
    return _take(launch, files)


def _take(launch: Launch, files: SettingsFiles) -> Resolved:
    """Take a launch as etcd does: a settings file alone, or flags before variables."""
    faults, ignored = list(launch.faults), list(launch.ignored)
    program = launch.words[0] if launch.words else None
    if program and (said := _program_fault(program.text)):
        faults.append(Notice(program.place, said))
        launch = replace(launch, words=launch.words[:1])
    flags, stray = read_flags(launch.words[1:])
    faults += stray
    variables = read_variables(launch.variables)
    named = flags.get(CONFIG_FILE) or variables.get(CONFIG_FILE)
    shadowed: tuple[Notice, ...] = ()
    if named is not None and named.text:
        text = files.text(named.text)
        given: Mapping[str, Given] = {}
        if text is None:
            said = f"there is no {named.text}, so etcd would end"
            faults.append(Notice(named.place, said, is_fatal=True))
        else:
            given, read = read_config_file(named.text, text)
            faults += read.faults
            ignored += read.ignored
            ignored += [
                Notice(each.place, f"{name} is ignored: etcd reads {named.text} alone")
                for name, each in {**variables, **flags}.items()
                if name != CONFIG_FILE
            ]
        given = {**given, CONFIG_FILE: named}
    else:
        given = {**variables, **flags}
        shadowed = find_shadowed(flags, launch.variables)
    found = {
        name: Setting(name, each.text, each.place) for name, each in given.items() if each.text
    }
    settings = Settings(
        found, program.text if program else "", tuple(faults), tuple(ignored), shadowed
    )
    return Resolved(settings, given)


def _program_fault(program: str) -> str | None:
    name = program.rpartition("/")[2]
    if _ETCD.fullmatch(name):
        return None
    if name in _CONTAINERS:
        return f"{program} runs etcd in a container, which is not supported"
    return (
        f"{program} is not etcd itself, and what it gives to etcd cannot be told; let the unit "
        "start etcd"
    )


def _edit(files: SettingsFiles, name: str, value: str) -> SettingsFiles:
    before = resolve(files)
    if before.settings.value(name) == value:
        return files
    if before.settings.faults:
        raise NotUnderstood(before.settings.faults[0].place, before.settings.faults[0].sentence)
    given = before.given.get(name)
    if given is None:
        place = Place(files.files[0].path if files.files else files.unit)
        raise NotUnderstood(
            place, f"neither --{name} nor {variable_name(name)} is set, so it cannot be changed"
        )
    wanted = {**values_of(before.settings), name: value}
    for slot in given.slots:
        edited = _write(files, slot, value)
        after = resolve(edited).settings if edited else None
        if edited and after and not after.faults and values_of(after) == wanted:
            return edited
    raise NotUnderstood(
        given.place,
        f"{name} cannot be changed to {value!r} here without changing more; change it by hand",
    )


def values_of(settings: Settings) -> dict[str, str]:
    """Get the values alone, by name."""
    return {name: setting.value for name, setting in settings.items()}


def _write(files: SettingsFiles, slot: Slot, value: str) -> SettingsFiles | None:
    text = files.text(slot.path)
    if text is None:
        return None
    try:
        return put_text(files, slot.path, text[: slot.start] + slot.write(value) + text[slot.end :])
    except ValueError:
        return None


def put_text(files: SettingsFiles, path: str, text: str) -> SettingsFiles:
    """Give one of the files another text."""

    def put(group: tuple[TextFile, ...]) -> tuple[TextFile, ...]:
        return tuple(replace(f, text=text) if f.path == path else f for f in group)

    manifest = put((files.manifest,))[0] if files.manifest else None
    return replace(files, units=put(files.units), further=put(files.further), manifest=manifest)
