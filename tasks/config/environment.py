"""Reads a systemd EnvironmentFile, with the place of each value.

Owns its syntax: systemd.exec(5) and parse_env_file_internal of src/basic/env-file.c. What systemd
skips is named, and what one version of it reads otherwise than another is a fault.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.config.launch import Given, Slot
from tasks.model.member_settings import Notice, Place

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINE_ENDS = "\n\r"
_BLANKS = " \t\n\r"
_ESCAPABLE = '"\\`$'
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class EnvironmentText:
    """What an EnvironmentFile says, in its order; a later assignment of a name wins."""

    assignments: tuple[tuple[str, Given], ...]
    skipped: tuple[Notice, ...]
    faults: tuple[Notice, ...]

    @property
    def variables(self) -> dict[str, Given]:
        """The assignments that count."""
        return dict(self.assignments)


class _Unclosed(Exception):
    """A quote that the text's end leaves open."""


class _Reader:
    """A position in a text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    @property
    def line(self) -> int:
        return self.text.count("\n", 0, self.position) + 1

    @property
    def is_at_end(self) -> bool:
        return self.position >= len(self.text)

    def peek(self) -> str:
        """Get the next character; the end of the text counts as the end of a line."""
        return "\n" if self.is_at_end else self.text[self.position]

    def take(self) -> str:
        character = self.peek()
        self.position += 1
        return character

    def take_line(self) -> str:
        start = self.position
        while self.peek() not in _LINE_ENDS:
            self.position += 1
        return self.text[start : self.position]


def read_environment(path: str, text: str) -> EnvironmentText:
    """Read an EnvironmentFile; nothing is skipped without a notice."""
    reader, found = _Reader(text), []
    skipped: list[Notice] = []
    faults: list[Notice] = []
    while not reader.is_at_end:
        place = Place(path, reader.line)
        character = reader.peek()
        if character in _BLANKS:
            reader.take()
        elif character in "#;":
            if reader.take_line().endswith("\\") and _is_meant(reader):
                faults.append(Notice(place, _COMMENT))
        else:
            key = ""
            while reader.peek() not in ("=", *_LINE_ENDS):
                key += reader.take()
            if reader.peek() != "=":
                skipped.append(Notice(place, f"{key.rstrip()!r} has no '=', so systemd skips it"))
                continue
            reader.take()
            name = key.rstrip(_BLANKS)
            try:
                assignment = _read_assignment(reader, place)
            except _Unclosed as error:
                faults.append(Notice(place, f"a quote ({error}) is not closed"))
                break
            if not _KEY.fullmatch(name):
                skipped.append(
                    Notice(place, f"{name!r} is not the name of a variable, so systemd skips it")
                )
            elif _CONTROL.search(assignment.text):
                skipped.append(
                    Notice(place, f"{name} has a control character, so systemd skips it")
                )
            else:
                found.append((name, assignment))
    return EnvironmentText(tuple(found), tuple(skipped), tuple(faults))


_COMMENT = (
    "this comment ends in a backslash: systemd before 254 takes the next line to belong to it; "
    "take the backslash out"
)


def _is_meant(reader: _Reader) -> bool:
    """Whether the line after the present one says anything."""
    rest = reader.text[reader.position :].replace("\r\n", "\n").replace("\r", "\n")
    following = rest[1:].partition("\n")[0].strip()
    return bool(following) and following[0] not in "#;"


def _read_assignment(reader: _Reader, place: Place) -> Given:
    """Read quoted parts, which follow each other, and then an unquoted one to the line's end."""
    value, start = "", None
    while True:
        before = reader.position
        character = reader.peek()
        if character in _LINE_ENDS:
            break
        reader.take()
        if character in _BLANKS:
            continue
        start = before if start is None else start
        if character in "'\"":
            value += _read_quoted(reader, character)
        else:
            value += _read_bare(reader, character)
            break
    start = reader.position if start is None else start
    end = start + len(reader.text[start : reader.position].rstrip(_BLANKS))
    return Given(value, place, (Slot(place.source, start, end, quote_value),))


def _read_bare(reader: _Reader, character: str) -> str:
    """Read to the line's end, blanks before it left out; an escaped character stays."""
    value, kept = "", 0
    while True:
        if character == "\\":
            if reader.is_at_end:
                break
            escaped = reader.take()
            value += "" if escaped in _LINE_ENDS else escaped
            kept = len(value)
        else:
            value += character
            kept = kept if character in _BLANKS else len(value)
        if reader.peek() in _LINE_ENDS:
            break
        character = reader.take()
    return value[:kept]


def _read_quoted(reader: _Reader, quote: str) -> str:
    value = ""
    while not reader.is_at_end:
        character = reader.take()
        if character == quote:
            return value
        if character == "\\" and quote == '"' and not reader.is_at_end:
            escaped = reader.take()
            if escaped in _ESCAPABLE:
                value += escaped
            elif escaped != "\n":
                value += "\\" + escaped
        else:
            value += character
    raise _Unclosed(quote)


def quote_value(value: str) -> str:
    """Write a value in double quotes; raises ValueError for one that cannot be written."""
    if _CONTROL.search(value) or "\n" in value:
        raise ValueError(f"{value!r} has a control character")
    return '"' + re.sub(r"([\"\\`$])", r"\\\1", value) + '"'
