"""Settings that get another name, or are taken out, wherever they are written.

As with an edit of a value, the files are read back: they must say what they said, and the one
change. What cannot be done so is NotUnderstood, with file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.config.launch import NotUnderstood, Slot
from tasks.config.settings import add_setting, edit_settings, put_text, resolve, values_of
from tasks.model.member_settings import Place, SettingsFiles, variable_name

TIMES = 5
"""A setting may be written more than once; the last one counts."""


def remove_setting(files: SettingsFiles, name: str) -> SettingsFiles:
    """Take a setting out, each time that it is written; raises NotUnderstood."""
    for _ in range(TIMES):
        before = resolve(files)
        given = before.given.get(name)
        if given is None:
            return files
        wanted = {n: v for n, v in values_of(before.settings).items() if n != name}
        for path, start, end in _regions(files, given.slots, name):
            text = files.text(path) or ""
            edited = put_text(files, path, text[:start] + text[end:])
            after = resolve(edited).settings
            left = {n: v for n, v in values_of(after).items() if n != name}
            if left == wanted and not after.faults and edited != files:
                files = edited
                break
        else:
            break
    raise NotUnderstood(place_of(files, name), f"{name} cannot be taken out here; do it by hand")


def rename_setting(
    files: SettingsFiles, name: str, new: str, value: str | None = None
) -> SettingsFiles:
    """Give a setting another name, and another value where one is given; raises NotUnderstood.

    Where one of the new name is there, it gets the value, and the old one goes.
    """
    before = resolve(files)
    given = before.given.get(name)
    if given is None:
        return files
    if new in before.given:
        wanted_value = value if value is not None else given.text
        return remove_setting(edit_settings(files, {new: wanted_value}), name)
    values = values_of(before.settings)
    kept = {n: v for n, v in values.items() if n != name}
    for slot in given.slots:
        edited = _renamed(files, slot, name, new, value)
        if edited is None:
            continue
        after = resolve(edited).settings
        found = values_of(after)
        has_value = value is None or found.get(new) == value
        rest = {n: v for n, v in found.items() if n != new}
        if new in found and has_value and rest == kept and not after.faults:
            return edited
    if value is not None:
        # A word, a line or a key of its own, where another kind of value stood.
        return remove_setting(add_setting(files, new, value, beside=name), name)
    raise NotUnderstood(given.place, f"{name} cannot be named {new} here; do it by hand")


def _spellings(name: str, new: str = "") -> tuple[tuple[str, str], ...]:
    """Say how a name stands as a flag, as a variable and as a key, with the new one's."""
    variables = (variable_name(name), variable_name(new))
    return (variables, (f"--{name}", f"--{new}"), (f"-{name}", f"-{new}"), (name, new))


def _renamed(
    files: SettingsFiles, slot: Slot, name: str, new: str, value: str | None
) -> SettingsFiles | None:
    text = files.text(slot.path)
    if text is None:
        return None
    said = text[slot.start : slot.end]
    if value is not None:
        try:
            said = slot.write(value)
        except ValueError:
            return None
    whole = text[: slot.start] + said
    for old, wanted in _spellings(name, new):
        start = whole.rfind(old)
        # Of a word that has both, the name is in the slot; else it stands right before.
        between = whole[start + len(old) : slot.start]
        if start >= 0 and re.fullmatch(r"[\s=:\"'\\]*|", between):
            changed = whole[:start] + wanted + whole[start + len(old) :] + text[slot.end :]
            return put_text(files, slot.path, changed)
    return None


def _regions(
    files: SettingsFiles, slots: tuple[Slot, ...], name: str
) -> Iterator[tuple[str, int, int]]:
    """List the pieces of text that may be the whole of a setting, the likeliest first."""
    for slot in slots:
        text = files.text(slot.path) or ""
        begin = text.rfind("\n", 0, slot.start) + 1
        stop = text.find("\n", slot.end)
        yield slot.path, begin, len(text) if stop < 0 else stop + 1
        end = slot.end + (text[slot.end : slot.end + 1] in {'"', "'"})
        for old, _ in _spellings(name):
            pattern = rf"[ \t]*(\\\n[ \t]*)?[\"']?{re.escape(old)}[\s=:\"'\\]*$"
            found = re.search(pattern, text[: slot.start])
            if found:
                yield slot.path, found.start(), end
                yield slot.path, found.start(), slot.end
                # A list's word, and the one with its value, each in its own line.
                yield slot.path, text.rfind("\n", 0, found.start()) + 1, stop + 1
        found = re.search(r"[ \t]*(\\\n[ \t]*)?$", text[: slot.start])
        if found:
            yield slot.path, found.start(), slot.end
        yield slot.path, slot.start, slot.end


def place_of(files: SettingsFiles, name: str) -> Place:
    """Say where a setting is written."""
    given = resolve(files).given.get(name)
    return given.place if given else Place(files.unit or "the manifest")
