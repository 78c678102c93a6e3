"""Adoption: from what runs on the hosts to the inventory that says so; nothing is changed.

Refuses what the other runbooks could not work with, and finds what they would change.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from tasks.model.adoption import FoundEtcd, FoundPair
from tasks.model.certificates import Role
from tasks.model.errors import Refused
from tasks.model.fields import ADDRESS_PLACE, is_ip_address
from tasks.model.layout import Paths
from tasks.model.settings import ENGINE_SETTINGS
from tasks.plans.adopted_files import (
    Named,
    adopted_directories,
    adopted_pairs,
    common,
    find_url,
    name_hosts,
    own_addresses,
)
from tasks.plans.adopted_policy import adopted_authority, adopted_certificates
from tasks.plans.adopted_reasons import URLS, reasons_against

_NUMBERS = {
    "heartbeat_interval_ms": "ETCD_HEARTBEAT_INTERVAL",
    "election_timeout_ms": "ETCD_ELECTION_TIMEOUT",
    "snapshot_count": "ETCD_SNAPSHOT_COUNT",
    "quota_backend_bytes": "ETCD_QUOTA_BACKEND_BYTES",
}
_TEXTS = {
    "auto_compaction_mode": "ETCD_AUTO_COMPACTION_MODE",
    "auto_compaction_retention": "ETCD_AUTO_COMPACTION_RETENTION",
    "log_level": "ETCD_LOG_LEVEL",
}
METRICS = "ETCD_LISTEN_METRICS_URLS"
NO_SETTINGS = ENGINE_SETTINGS | {"ETCD_CONFIG_FILE"}
"""What is no further setting of etcd's: with a settings file it passes over all variables."""
ENGINE_ONLY = NO_SETTINGS - {METRICS, *_NUMBERS.values(), *_TEXTS.values()}
"""What other fields of the inventory say, or what the runbooks set themselves."""


