"""Edits of etcd's settings: one value becomes another, and every other byte stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.config.settings import changed_files, edit_settings, read_settings
from tasks.model.member_settings import SettingsFiles
from tests.unit.settings_files import (
    NAMES,
    VALUES,
    environment_files,
    flag_units,
    manifests,
    settings_files,
)


def values(files: SettingsFiles) -> dict[str, str]:
    """Read the values alone."""
    found = read_settings(files)
    assert not found.faults
    return {name: setting.value for name, setting in found.items()}


def check_edit(files: SettingsFiles, name: str, value: str) -> None:
    """Edit, and compare settings and bytes."""
    before = values(files)
    edited = edit_settings(files, {name: value})
    assert values(edited) == {**before, name: value}
    assert edit_settings(edited, {name: value}) == edited
    (changed,) = changed_files(files, edited) or (None,)
    if before[name] == value:
        assert changed is None
        return
    assert changed is not None
    old = files.text(changed.path) or ""
    start = next(
        (i for i, (a, b) in enumerate(zip(old, changed.text, strict=False)) if a != b), len(old)
    )
    tail = next(
        (i for i, (a, b) in enumerate(zip(old[::-1], changed.text[::-1], strict=False)) if a != b),
        0,
    )
    # What differs is one piece, and no comment, section or other name is in it.
    piece = old[start : len(old) - tail]
    assert "ours" not in piece
    assert "Restart" not in piece
    back = edit_settings(edited, {name: before[name]})
    assert values(back) == before


SOURCES = st.one_of(environment_files(), flag_units(), settings_files(), manifests())


@given(st.data(), SOURCES, VALUES.filter(lambda text: "$(" not in text))
def test_an_edit_changes_one_setting_and_no_other_byte(
    data: st.DataObject, files: SettingsFiles, value: str
) -> None:
    """Whatever the file, however it is written."""
    names = sorted(set(values(files)) & set(NAMES))
    if not names:
        return
    check_edit(files, data.draw(st.sampled_from(names)), value)
