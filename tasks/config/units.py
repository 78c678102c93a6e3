"""Reads a service's unit file with its drop-ins: what it would start, and with which variables.

Owns the syntax of unit files: systemd.syntax(7), config_parse of src/shared/conf-parser.c, and
what src/core/load-fragment.c makes of Environment=, EnvironmentFile= and ExecStart=.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tasks.config.environment import read_environment
from tasks.config.expansion import expand_specifiers, expand_word
from tasks.config.launch import Given, Launch, NotUnderstood, Slot
from tasks.config.shell import is_shell, read_command
from tasks.config.words import BLANKS, Word, quote_word, split_words
from tasks.model.member_settings import Notice, Place, SettingsFiles, TextFile

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[^\x00-\x08\x0b-\x1f\x7f]*", re.DOTALL)
_PREFIXES = "-@:+!|"
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class _Line:
    """One `Key=value`, continued lines joined; `offsets` are where its characters stand."""

    key: str
    value: str
    place: Place
    offsets: tuple[int, ...]

    def slot(self, word: Word, *, is_command: bool) -> Slot:
        """Make the slot of a word of the value."""

        def write(text: str) -> str:
            text = text.replace("%", "%%")
            text = text.replace("$", "$$") if is_command else text
            return quote_word(text, bare=word.is_bare)

        start, end = self.offsets[word.start], self.offsets[word.end - 1] + 1
        return Slot(self.place.source, start, end, write)


@dataclass(slots=True)
class _Service:
    """What the [Service] sections say so far; `unknown` are variables of which it is not known."""

    variables: dict[str, Given] = field(default_factory=dict)
    unknown: dict[str, Notice] = field(default_factory=dict)
    files: list[tuple[str, bool, Place]] = field(default_factory=list)
    unset: list[str] = field(default_factory=list)
    commands: list[_Line] = field(default_factory=list)
    faults: list[Notice] = field(default_factory=list)
    ignored: list[Notice] = field(default_factory=list)


def read_unit(files: SettingsFiles) -> Launch:
    """Tell what a unit starts; whatever could not be understood is among the faults."""
    service = _Service()
    for file in files.units:
        for line in _service_lines(file):
            try:
                _take(service, line, files)
            except NotUnderstood as error:
                service.faults.append(error.notice)
    variables = {**service.variables, **_file_variables(service, files)}
    for name in service.unset:
        variables.pop(name, None)
        service.unknown.pop(name, None)
    said = " ".join(line.value for line in service.commands)
    service.faults += [
        notice
        for name, notice in service.unknown.items()
        if name not in variables and (name.startswith("ETCD_") or name in said)
    ]
    words: tuple[Given, ...] = ()
    try:
        words, added = _read_command(service, files, variables)
        variables |= added
    except NotUnderstood as error:
        service.faults.append(error.notice)
    return Launch(words, variables, tuple(service.faults), tuple(service.ignored))


def read_service(files: SettingsFiles, *keys: str) -> tuple[tuple[str, str], ...]:
    """List what a unit says of some keys of its [Service], in its order: key and value."""
    lines = (line for file in files.units for line in _service_lines(file))
    return tuple((line.key, line.value) for line in lines if line.key in keys and line.value)


def _service_lines(file: TextFile) -> Iterator[_Line]:
    section = ""
    for number, text, offsets in _logical_lines(file.text):
        stripped = text.strip(BLANKS)
        if stripped.startswith("[") and stripped.endswith("]"):
            section = stripped
        elif section == "[Service]" and "=" in stripped:
            key, _, value = text.partition("=")
            start = len(key) + 1 + len(value) - len(value.lstrip(BLANKS))
            value = value.strip(BLANKS)
            yield _Line(
                key.strip(BLANKS),
                value,
                Place(file.path, number),
                tuple(offsets[start : start + len(value)]),
            )


def _logical_lines(text: str) -> Iterator[tuple[int, str, list[int]]]:
    """Join lines that end in a backslash, which becomes a blank; comments between are left out."""
    joined, offsets, first, position = "", list[int](), 0, 0
    for number, raw in enumerate(text.split("\n"), 1):
        start, position = position, position + len(raw) + 1
        line = raw.removesuffix("\r")
        if line.lstrip(BLANKS)[:1] in {"#", ";"}:
            continue
        first = first or number
        trailing = len(line) - len(line.rstrip("\\"))
        goes_on = trailing % 2 == 1
        joined += line[:-1] + " " if goes_on else line
        offsets += range(start, start + len(line))
        if not goes_on:
            yield first, joined, offsets
            joined, offsets, first = "", [], 0
    if joined:
        yield first, joined, offsets


def _take(service: _Service, line: _Line, files: SettingsFiles) -> None:
    if line.key == "Environment":
        _take_environment(service, line, files)
    elif line.key == "EnvironmentFile":
        if not line.value:
            service.files.clear()
            return
        path = line.value.removeprefix("-")
        path = expand_specifiers(path, files.unit, files.host_name, line.place)
        if path.startswith("/"):
            service.files.append((path, line.value.startswith("-"), line.place))
        else:
            service.ignored.append(
                Notice(line.place, f"{path!r} is not an absolute path, so systemd ignores it")
            )
    elif line.key == "ExecStart":
        if line.value:
            service.commands.append(line)
        else:
            service.commands.clear()
    elif line.key == "UnsetEnvironment":
        names = [word.partition("=")[0] for word in line.value.split()]
        service.unset = [*service.unset, *names] if names else []
    elif line.key in {"RootDirectory", "RootImage"} and line.value not in {"", "/"}:
        raise NotUnderstood(
            line.place,
            f"with {line.key}= etcd's paths begin in {line.value}, and are not the host's; take it "
            "out",
        )
    elif line.key == "PassEnvironment" and "ETCD_" in line.value:
        raise NotUnderstood(
            line.place,
            "what systemd's own environment gives to etcd cannot be told; set it in Environment=",
        )


def _take_environment(service: _Service, line: _Line, files: SettingsFiles) -> None:
    if not line.value:
        service.variables.clear()
        service.unknown.clear()
        return
    for word in _split(line):
        name = word.text.partition("=")[0]
        service.unknown.pop(name, None)
        try:
            text = expand_specifiers(word.text, files.unit, files.host_name, line.place)
        except NotUnderstood as error:  # a later one may say another value
            service.variables.pop(name, None)
            service.unknown[name] = error.notice
            continue
        if not _ASSIGNMENT.fullmatch(text):
            service.ignored.append(
                Notice(line.place, f"{text!r} is not NAME=VALUE, so systemd ignores it")
            )
            continue
        name, _, value = text.partition("=")
        slot = line.slot(word, is_command=False).within(f"{name}=")
        service.variables[name] = Given(value, line.place, (slot,))


def _split(line: _Line) -> tuple[Word, ...]:
    try:
        return split_words(line.value)
    except ValueError as error:
        raise NotUnderstood(line.place, f"{line.key}= cannot be read: {error}") from error


def _file_variables(service: _Service, files: SettingsFiles) -> dict[str, Given]:
    """Read the EnvironmentFiles; they win over Environment=, and the later over the earlier."""
    found: dict[str, Given] = {}
    for pattern, is_optional, place in service.files:
        paths = [pattern]
        if _GLOB.search(pattern):
            paths = sorted(f.path for f in files.further if fnmatchcase(f.path, pattern))
        texts = [(path, text) for path in paths if (text := files.text(path)) is not None]
        if not texts and not is_optional:
            service.faults.append(
                Notice(
                    place,
                    f"there is no {pattern}, without which the unit does not start",
                    is_fatal=True,
                )
            )
        for path, text in texts:
            read = read_environment(path, text)
            service.faults += read.faults
            service.ignored += read.skipped
            found |= read.variables
    return found


def _read_command(
    service: _Service, files: SettingsFiles, variables: dict[str, Given]
) -> tuple[tuple[Given, ...], dict[str, Given]]:
    if not service.commands:
        place = Place(files.units[0].path if files.units else files.unit)
        raise NotUnderstood(place, "it has no ExecStart=, so nothing would start")
    line = service.commands[-1]
    if len(service.commands) > 1:
        raise NotUnderstood(line.place, "there is more than one ExecStart=; leave one")
    words = [
        Given(
            expand_specifiers(word.text, files.unit, files.host_name, line.place),
            line.place,
            (line.slot(word, is_command=True),),
        )
        for word in _split(line)
    ]
    if any(word.text == ";" for word in words):
        raise NotUnderstood(line.place, "ExecStart= has more than one command; leave one")
    program = words[0].text
    prefixes = program[: len(program) - len(program.lstrip(_PREFIXES))]
    words[0] = Given(program[len(prefixes) :], line.place)
    if "@" in prefixes:
        del words[1:2]
    if is_shell(tuple(words)):
        return read_command(tuple(words), variables)
    if ":" in prefixes:
        return tuple(words), {}
    expanded = [part for word in words[1:] for part in expand_word(word, variables)]
    return (words[0], *expanded), {}
