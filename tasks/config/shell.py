"""Reads the one command of `bash -c "..."`, where it is certain what the shell makes of it.

A command with anything but words, quotes, variables and assignments in front is not understood,
rather than read nearly right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.config.expansion import lookup
from tasks.config.launch import Given, NotUnderstood
from tasks.model.member_settings import Place

SHELLS = frozenset({"sh", "bash", "dash"})
_OPTIONS = re.compile(r"-[eux]*c[eux]*")
_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*)")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_SUBSTITUTION = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=\$\([a-z0-9 _./+-]*\)(?=\s)")
_PLAIN = re.compile(r"[A-Za-z0-9_./:,=@%+-]*")
_SPECIAL = frozenset(";&|<>()`*?[]{}~!#\n^")
WAY_OUT = "let the unit start etcd itself, or give the settings in an EnvironmentFile"


def is_shell(words: tuple[Given, ...]) -> bool:
    """Whether a unit's command is a shell's."""
    return bool(words) and words[0].text.rpartition("/")[2] in SHELLS


def read_command(
    words: tuple[Given, ...], variables: Mapping[str, Given]
) -> tuple[tuple[Given, ...], dict[str, Given]]:
    """Read the command that a shell is given: its words, and the variables that it adds.

    systemd puts ${NAME} in before the shell sees it, the shell puts $NAME in: both from the same
    variables, whose values must be plain, so that the order does not matter. Raises NotUnderstood.
    """
    place = words[0].place
    if len(words) != 3 or not _OPTIONS.fullmatch(words[1].text):  # noqa: PLR2004 - sh -c COMMAND
        raise NotUnderstood(place, f"what this shell gives to etcd cannot be told; {WAY_OUT}")
    script, added = words[2].text.replace("$$", "$").strip(), {}
    while True:
        if substituted := _SUBSTITUTION.match(script):
            if substituted[1].startswith("ETCD_") or substituted[1] in script[substituted.end() :]:
                raise NotUnderstood(
                    place, f"what {substituted[1]} becomes cannot be told; {WAY_OUT}"
                )
            script = script[substituted.end() :].lstrip()
            continue
        break
    found = list(_Script(script, place, variables).read())
    while found and (assigned := _ASSIGNMENT.match(found[0].text)):
        added[assigned[1]] = found.pop(0).after(assigned[0])
    if found and found[0].text == "exec":
        found.pop(0)
    if any(f"${name}" in script or f"${{{name}}}" in script for name in added):
        raise NotUnderstood(place, f"variables are set and used in one command; {WAY_OUT}")
    return tuple(found), added


@dataclass(slots=True)
class _Script:
    """A command's text, read word by word."""

    text: str
    place: Place
    variables: Mapping[str, Given]
    position: int = 0

    def read(self) -> list[Given]:
        words: list[Given] = []
        while True:
            while self.text[self.position : self.position + 1] in {" ", "\t"}:
                self.position += 1
            if self.position >= len(self.text):
                return words
            start = self.position
            word = self._read_word()
            # An unset variable without quotes is no word.
            if word.text or re.search("[\"']", self.text[start : self.position]):
                words.append(word)

    def _read_word(self) -> Given:
        value, quote, tail = "", "", None
        while self.position < len(self.text):
            character = self.text[self.position]
            if not quote and character in " \t":
                break
            self.position += 1
            if character == "$" and quote != "'":
                held = self._read_variable()
                value, tail = value + (held.text if held else ""), held
                continue
            if character == quote:
                quote = ""
                continue
            if not quote and character in "'\"":
                quote = character
                continue
            if character == "\\" and quote != "'":
                character = self._read_escaped(quote)
            elif (not quote and character in _SPECIAL) or (quote == '"' and character == "`"):
                raise self._refused(f"{character!r}")
            value, tail = value + character, None
        if quote:
            raise self._refused("a quote that is not closed")
        return Given(value, self.place, (), tail)

    def _read_variable(self) -> Given | None:
        found = _NAME.match(self.text, self.position)
        if found is None:
            raise self._refused("'$'")
        self.position = found.end()
        held = lookup(found[1] or found[2], self.variables, self.place)
        if held is not None and not _PLAIN.fullmatch(held.text):
            raise self._refused(f"the value {held.text!r} of ${found[1] or found[2]}")
        return held

    def _read_escaped(self, quote: str) -> str:
        character = self.text[self.position : self.position + 1]
        self.position += 1
        if not character or character == "\n":
            raise self._refused("a backslash at the end")
        return character if not quote or character in '"\\$`' else f"\\{character}"

    def _refused(self, what: str) -> NotUnderstood:
        return NotUnderstood(
            self.place, f"what the shell makes of {what} cannot be told for certain; {WAY_OUT}"
        )
