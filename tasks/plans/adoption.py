"""Adoption: from what runs on the hosts to the inventory that says so; nothing is changed.

Refuses what the other runbooks could not work with, and finds what they would change.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from tasks.model.adoption import FoundEtcd
from tasks.model.certificates import Role
from tasks.model.errors import Refused
from tasks.model.fields import HOST_PLACE
from tasks.model.inventory import CLIENT_PORT, PEER_PORT
from tasks.model.pointers import parameter
from tasks.model.settings import ENGINE_SETTINGS

_NUMBERS = {
    "heartbeat_interval_ms": "HEARTBEAT_INTERVAL",
    "election_timeout_ms": "ELECTION_TIMEOUT",
    "snapshot_count": "SNAPSHOT_COUNT",
    "quota_backend_bytes": "QUOTA_BACKEND_BYTES",
}
_TEXTS = {
    "auto_compaction_mode": "AUTO_COMPACTION_MODE",
    "auto_compaction_retention": "AUTO_COMPACTION_RETENTION",
    "log_level": "LOG_LEVEL",
}
_FILES = ("CERT_FILE", "KEY_FILE", "PEER_CERT_FILE", "PEER_KEY_FILE", "TRUSTED_CA_FILE")


def adopt(
    name: str, found: tuple[FoundEtcd, ...], addresses: dict[str, str], ssh: dict[str, Any]
) -> dict[str, Any]:
    """Write the inventory's content for what was found; `addresses` is where SSH goes, by host.

    Raises Refused that lists all that keeps the runbooks from working with this cluster.
    """
    if reasons := _reasons_against(found):
        raise Refused(f"{name} cannot be adopted:\n  - " + "\n  - ".join(reasons))
    first = found[0]
    data = PurePosixPath(first.setting("DATA_DIR"))
    holds_default = data.name == "default.etcd"
    paths: dict[str, Any] = {
        "certificates": str(PurePosixPath(first.setting("CERT_FILE")).parent),
        "trusted": first.setting("TRUSTED_CA_FILE"),
        "state": str(data.parent if holds_default else data),
        "unit": first.unit_path,
        "binaries": str(PurePosixPath(first.program).parent),
        "pairs": _pairs(found),
    }
    if not holds_default:
        paths["data_directory"] = str(data)
    if first.environment_file:
        paths["configuration"] = first.environment_file
    return {
        "name": name,
        "topology": "external",
        "hosts": [_host(one, addresses[one.host]) for one in found],
        "even_members": len(found) % 2 == 0,
        "ssh": ssh,
        "etcd": {
            "version": first.version,
            "binaries": {"source": "installed"},
            "run_as": first.account,
            "cluster_token": first.setting("INITIAL_CLUSTER_TOKEN", "etcd-cluster"),
            "settings": _settings(first),
        },
        "paths": paths,
        "authority": {
            "certificate": f"{name}-authority/ca.pem",
            "key": f"{name}-authority/ca-key.pem",
            "passphrase": {"env": "ETCD_CA_PASSPHRASE"},
        },
    }


def find_remarks(found: tuple[FoundEtcd, ...]) -> tuple[str, ...]:
    """List what the operator should know of what was found, and what could not be seen."""
    remarks = []
    for one in found:
        remarks += [
            f"{one.name}: the authority's key lies at {key}: whoever reads it can sign; put it "
            "where authority.key says, encrypted, and move it off the host"
            for key in one.keys_of_authority
        ]
        remarks += [
            f"{one.name}: etcd listens on {url} without TLS"
            for name in ("LISTEN_CLIENT_URLS", "LISTEN_PEER_URLS")
            for url in one.setting(name).split(",")
            if url.startswith("http://")
        ]
        if one.setting("STRICT_RECONFIG_CHECK", "true") != "true":
            remarks.append(f"{one.name}: strict-reconfig-check is off, which can cost the quorum")
        for name in ("CLIENT_CERT_AUTH", "PEER_CLIENT_CERT_AUTH"):
            if one.setting(name, "false") != "true":
                remarks.append(f"{one.name}: {_flag(name)} is off")
        if not one.is_running:
            remarks.append(f"{one.name}: etcd does not run; its unit was read instead")
        elif one.members is None:
            said = f" ({'; '.join(one.told)})" if one.told else ""
            remarks.append(f"{one.name}: the member list could not be read{said}")
    return tuple(remarks)


def _reasons_against(found: tuple[FoundEtcd, ...]) -> list[str]:
    reasons = []
    for one in found:
        reasons += [f"{one.name}: its settings cannot be read: {what}" for what in one.unknown]
        if one.unknown:
            continue
        if one.setting("NAME", "default") == "default":
            reasons.append(f"{one.name}: its member has no name of its own (--name)")
        reasons += [
            f"{one.name}: {_flag(name)} is not set; only clusters with mutual TLS are managed"
            for name in _FILES
            if not one.setting(name)
        ]
        for name, port in (
            ("INITIAL_ADVERTISE_PEER_URLS", PEER_PORT),
            ("ADVERTISE_CLIENT_URLS", CLIENT_PORT),
        ):
            url = urlsplit(one.setting(name).split(",")[0])
            if url.scheme != "https" or url.port != port:
                reasons.append(f"{one.name}: {_flag(name)} is not https on port {port}")
        peers = one.setting("PEER_TRUSTED_CA_FILE", one.setting("TRUSTED_CA_FILE"))
        if peers != one.setting("TRUSTED_CA_FILE"):
            reasons.append(
                f"{one.name}: clients and peers have different authorities; the runbooks know one"
            )
        if not one.setting("DATA_DIR"):
            reasons.append(f"{one.name}: --data-dir is not set")
    same: tuple[tuple[str, Callable[[FoundEtcd], object]], ...] = (
        ("version", lambda one: one.version),
        ("data directory", lambda one: one.setting("DATA_DIR")),
        ("trusted file", lambda one: one.setting("TRUSTED_CA_FILE")),
        ("cluster token", lambda one: one.setting("INITIAL_CLUSTER_TOKEN", "etcd-cluster")),
        ("account", lambda one: one.account),
        ("unit", lambda one: one.unit_path),
    )
    for what, get in same:
        if len(values := {str(get(one)) for one in found}) > 1:
            reasons.append(f"the hosts differ in their {what}: {', '.join(sorted(values))}")
    return reasons + _missing_members(found)


def _missing_members(found: tuple[FoundEtcd, ...]) -> list[str]:
    names = {one.setting("NAME") for one in found}
    listed = {m.name: m for one in found for m in one.members or ()}
    missing = [
        f"the member {name or 'that has not started'} ({', '.join(member.peer_urls)}) is in the "
        "member list, but its host was not named; name every host in "
        + parameter(hosts=("HOST", "..."))
        for name, member in listed.items()
        if name not in names
    ]
    if listed:
        missing += [
            f"{name} is not in the member list: is it another cluster's?"
            for name in sorted(names - set(listed))
        ]
    return missing


def _host(one: FoundEtcd, address: str) -> dict[str, Any]:
    host = {"name": one.setting("NAME"), "address": address}
    for field, name in (
        ("peer_address", "INITIAL_ADVERTISE_PEER_URLS"),
        ("client_address", "ADVERTISE_CLIENT_URLS"),
    ):
        found = urlsplit(one.setting(name).split(",")[0]).hostname or ""
        if found != address:
            host[field] = found
    return host


def _pairs(found: tuple[FoundEtcd, ...]) -> dict[str, dict[str, str]]:
    return {
        str(role): {
            "certificate": _template(found, certificate),
            "key": _template(found, key),
        }
        for role, certificate, key in (
            (Role.SERVER, _of("CERT_FILE"), _of("KEY_FILE")),
            (Role.PEER, _of("PEER_CERT_FILE"), _of("PEER_KEY_FILE")),
            (Role.CLIENT, lambda one: _client(one)[0], lambda one: _client(one)[1]),
        )
    }


def _of(name: str) -> Callable[[FoundEtcd], str]:
    return lambda one: one.setting(name)


def _client(one: FoundEtcd) -> tuple[str, str]:
    """Find the operators' pair beside the server's, by the names that are in use, or take that."""
    directory, name = PurePosixPath(one.setting("CERT_FILE")).parent, one.setting("NAME")
    for stem in ("client", f"admin-{name}"):
        certificate, key = f"{directory / stem}.pem", f"{directory / stem}-key.pem"
        if {certificate, key} <= set(one.files_beside):
            return certificate, key
    return one.setting("CERT_FILE"), one.setting("KEY_FILE")


def _template(found: tuple[FoundEtcd, ...], get: Callable[[FoundEtcd], str]) -> str:
    paths = {get(one) for one in found}
    if len(paths) == 1:
        return paths.pop()
    templates = {get(one).replace(one.setting("NAME"), HOST_PLACE) for one in found}
    if len(templates) > 1:
        raise Refused(
            f"the hosts keep the same certificate under names that do not follow the members': "
            f"{', '.join(sorted(paths))}"
        )
    return templates.pop()


def _settings(one: FoundEtcd) -> dict[str, Any]:
    settings: dict[str, Any] = {
        field: int(one.setting(name)) for field, name in _NUMBERS.items() if one.setting(name)
    }
    settings |= {field: one.setting(name) for field, name in _TEXTS.items() if one.setting(name)}
    if urls := one.setting("LISTEN_METRICS_URLS"):
        settings["listen_metrics_urls"] = urls.split(",")
    further = {
        name: value for name, value in one.settings.items() if name not in ENGINE_SETTINGS and value
    }
    if further:
        settings["environment"] = further
    return settings


def _flag(name: str) -> str:
    return f"--{name.lower().replace('_', '-')}"
