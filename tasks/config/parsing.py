"""Reads etcd.conf as systemd does, and tells whether it is this cluster's.

Owns the syntax of systemd's EnvironmentFile. Stricter than systemd, which skips a line that it
does not understand: what is not read here would be lost when the file is written anew.
"""

from __future__ import annotations

import re

from tasks.config.rendering import InitialState

REQUIRED = tuple(
    f"ETCD_{name}"
    for name in (
        "NAME DATA_DIR LISTEN_PEER_URLS LISTEN_CLIENT_URLS INITIAL_ADVERTISE_PEER_URLS "
        "ADVERTISE_CLIENT_URLS INITIAL_CLUSTER INITIAL_CLUSTER_STATE INITIAL_CLUSTER_TOKEN "
        "STRICT_RECONFIG_CHECK CERT_FILE KEY_FILE CLIENT_CERT_AUTH TRUSTED_CA_FILE "
        "PEER_CERT_FILE PEER_KEY_FILE PEER_CLIENT_CERT_AUTH PEER_TRUSTED_CA_FILE "
        "HEARTBEAT_INTERVAL ELECTION_TIMEOUT"
    ).split()
)
IDENTITY = ("ETCD_NAME", "ETCD_DATA_DIR", "ETCD_INITIAL_CLUSTER_TOKEN", "ETCD_INITIAL_CLUSTER")

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BLANKS = " \t"
_ESCAPABLE = '"\\`$'


class _Reader:
    """A position in the text, and the number of its line from 1."""

    def __init__(self, text: str) -> None:
        # systemd ends a line at a carriage return too.
        self._text = text.replace("\r\n", "\n").replace("\r", "\n")
        self._position = 0

    @property
    def line(self) -> int:
        return self._text.count("\n", 0, self._position) + 1

    @property
    def is_at_end(self) -> bool:
        return self._position >= len(self._text)

    def peek(self) -> str:
        """Get the next character; the end of the text counts as the end of a line."""
        return "\n" if self.is_at_end else self._text[self._position]

    def take(self) -> str:
        character = self.peek()
        self._position += 1
        return character

    def take_line(self) -> str:
        start = self._position
        while self.take() != "\n":
            pass
        return self._text[start : self._position].rstrip("\n")


def parse_configuration(text: str) -> dict[str, str]:
    """Read an EnvironmentFile: comments (# ;), quotes, backslash continuation; the last one wins.

    Raises ValueError with the line's number for a line without "=", a name that is none, a quote
    that is not closed, and a comment that ends in a backslash, which systemd before 254 takes to
    go on in the next line. Source: systemd.exec(5), EnvironmentFile=, and src/basic/env-file.c.
    """
    reader = _Reader(text)
    found: dict[str, str] = {}
    while not reader.is_at_end:
        line = reader.line
        if reader.peek() in "\n \t":
            reader.take()
        elif reader.peek() in "#;":
            if reader.take_line().endswith("\\"):
                raise ValueError(f"line {line}: a comment ends in a backslash")
        else:
            key = _read_key(reader, line)
            found[key] = _read_value(reader, line)
    return found


def _read_key(reader: _Reader, line: int) -> str:
    key = ""
    while reader.peek() not in "=\n":
        key += reader.take()
    if reader.peek() == "\n":
        raise ValueError(f"line {line}: {key!r} has no '='")
    reader.take()
    key = key.rstrip(_BLANKS)
    if not _KEY.fullmatch(key):
        raise ValueError(f"line {line}: {key!r} is not the name of a variable")
    return key


def _read_value(reader: _Reader, line: int) -> str:
    """Read quoted parts, which follow each other, and then an unquoted one to the line's end."""
    value = ""
    while True:
        character = reader.take()
        if character in _BLANKS:
            continue
        if character == "\n":
            break
        if character in "'\"":
            value += _read_quoted(reader, character, line)
        else:
            value += _read_bare(reader, character)
            break
    if "\0" in value:
        raise ValueError(f"line {line}: a value has a zero byte")
    return value


def _read_bare(reader: _Reader, character: str) -> str:
    """Read to the line's end, blanks before it left out; an escaped character stays."""
    value, kept = "", 0
    while character != "\n":
        if character == "\\":
            if reader.is_at_end:
                break
            escaped = reader.take()
            value += "" if escaped == "\n" else escaped
            kept = len(value)
        else:
            value += character
            kept = kept if character in _BLANKS else len(value)
        character = reader.take()
    return value[:kept]


def _read_quoted(reader: _Reader, quote: str, line: int) -> str:
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
    raise ValueError(f"line {line}: a quote ({quote}) is not closed")


def validate_configuration(text: str) -> None:
    """Read a rendered etcd.conf back; raises ValueError for what etcd would not start with."""
    found = parse_configuration(text)
    if missing := [key for key in REQUIRED if not found.get(key)]:
        raise ValueError(f"etcd.conf lacks {', '.join(missing)}")
    state = found["ETCD_INITIAL_CLUSTER_STATE"]
    if state not in set(InitialState):
        raise ValueError(f"ETCD_INITIAL_CLUSTER_STATE is {state!r}; it is new or existing")
    names = {part.partition("=")[0] for part in found["ETCD_INITIAL_CLUSTER"].split(",")}
    if found["ETCD_NAME"] not in names:
        raise ValueError(f"ETCD_INITIAL_CLUSTER lacks the member {found['ETCD_NAME']} itself")


def identity(text: str | None, wanted_text: str) -> dict[str, tuple[str | None, str | None]]:
    """Compare what tells whose etcd.conf this is: variable -> (as it is, as it should be).

    `text` is what the host has; without it, or when it cannot be read, all is None on that side.
    The initial cluster is a set: both sides are sorted. Raises ValueError for a `wanted_text`
    that cannot be read.
    """
    wanted = parse_configuration(wanted_text)
    try:
        found = parse_configuration(text) if text is not None else {}
    except ValueError:
        found = {}
    return {key: (_normalised(key, found), _normalised(key, wanted)) for key in IDENTITY}


def _normalised(key: str, variables: dict[str, str]) -> str | None:
    value = variables.get(key)
    if value is None or key != "ETCD_INITIAL_CLUSTER":
        return value
    return ",".join(sorted({part.strip() for part in value.split(",") if part.strip()}))
