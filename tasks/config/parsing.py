"""The etcd.conf that the runbooks write: whole before it is written, and whose a present one is."""

from __future__ import annotations

from tasks.config.environment import read_environment
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


def parse_configuration(text: str) -> dict[str, str]:
    """Read an etcd.conf as systemd does, which skips what is no assignment; the last one wins.

    Raises ValueError with the line's number for what cannot be read for certain.
    """
    read = read_environment("", text)
    for fault in read.faults:
        raise ValueError(f"line {fault.place.line}: {fault.sentence}")
    return {name: given.text for name, given in read.variables.items()}


def validate_configuration(text: str) -> None:
    """Read a rendered etcd.conf back; raises ValueError for what etcd would not start with."""
    for skipped in read_environment("", text).skipped:
        raise ValueError(f"line {skipped.place.line}: {skipped.sentence}")
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
