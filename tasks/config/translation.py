"""What a member's settings must become before another minor version of etcd starts with them.

An unknown flag ends etcd, an unknown variable is warned of, and an unknown key of a settings file
is dropped without a word. What a version takes away is written in the words of the next while the
old one still knows both, so that each of them starts with what is on disk. Sources: etcd's
server/etcdmain/config.go of 3.4 to 3.7, `--help` of all, and starting each version with each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tasks.config.compatibility import GATES, RENAMED, find_misfit
from tasks.config.launch import NotUnderstood
from tasks.config.renaming import place_of, remove_setting, rename_setting
from tasks.config.settings import edit_settings, read_settings, set_anywhere
from tasks.model.member_settings import (
    Place,
    SettingsFiles,
    flag_name,
    parse_boolean,
    variable_name,
)
from tasks.model.upgrades import Change, Translation

Minor = tuple[int, int]
FEATURES = "feature-gates"
_EXPERIMENTAL = "experimental-"
_TO_GATES = {f"{_EXPERIMENTAL}{flag_name(f'ETCD_{name}')}": gate for name, gate in GATES.items()}
_FROM_GATES = {gate: name for name, gate in _TO_GATES.items()}
_TO_NAMES = {
    f"{_EXPERIMENTAL}{name}": name
    for name in (flag_name(f"ETCD_{variable}") for variable in RENAMED)
}
_PROXY = frozenset(
    "proxy proxy-dial-timeout proxy-failure-wait proxy-read-timeout proxy-refresh-interval "
    "proxy-write-timeout".split()
)
SNAPSHOT_COUNT = "snapshot-count"

TOUCHED = frozenset(
    {
        *_TO_GATES,
        *_TO_NAMES,
        *_TO_NAMES.values(),
        *_PROXY,
        *(FEATURES, SNAPSHOT_COUNT, "debug", "log-level", "log-package-levels", "log-output"),
        *("log-outputs", "logger", "enable-v2", "experimental-enable-v2v3", "v2-deprecation"),
        *("discovery-fallback", "experimental-backend-bbolt-freelist-type"),
        "backend-bbolt-freelist-type",
    }
)
"""Every setting, by flag name, that a translation may change or write."""


Become = Callable[..., Change]
"""Makes the change of one setting: its new name and value, or neither where it goes."""


def translate(files: SettingsFiles, minor: Minor) -> Translation:
    """Write a member's settings for a minor version next to the one that it runs.

    Where all is known to that version nothing changes. Doing it twice changes nothing more.
    """
    before = read_settings(files)
    if before.faults:
        return Translation(files, faults=tuple(map(str, before.faults)))
    changes: list[Change] = []
    faults: list[str] = []
    for name, setting in before.items():
        place = str(place_of(files, name))
        try:
            for change in _changes(name, setting.value, minor, place):
                files = _apply(files, change)
                changes.append(change)
        except NotUnderstood as error:
            faults.append(str(error))
        except ValueError as error:
            faults.append(f"{place}: {name}: {error}")
    for name, setting in read_settings(files).items():
        misfit = find_misfit(variable_name(name), setting.value, minor)
        why = misfit[0] if misfit else ""
        if misfit and (misfit[1] or why.startswith("is ignored")) and not faults:
            faults.append(f"{setting.place}: in etcd {minor[0]}.{minor[1]} {name} {why}")
    return Translation(files, tuple(changes), tuple(faults))


def translated(files: SettingsFiles, minor: Minor) -> SettingsFiles:
    """Translate settings whose translation was planned; raises NotUnderstood where it fails now."""
    done = translate(files, minor)
    if done.faults:
        place = Place(files.manifest.path if files.manifest else files.unit)
        raise NotUnderstood(place, done.faults[0])
    return done.files


def has_v2_api(files: SettingsFiles) -> bool:
    """Whether clients of the v2 API are served: a switch that goes with 3.6."""
    return read_settings(files).is_on("enable-v2")


def count_every(files: SettingsFiles, entries: int) -> SettingsFiles:
    """Let etcd save a snapshot of its log after so many entries; raises NotUnderstood."""
    return set_anywhere(files, SNAPSHOT_COUNT, str(entries))


def _apply(files: SettingsFiles, change: Change) -> SettingsFiles:
    if not change.new:
        return remove_setting(files, change.name)
    if change.new == change.name:
        return edit_settings(files, {change.name: change.new_value})
    if change.new == FEATURES:
        there = read_settings(files).value(FEATURES)
        value = f"{there},{change.new_value}" if there else change.new_value
        return rename_setting(files, change.name, FEATURES, value)
    is_same = change.new_value == change.value
    return rename_setting(files, change.name, change.new, None if is_same else change.new_value)


def _changes(name: str, value: str, minor: Minor, place: str) -> Iterator[Change]:
    def become(new: str = "", new_value: str | None = None) -> Change:
        return Change(name, value, new, value if new_value is None else new_value, place)

    if minor >= (3, 5):
        yield from _since_3_5(name, value, become)
    if minor >= (3, 6):
        yield from _since_3_6(name, value, become)
    if minor >= (3, 7):
        if name in _TO_GATES:
            yield become(FEATURES, f"{_TO_GATES[name]}={str(parse_boolean(value)).lower()}")
        elif name in _TO_NAMES:
            yield become(_TO_NAMES[name])
    if minor < (3, 6):
        yield from _before_3_6(name, value, become)


def _since_3_5(name: str, value: str, become: Become) -> Iterator[Change]:
    if name == "debug":
        yield become("log-level", "debug") if parse_boolean(value) else become()
    elif name == "log-package-levels":
        yield become()
    elif name == "log-output":
        yield become("log-outputs")
    elif name == "logger" and value == "capnslog":
        yield become("logger", "zap")
    elif name == "experimental-backend-bbolt-freelist-type":
        yield become("backend-bbolt-freelist-type")


def _since_3_6(name: str, value: str, become: Become) -> Iterator[Change]:
    if name == "proxy" and value != "off":
        raise ValueError(f"{value} makes it no member; etcd's grpc-proxy is what is left")
    is_gone = name in _PROXY or name in {"enable-v2", "experimental-enable-v2v3"}
    if is_gone or (name, value) == ("v2-deprecation", "not-yet"):
        yield become()
    elif name == "discovery-fallback" and value == "proxy":
        yield become("discovery-fallback", "exit")


def _before_3_6(name: str, value: str, become: Become) -> Iterator[Change]:
    if name in _TO_NAMES.values():
        yield become(f"{_EXPERIMENTAL}{name}")
    elif name == FEATURES:
        gates = [part.partition("=") for part in value.split(",") if part]
        unknown = [gate for gate, _, _ in gates if gate not in _FROM_GATES]
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no setting of etcd 3.5 stands for it")
        if len(gates) > 1:
            raise ValueError(f"{FEATURES} has several gates; write them as 3.5 has them by hand")
        for gate, _, state in gates:
            yield become(_FROM_GATES[gate], state)
