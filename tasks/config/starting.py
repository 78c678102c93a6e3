"""Whether etcd of a version would start with these variables; etcd itself is not asked.

Knows what is cheap to know for certain: the syntax of values, refused values, and what a version
passes over. Says nothing of what it does not know.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.config.compatibility import find_misfit

_DURATION = re.compile(
    r"[+-]?(0|(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*)"
)
_NUMBER = re.compile(r"[+-]?(0[xX][0-9a-fA-F_]+|0[bBoO]?[0-7_]*|[1-9][0-9_]*)")
_BOOLEANS = frozenset(
    {"1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"}
)


def _names(text: str) -> frozenset[str]:
    return frozenset(f"ETCD_{name}" for name in text.split())


_NUMBERS = _names(
    "HEARTBEAT_INTERVAL ELECTION_TIMEOUT SNAPSHOT_COUNT MAX_SNAPSHOTS MAX_WALS QUOTA_BACKEND_BYTES "
    "MAX_TXN_OPS MAX_REQUEST_BYTES MAX_CONCURRENT_STREAMS"
)
_SWITCHES = _names(
    "CLIENT_CERT_AUTH PEER_CLIENT_CERT_AUTH AUTO_TLS PEER_AUTO_TLS STRICT_RECONFIG_CHECK PRE_VOTE "
    "INITIAL_ELECTION_TICK_ADVANCE ENABLE_PPROF FORCE_NEW_CLUSTER"
)
_DURATIONS = _names(
    "GRPC_KEEPALIVE_MIN_TIME GRPC_KEEPALIVE_INTERVAL GRPC_KEEPALIVE_TIMEOUT BACKEND_BATCH_INTERVAL"
)
_URLS = _names(
    "LISTEN_PEER_URLS LISTEN_CLIENT_URLS INITIAL_ADVERTISE_PEER_URLS ADVERTISE_CLIENT_URLS "
    "LISTEN_METRICS_URLS"
)
_CHOICES = {
    "ETCD_LOG_LEVEL": frozenset("debug info warn error dpanic panic fatal".split()),
    "ETCD_AUTO_COMPACTION_MODE": frozenset({"periodic", "revision"}),
    "ETCD_INITIAL_CLUSTER_STATE": frozenset({"new", "existing"}),
}
_LEAST_RATIO = 5
_IGNORED = "is ignored: "


def find_start_faults(
    variables: dict[str, str], version: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """List why etcd would not start with these variables, and which of them it would ignore.

    Without a version only the syntax is judged.
    """
    # An empty variable is one that is not set.
    given = {name: value for name, value in variables.items() if value != ""}
    faults = [
        f"{name} is {value!r}, {wanted}"
        for name, value in given.items()
        if (wanted := _expected(name, value)) is not None
    ]
    if not faults:
        faults += _timing_faults(given)
    ignored: list[str] = []
    if version is not None:
        major, minor = map(int, version.split(".")[:2])
        for name, value in given.items():
            if (misfit := find_misfit(name, value, (major, minor))) is None:
                continue
            reason, is_fatal = misfit
            if is_fatal or reason.startswith(_IGNORED):
                (faults if is_fatal else ignored).append(f"in etcd {version} {name} {reason}")
    return tuple(faults), tuple(ignored)


def find_refused_flags(arguments: tuple[str, ...], version: str | None) -> tuple[str, ...]:
    """List the flags that a version does not know: etcd passes over a variable, and ends here."""
    return tuple(
        f"etcd {version} does not know --{name}: {why}"
        for name, value in _flags(arguments)
        if (why := _unknown(name, value, version))
    )


def find_dropped_keys(path: str, text: str, version: str | None) -> tuple[str, ...]:
    """List the keys of a `--config-file` that a version drops without a word."""
    try:
        keys = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return ()
    return tuple(
        f"etcd {version} drops {name} of {path}: {why}"
        for name, value in (keys.items() if isinstance(keys, dict) else ())
        if (why := _unknown(str(name), str(value), version))
    )


def _flags(arguments: tuple[str, ...]) -> list[tuple[str, str]]:
    flags = [argument.lstrip("-") for argument in arguments if argument.startswith("-")]
    return [(name, value) for name, _, value in (flag.partition("=") for flag in flags)]


def _unknown(name: str, value: str, version: str | None) -> str | None:
    """Say why a version has no such flag or key, and its successor by the name it has there."""
    if version is None:
        return None
    major, minor = map(int, version.split(".")[:2])
    misfit = find_misfit(_variable(name), value, (major, minor))
    if misfit is None or not misfit[0].startswith(_IGNORED):
        return None
    why = misfit[0].removeprefix(_IGNORED)
    return re.sub(r"ETCD_([A-Z_]+)", lambda found: found[1].lower().replace("_", "-"), why)


def _variable(name: str) -> str:
    return f"ETCD_{name.upper().replace('-', '_')}"


def _expected(name: str, value: str) -> str | None:
    """Say what a value should be; None where nothing is wrong with it."""
    if name in _NUMBERS and not _NUMBER.fullmatch(value):
        return "not a number"
    if name in _SWITCHES and value not in _BOOLEANS:
        return "neither true nor false"
    if name in _DURATIONS and not _DURATION.fullmatch(value):
        return "not a duration such as 5s"
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
