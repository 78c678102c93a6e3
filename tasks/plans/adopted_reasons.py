"""Adoption: what keeps the runbooks from working with a cluster, each in one true sentence.

It names the host, the flag, and where it is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from tasks.model.adoption import FoundEtcd
from tasks.model.fields import is_ip_address, is_local
from tasks.model.pointers import parameter
from tasks.plans.adopted_files import find_url

URLS = {"peer": "INITIAL_ADVERTISE_PEER_URLS", "client": "ADVERTISE_CLIENT_URLS"}
"""What a member tells the others, and clients: its addresses and its ports."""
_CONTAINER = re.compile(
    r"(docker|libpod|crio|cri-containerd|nerdctl|containerd)-[0-9a-f]+(\.scope)?"
    r"|[0-9a-f]{64}|container"
)
"""The last part of a container's control group; podman has one group more below its own."""
_CREDENTIALS = "/run/credentials/"
_FILES = ("CERT_FILE", "KEY_FILE", "PEER_CERT_FILE", "PEER_KEY_FILE", "TRUSTED_CA_FILE")


def find_container(found: FoundEtcd) -> str | None:
    """Name the container that etcd runs in, where it is no process of its unit's."""
    if found.is_running or found.manifest:
        return None
    return next((other for other in found.others if _CONTAINER.fullmatch(other)), None)


def container_sentence(found: FoundEtcd, container: str) -> str:
    """Say that what runs in a container is not worked on, which process it is, and who began it."""
    begun = "; ".join(found.unknown) or (f"begun by {found.unit_path}" if found.unit_path else "")
    return (
        f"etcd runs in a container (process {found.processes[container]}, in {container}"
        f"{'; ' + begun if begun else ''}); the runbooks work on etcd as a process of a systemd "
        "unit's, or as kubeadm's static pod"
    )


def reasons_against(found: tuple[FoundEtcd, ...]) -> list[str]:
    """List what is wrong on each host, where hosts differ, and which member is not among them."""
    reasons = [f"{one.name}: {reason}" for one in found for reason in _reasons_of(one)]
    same: tuple[tuple[str, Callable[[FoundEtcd], object]], ...] = (
        ("version", lambda one: one.version),
        ("trusted file", lambda one: one.setting("TRUSTED_CA_FILE")),
        ("cluster token", lambda one: one.setting("INITIAL_CLUSTER_TOKEN", "etcd-cluster")),
        ("account", lambda one: one.account),
        ("unit", lambda one: one.unit_path),
        ("static pod's file", lambda one: one.manifest),
    )
    for what, get in same:
        values: dict[str, list[str]] = {}
        for one in found:
            values.setdefault(str(get(one) or "none"), []).append(one.name)
        if len(values) > 1:
            told = "; ".join(f"{value} on {', '.join(names)}" for value, names in values.items())
            reasons.append(f"the hosts differ in their {what}: {told}")
    return reasons + _missing_members(found)


def _reasons_of(one: FoundEtcd) -> list[str]:
    if container := find_container(one):
        return [container_sentence(one, container)]
    if one.unknown:
        return [f"its settings cannot be read: {what}" for what in one.unknown]
    reasons = []
    if one.setting("NAME", "default") == "default":
        reasons.append("its member has no name of its own (--name)")
    reasons += [
        f"{_flag(name)} is not set; only clusters with mutual TLS are managed"
        for name in _FILES
        if not one.setting(name)
    ]
    reasons += [
        f"{one.written(name)} is systemd's copy for this start alone (LoadCredential=), which "
        "cannot be renewed; name the file itself"
        for name in _FILES
        if one.setting(name).startswith(_CREDENTIALS)
    ]
    reasons += [said for name in URLS.values() if (said := _reason_of_url(one, name))]
    reasons += _reasons_not_to_be_asked(one)
    if one.version is None and not one.manifest:
        reasons.append(f"{one.program or 'its program'} tells no version of etcd's")
    if not one.has_one_authority:
        reasons.append(
            f"clients and peers have different authorities: {one.written('TRUSTED_CA_FILE')} and "
            f"{one.written('PEER_TRUSTED_CA_FILE')}; the runbooks know one"
        )
    if not one.setting("DATA_DIR"):
        reasons.append("--data-dir is not set")
    pairs = one.pairs.values()
    reasons += dict.fromkeys(
        f"{pair.certificate} holds the key, too; give each a file of its own"
        for pair in pairs
        if pair.certificate == pair.key and pair.key.name
    )
    reasons += dict.fromkeys(
        f"{pair.certificate} is signed by '{pair.intermediate}', which is no root; the runbooks "
        "sign with a root alone"
        for pair in pairs
        if pair.intermediate is not None
    )
    return reasons


def _reason_of_url(one: FoundEtcd, name: str) -> str | None:
    url = urlsplit(find_url(one, name))
    said = one.written(name)
    if url.scheme != "https":
        return f"{said} is not https"
    if not one.manifest and is_local(url.hostname or ""):
        return f"{said} is the host's own to itself alone; no other host reaches its member there"
    if one.manifest and not is_ip_address(url.hostname or ""):
        return f"{said} has a name; kubeadm's members have addresses, by which they are matched"
    return None


def _reasons_not_to_be_asked(one: FoundEtcd) -> list[str]:
    """Tell what turns the runbooks' requests away, while etcd is healthy and etcdctl works."""
    reasons = []
    gateway, file = one.setting("ENABLE_GRPC_GATEWAY"), one.setting("CONFIG_FILE")
    if gateway == "false":
        reasons.append(
            f"{one.written('ENABLE_GRPC_GATEWAY')}: etcd is asked over its JSON gateway; switch "
            "it on"
        )
    elif not gateway and file and (one.version or "").startswith("3.4."):
        # etcd-io/etcd#12297: as a flag it is on, and on for everybody from 3.5 on.
        reasons.append(
            f"etcd {one.version} has its JSON gateway off with a settings file, and is asked over "
            f"it; write `enable-grpc-gateway: true` into {file}, and restart one after the other"
        )
    reasons += [
        f"{one.written(name)}: {why}"
        for name, why in (
            (
                "LISTEN_CLIENT_HTTP_URLS",
                "etcd is asked by HTTP at --advertise-client-urls, where this takes it away",
            ),
            (
                "CLIENT_CERT_ALLOWED_HOSTNAME",
                "etcd would turn the runbooks' own certificate away, which names no host",
            ),
        )
        if one.setting(name)
    ]
    return reasons


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


def _flag(name: str) -> str:
    return f"--{name.lower().replace('_', '-')}"
