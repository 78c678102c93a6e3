"""Words as systemd splits and unquotes them, each with its place in the text.

Owns `extract_first_word` of systemd's src/basic/extract-word.c and the escapes of escape.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BLANKS = " \t\n\r"
_SIMPLE = dict(zip("abfnrtvs\\\"'", "\a\b\f\n\r\t\v \\\"'", strict=True))
_CODE = re.compile(r"x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}")
_BARE = re.compile(r"[^\s\"'\\;#][^\s\"'\\]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Word:
    """A word without its quotes; `start` and `end` are where it stands, quotes included."""

    text: str
    start: int
    end: int
    is_bare: bool


def split_words(text: str, *, is_value: bool = False) -> tuple[Word, ...]:
    """Split a line of a unit; `is_value`: what a lone $VARIABLE holds, where systemd is lax.

    Raises ValueError for a quote that is not closed, and a backslash at the end.
    """
    words: list[Word] = []
    position = 0
    while True:
        while position < len(text) and text[position] in BLANKS:
            position += 1
        if position == len(text):
            return tuple(words)
        word = _read_word(text, position, is_value)
        words.append(word)
        position = word.end


def _read_word(text: str, start: int, is_value: bool) -> Word:
    value, quote, position = "", "", start
    while position < len(text) and (quote or text[position] not in BLANKS):
        character = text[position]
        position += 1
        if character == "\\":
            if position == len(text):
                if not is_value:
                    raise ValueError("it ends in a backslash")
                break
            taken, meaning = _unescape(text, position, is_value)
            value, position = value + meaning, position + taken
        elif quote and character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote = character
        else:
            value += character
    if quote and not is_value:
        raise ValueError(f"a quote ({quote}) is not closed")
    return Word(value, start, position, value == text[start:position])


def _unescape(text: str, position: int, is_value: bool) -> tuple[int, str]:
    """Read what follows a backslash; one that systemd does not know stays as it is."""
    character = text[position]
    if is_value:
        return 1, character
    if code := _CODE.match(text, position):
        digits = code[0].lstrip("xuU")
        number = int(digits, 8 if code[0][0] not in "xuU" else 16)
        if 0 < number < 0x110000:  # noqa: PLR2004 - Unicode's end
            return len(code[0]), chr(number)
    return 1, _SIMPLE.get(character, f"\\{character}")


def quote_word(text: str, *, bare: bool) -> str:
    """Write a word so that it is read as this text; without quotes where it was and can be.

    Raises ValueError for a character that cannot stand in a setting.
    """
    if _CONTROL.search(text):
        raise ValueError(f"{text!r} has a control character")
    if bare and _BARE.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
