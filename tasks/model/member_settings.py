"""Etcd's settings by its own flag names, and where each was written.

Owns Go's rules for values. Knows the syntax of no file: reading and editing are in
`tasks/config/settings.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# strconv.ParseBool, time.ParseDuration and strconv.ParseUint with base 0.
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_PART = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"([+-]?)(0|({_PART})+)")
_NUMBER = re.compile(r"[+-]?(0[xX]_?[0-9a-fA-F]+|0[bB]_?[01]+|0[oO]?_?[0-7]+|0|[1-9][0-9]*)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60, "h": 3600}


PEER_ADDRESSES = ("initial-advertise-peer-urls", "listen-peer-urls")
CLIENT_ADDRESSES = (
    "advertise-client-urls",
    "listen-client-urls",
    "listen-client-http-urls",
    "listen-metrics-urls",
)
"""The settings that hold a member's own addresses."""


def variable_name(flag: str) -> str:
    """Make the variable of a flag: etcd's pkg/flags FlagToEnv."""
    return f"ETCD_{flag.upper().replace('-', '_')}"


def flag_name(variable: str) -> str:
    """Make the flag of a variable that begins with ETCD_."""
    return variable.removeprefix("ETCD_").lower().replace("_", "-")


def parse_boolean(value: str) -> bool:
    """Read a value as Go reads a boolean flag; raises ValueError for what it refuses."""
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def parse_seconds(value: str) -> float:
    """Read a duration such as 1h30m as Go does; raises ValueError for what it refuses."""
    found = _DURATION.fullmatch(value)
    if found is None:
        raise ValueError(f"{value!r} is not a duration such as 5s")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, found[2]))
    return -seconds if found[1] == "-" else float(seconds)


def parse_number(value: str) -> int:
    """Read a whole number as Go reads one, 0x10 and 010 included; raises ValueError."""
    bare = re.sub(r"(?<=[0-9a-fA-F])_(?=[0-9a-fA-F])", "", value)
    if not _NUMBER.fullmatch(bare):
        raise ValueError(f"{value!r} is not a number")
    bare = re.sub(r"^([+-]?)0[oO]?([0-7]+)$", r"\g<1>0o\2", bare)
    return int(bare, 0)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something is written: a file and its line from 1; without one, a process."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting with the value that etcd takes."""

    name: str
    value: str
    place: Place


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to be said of a place; the sentence goes on from "FILE:LINE: ".

    `is_fatal`: the member would not start because of it.
    """

    place: Place
    sentence: str
    is_fatal: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class Settings(Mapping[str, Setting]):
    """The settings that count, by flag name; one that is given as empty is not among them.

    `faults` say why the settings are not all known: what could not be understood, or would end
    the member before it has read them; `ignored` what systemd or etcd passes over; `shadowed` the
    variables beside a flag of the same setting, with which etcd ends from 3.4 on.
    """

    found: Mapping[str, Setting] = field(default_factory=dict)
    program: str = ""
    faults: tuple[Notice, ...] = ()
    ignored: tuple[Notice, ...] = ()
    shadowed: tuple[Notice, ...] = ()

    def __getitem__(self, name: str) -> Setting:
        return self.found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def value(self, name: str, otherwise: str = "") -> str:
        """Get a value, or what etcd takes without one."""
        return self.found[name].value if name in self.found else otherwise

    def split(self, name: str) -> tuple[str, ...]:
        """Get the parts of a list."""
        return tuple(part.strip() for part in self.value(name).split(",") if part.strip())

    def is_on(self, name: str, *, otherwise: bool = False) -> bool:
        """Whether a switch is on; a value that etcd would refuse is off."""
        try:
            return parse_boolean(self.value(name, str(otherwise)))
        except ValueError:
            return False

    @property
    def begins_nothing(self) -> bool:
        """Whether the member ends at once without its data.

        It names itself alone, and a cluster that exists. With the state `new` it begins an empty
        one; with all members named it asks those, and votes with an empty log.
        """
        named = [each.partition("=")[0] for each in self.split("initial-cluster")]
        return named == [self.value("name")] and self.value("initial-cluster-state") == "existing"

    def place(self, name: str) -> str:
        """Say where a setting is written."""
        return str(self.found[name].place)

    def paths(self) -> tuple[str, ...]:
        """List the files and directories that must be there before the member starts again."""
        named = [n for n in self.found if n.endswith("-file") or n == "data-dir"]
        return tuple(v for name in named if (v := self.value(name)).startswith("/"))

    def variables(self) -> dict[str, str]:
        """Make them variables, as etcd would take the same from its environment."""
        return {variable_name(name): setting.value for name, setting in self.found.items()}


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file of a host: its name, its text, its mode in octal, and whose it is."""

    path: str
    text: str
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True, slots=True)
class SettingsFiles:
    """All files of a host that say how its member starts, as they are.

    `unit` is the service's name; `units` are its file and drop-ins in the order in which systemd
    reads them, `further` what those name and what could be read. A static pod has a `manifest`
    instead.
    """

    unit: str
    host_name: str
    units: tuple[TextFile, ...]
    further: tuple[TextFile, ...] = ()
    manifest: TextFile | None = None

    @property
    def files(self) -> tuple[TextFile, ...]:
        """All of them."""
        return (*((self.manifest,) if self.manifest else ()), *self.units, *self.further)

    def text(self, path: str) -> str | None:
        """Get a file's text; None for one that is not there."""
        return next((f.text for f in self.files if f.path == path), None)
