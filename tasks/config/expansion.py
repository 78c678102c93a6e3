"""Expands what systemd expands in a unit: specifiers, and $VARIABLES in a command.

Owns systemd.unit(5), "Specifiers", as far as it can be told from the unit's and the host's name,
and replace_env_argv of src/basic/env-util.c.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from tasks.config.launch import Given, NotUnderstood, Slot
from tasks.config.words import Word, quote_word, split_words
from tasks.model.member_settings import Place

_DIRECTORIES = {"t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "E": "/etc"}
_TEMPORARY = {"T": "/tmp", "V": "/var/tmp"}  # noqa: S108 - what systemd's %T and %V are
_REFERENCE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# systemd.exec(5), "Environment Variables Set or Propagated by the Service Manager".
SYSTEMD_OWN = frozenset(
    "PATH LANG USER LOGNAME HOME SHELL INVOCATION_ID XDG_RUNTIME_DIR RUNTIME_DIRECTORY "
    "STATE_DIRECTORY CACHE_DIRECTORY LOGS_DIRECTORY CONFIGURATION_DIRECTORY "
    "CREDENTIALS_DIRECTORY MAINPID MANAGERPID LISTEN_FDS LISTEN_PID NOTIFY_SOCKET "
    "WATCHDOG_PID WATCHDOG_USEC SYSTEMD_EXEC_PID TERM JOURNAL_STREAM".split()
)


def expand_specifiers(text: str, unit: str, host_name: str, place: Place) -> str:
    """Put in what %H and such stand for; raises NotUnderstood for one that is not known here."""
    if "%" not in text:
        return text
    name = unit.rpartition(".")[0] or unit
    prefix, _, instance = name.partition("@")
    known = {
        "%": "%",
        "n": unit,
        "N": name,
        "p": prefix,
        "i": instance,
        "H": host_name,
        "l": host_name.partition(".")[0],
        **_DIRECTORIES,
        **_TEMPORARY,
    }

    def expand(found: re.Match[str]) -> str:
        if found[1] not in known:
            raise NotUnderstood(
                place, f"the specifier {found[0]} is not known here; write its value in its place"
            )
        return known[found[1]]

    return re.sub(r"%(.|$)", expand, text)


def expand_word(word: Given, variables: Mapping[str, Given]) -> tuple[Given, ...]:
    """Put in a command's word what its variables hold.

    ${NAME} is put in as it is; a lone $NAME becomes the words of its value, or none.
    """
    text = word.text
    if text.startswith("$") and text[1:2] not in {"{", "$", ""}:
        held = lookup(text[1:], variables, word.place)
        if held is None:
            return ()
        return tuple(
            Given(part.text, held.place, tuple(_part_slot(slot, held, part) for slot in held.slots))
            for part in split_words(held.text, is_value=True)
        )
    if "$" not in text:
        return (word,)
    references = [found[1] for found in _REFERENCE.finditer(text) if found[1]]
    held_by_name = {name: lookup(name, variables, word.place) for name in references}

    def expand(found: re.Match[str]) -> str:
        held = held_by_name.get(found[1]) if found[1] else None
        return held.text if held else "" if found[1] else "$"

    last = references[-1] if references and text.endswith(f"${{{references[-1]}}}") else None
    tail = held_by_name[last] if last else None
    return (Given(_REFERENCE.sub(expand, text), word.place, word.slots, tail),)


def _part_slot(slot: Slot, held: Given, part: Word) -> Slot:
    """Make the slot of one of the words that a variable holds."""

    def write(text: str) -> str:
        word = quote_word(text, bare=part.is_bare)
        return slot.write(f"{held.text[: part.start]}{word}{held.text[part.end :]}")

    return replace(slot, write=write)


def lookup(name: str, variables: Mapping[str, Given], place: Place) -> Given | None:
    """Get a variable, None where it is not set; raises NotUnderstood for systemd's own."""
    if name not in variables and name in SYSTEMD_OWN:
        raise NotUnderstood(
            place, f"what ${name} holds cannot be told; write its value in its place"
        )
    return variables.get(name)