def adopt(
    name: str,
    found: tuple[FoundEtcd, ...],
    addresses: dict[str, str],
    ssh: dict[str, Any],
    given: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Write the inventory's content for what was found; `addresses` is where SSH goes, by host.

    The operator has `given` the names of these hosts. Raises Refused that lists all that keeps the
    runbooks from working with this cluster.
    """
    hosts = name_hosts(found, given)
    reasons = reasons_against(found)
    directories, own, problems = adopted_directories(hosts)
    if reasons or problems:
        listed = "\n  - ".join([*reasons, *problems])
        raise Refused(f"{name} cannot be adopted:\n  - {listed}")
    first = found[0]
    pairs, own_pairs = adopted_pairs(hosts)
    for each, files in own_pairs.items():
        own.setdefault(each, {})["pairs"] = files
    at = {host.name: addresses[host.found.host] for host in hosts}
    paths: dict[str, Any] = {
        "trusted": first.setting("TRUSTED_CA_FILE"),
        "pairs": pairs,
        **directories,
    }
    peers = first.setting("PEER_TRUSTED_CA_FILE")
    if peers not in ("", paths["trusted"]):
        paths["peer_trusted"] = peers
    if first.manifest:
        return _stacked(name, hosts, at, own, ssh, paths)
    paths |= {
        "certificates": str(PurePosixPath(first.setting("CERT_FILE")).parent),
        "unit": first.unit_path,
        "binaries": str(PurePosixPath(first.program).parent),
    }
    if first.environment_file:
        paths["configuration"] = first.environment_file
    policies, own_policies = adopted_certificates(hosts, at)
    for each, policy in own_policies.items():
        own.setdefault(each, {})["certificates"] = policy
    if authority := adopted_authority(first.authority):
        policies["authority"] = authority
    return {
        "name": name,
        "topology": "external",
        "hosts": [_host(hosts, host, at) | own.get(host.name, {}) for host in hosts],
        "even_members": len(found) % 2 == 0,
        "ssh": ssh,
        "etcd": {
            "version": first.version,
            "binaries": {"source": "installed"},
            "run_as": first.account,
            **{f"{kind}_port": _port(hosts, kind) for kind in URLS},
            "cluster_token": first.setting("INITIAL_CLUSTER_TOKEN", "etcd-cluster"),
            "settings": _settings(hosts),
        },
        "paths": paths,
        "certificates": policies,
        "authority": {
            "certificate": f"{name}-authority/ca.pem",
            "key": f"{name}-authority/ca-key.pem",
            "passphrase": {"env": "ETCD_CA_PASSPHRASE"},
        },
    }


def _stacked(
    name: str,
    hosts: tuple[Named, ...],
    addresses: dict[str, str],
    own: dict[str, dict[str, Any]],
    ssh: dict[str, Any],
    paths: dict[str, Any],
) -> dict[str, Any]:
    """Write what differs from kubeadm's ways; settings and certificates are kubeadm's business."""
    first = hosts[0].found
    data = paths.get("data_directory", f"{paths['state']}/default.etcd")
    told = {key: value for key, value in paths.items() if key not in {"state", "data_directory"}}
    if data != str(Paths().state):
        told["data_directory"] = data
    return {
        "name": name,
        "topology": "stacked",
        "hosts": [_host(hosts, host, addresses) | own.get(host.name, {}) for host in hosts],
        "even_members": len(hosts) % 2 == 0,
        "ssh": ssh,
        "etcd": {
            "version": first.version,
            "run_as": first.account,
            **{f"{kind}_port": _port(hosts, kind) for kind in URLS},
        },
        "paths": {**told, "manifest": first.manifest},
    }


def _port(hosts: tuple[Named, ...], kind: str) -> int | None:
    """Get the port of most hosts; the others say theirs themselves."""
    return common(urlsplit(find_url(host.found, URLS[kind])).port for host in hosts)


def _host(hosts: tuple[Named, ...], host: Named, addresses: dict[str, str]) -> dict[str, Any]:
    address = addresses[host.name]
    content: dict[str, Any] = {"name": host.name, "address": address}
    if host.member != host.name:
        content["member"] = host.member
    for kind, name in URLS.items():
        url = urlsplit(find_url(host.found, name))
        told = url.hostname or ""
        # Where only `address` is a name, the URLs have an address that the host detects.
        if told != address or not is_ip_address(told):
            content[f"{kind}_address"] = told
        if url.port != _port(hosts, kind):
            content[f"{kind}_port"] = url.port
    return content


def find_pairs(found: FoundEtcd) -> dict[Role, FoundPair]:
    """Say which files play which role; the operators' pair is found by the names that are in use.

    Without one the server's pair is a client's, too.
    """
    files = {
        Role.SERVER: (found.setting("CERT_FILE"), found.setting("KEY_FILE")),
        Role.PEER: (found.setting("PEER_CERT_FILE"), found.setting("PEER_KEY_FILE")),
        Role.CLIENT: _client(found),
    }
    return {
        role: FoundPair(PurePosixPath(certificate), PurePosixPath(key))
        for role, (certificate, key) in files.items()
    }


def _client(one: FoundEtcd) -> tuple[str, str]:
    directory = PurePosixPath(one.setting("CERT_FILE")).parent
    if one.manifest:
        return f"{directory}/healthcheck-client.crt", f"{directory}/healthcheck-client.key"
    server = PurePosixPath(one.setting("CERT_FILE")).stem
    # kubespray's and KubeKey's: member-node1.pem goes with admin-node1.pem.
    follow = [server.replace("member-", "admin-", 1)] if server.startswith("member-") else []
    for stem in ("client", *follow, f"admin-{one.setting('NAME')}"):
        certificate, key = f"{directory / stem}.pem", f"{directory / stem}-key.pem"
        if {certificate, key} <= set(one.files_beside):
            return certificate, key
    return one.setting("CERT_FILE"), one.setting("KEY_FILE")


def _settings(hosts: tuple[Named, ...]) -> dict[str, Any]:
    """Take the settings that most hosts have; what differs is a remark."""
    names = {name for host in hosts for name in host.found.settings}
    values = {name: _most(hosts, name) for name in sorted(names)}
    kept = {name: value for name, value in values.items() if value}
    settings: dict[str, Any] = {
        field: int(value) for field, name in _NUMBERS.items() if (value := kept.get(name))
    }
    settings |= {field: value for field, name in _TEXTS.items() if (value := kept.get(name))}
    if urls := kept.get(METRICS):
        settings["listen_metrics_urls"] = urls.split(",")
    further = {name: value for name, value in kept.items() if name not in NO_SETTINGS}
    if further:
        settings["environment"] = further
    return settings


def _most(hosts: tuple[Named, ...], name: str) -> str | None:
    """Get the value that more than half of the hosts have; None where none is so common."""
    values = [setting_of(host, name) for host in hosts]
    most = common(values)
    return most if 2 * values.count(most) > len(hosts) else None


def setting_of(host: Named, name: str) -> str:
    """Get a setting; of the metrics' listeners, those at the host's own address by a template."""
    value = host.found.settings.get(name, "")
    if name != METRICS:
        return value
    for address in own_addresses(host.found):
        text = f"[{address}]" if ":" in address else address
        value = value.replace(f"//{text}:", f"//{ADDRESS_PLACE}:")
    return value
