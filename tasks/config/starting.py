"""Whether etcd of a version would start with these variables; etcd itself is not asked.

Knows what is cheap to know for certain: the syntax of values, refused values, and what a version
passes over. Says nothing of what it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from tasks.config.compatibility import find_misfit
from tasks.config.config_file import read_config_file
from tasks.config.flags import BOOLEANS, DURATIONS, NUMBERS, find_shadowed, read_flags
from tasks.config.launch import Given
from tasks.model.member_settings import (
    Place,
    flag_name,
    parse_boolean,
    parse_number,
    parse_seconds,
    variable_name,
)


def _names(text: str) -> frozenset[str]:
    return frozenset(f"ETCD_{name}" for name in text.split())


_URLS = _names(
    "LISTEN_PEER_URLS LISTEN_CLIENT_URLS INITIAL_ADVERTISE_PEER_URLS ADVERTISE_CLIENT_URLS "
    "LISTEN_METRICS_URLS"
)
_CHOICES = {
    "ETCD_LOG_LEVEL": frozenset("debug info warn error dpanic panic fatal".split()),
    "ETCD_AUTO_COMPACTION_MODE": frozenset({"periodic", "revision"}),
    "ETCD_INITIAL_CLUSTER_STATE": frozenset({"new", "existing"}),
}
_AS_WITHOUT = {"ETCD_PROXY": "off", "ETCD_ENABLE_V2": "false"}
"""Variables that versions pass over, and the value that asked for what they do anyway."""
_LEAST_RATIO = 5
_IGNORED = "is ignored: "


def find_start_faults(
    variables: dict[str, str], version: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """List why etcd would not start with these variables, and which of them it would ignore.

    Without a version only the syntax is judged.
    """
    faults: list[str] = []
    ignored: list[str] = []
    for name, value in variables.items():
        # An empty variable is one that is not set.
        if value in ("", _AS_WITHOUT.get(name)):
            continue
        reason, is_fatal = _find_misfit(name, value, version)
        if reason and (is_fatal or reason.startswith(_IGNORED)):
            (faults if is_fatal else ignored).append(f"in etcd {version} {name} {reason}")
        if not reason.startswith(_IGNORED) and (wanted := _expected(name, value)) is not None:
            faults.append(f"{name} is {value!r}, {wanted}")
    return tuple(faults or _timing_faults(variables)), tuple(ignored)


def find_refused_flags(
    arguments: tuple[str, ...], variables: dict[str, str], version: str | None
) -> tuple[str, ...]:
    """List why etcd would end because of its flags: unknown to a version, a bad value, shadowed.

    A variable that a version does not know is passed over, and a flag is not; both for the same
    setting end it. Arguments with a $VARIABLE are left out.
    """
    place = Place("the unit")
    words = [Given(word, place) for word in arguments if not word.startswith("$")]
    flags, _ = read_flags(words)
    shadowing = find_shadowed(flags, {name: Given("", place) for name in variables})
    return (
        *(
            f"etcd {version} does not know --{name}: {why}"
            for name, given in flags.items()
            if (why := _unknown(name, given.text, version))
        ),
        *(
            f"--{name} is {given.text!r}, {wanted}"
            for name, given in flags.items()
            if given.text and "$" not in given.text
            if (wanted := _expected(variable_name(name), given.text))
        ),
        *(notice.sentence for notice in shadowing),
    )


def judge_config_file(
    path: str, text: str, version: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """List why etcd would not start with a `--config-file`, and the keys that it drops silently."""
    found, read = read_config_file(path, text)
    dropped = tuple(
        f"etcd {version} drops {name} of {path}: {why}"
        for name, given in found.items()
        if (why := _unknown(name, given.text, version))
    )
    return tuple(map(str, read.faults)), dropped


def _find_misfit(name: str, value: str, version: str | None) -> tuple[str, bool]:
    if version is None:
        return "", False
    major, minor = map(int, version.split(".")[:2])
    return find_misfit(name, value, (major, minor)) or ("", False)


def _unknown(name: str, value: str, version: str | None) -> str | None:
    """Say why a version has no such flag or key, and its successor by the name it has there."""
    reason, _ = _find_misfit(variable_name(name), value, version)
    if not reason.startswith(_IGNORED):
        return None
    why = reason.removeprefix(_IGNORED)
    return re.sub(r"ETCD_([A-Z_]+)", lambda found: flag_name(found[0]), why)


def _expected(name: str, value: str) -> str | None:
    """Say what a value should be; None where nothing is wrong with it."""
    flag = flag_name(name)
    kinds: tuple[tuple[bool, Callable[[str], object], str], ...] = (
        (flag in NUMBERS, parse_number, "not a number"),
        (flag in BOOLEANS, parse_boolean, "neither true nor false"),
        (flag in DURATIONS, parse_seconds, "not a duration such as 5s"),
    )
    for is_kind, parse, wanted in kinds:
        if is_kind:
            try:
                parse(value)
            except ValueError:
                return wanted
    if name in _CHOICES and value not in _CHOICES[name]:
        return f"none of {', '.join(sorted(_CHOICES[name]))}"
    if name in _URLS and not all(map(_is_url, value.split(","))):
        return "not a URL such as https://10.0.0.1:2379"
    return None


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text.strip())
        has_port = parts.port is not None
    except ValueError:
        return False
    is_web = parts.scheme in {"http", "https"} and has_port and not parts.path
    return is_web or parts.scheme in {"unix", "unixs"}


def _timing_faults(variables: dict[str, str]) -> list[str]:
    values = (
        variables.get("ETCD_HEARTBEAT_INTERVAL", "100"),
        variables.get("ETCD_ELECTION_TIMEOUT", "1000"),
    )
    if not all(re.fullmatch(r"[1-9][0-9]*", value) for value in values):
        return []
    heartbeat, election = map(int, values)
    if election >= _LEAST_RATIO * heartbeat:
        return []
    return [
        f"ETCD_ELECTION_TIMEOUT is {election}, less than {_LEAST_RATIO} times "
        f"ETCD_HEARTBEAT_INTERVAL ({heartbeat})"
    ]
