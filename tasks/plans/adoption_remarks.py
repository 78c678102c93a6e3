"""Adoption: what the operator should know of what was found, each kind once, with its hosts."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.model.adoption import FoundEtcd
from tasks.plans import nodes
from tasks.plans.adopted_files import Named
from tasks.plans.adopted_policy import find_unkept
from tasks.plans.adoption import ENGINE_ONLY, setting_of

AT_MOST = 20
"""Lines of remarks: a screen."""


def find_remarks(hosts: tuple[Named, ...]) -> tuple[str, ...]:
    """List what the operator should know of what was found, and what could not be seen."""
    rows: list[tuple[str, str]] = list(find_unkept(hosts))
    for host in hosts:
        one = host.found
        if one.node is not None:
            members = len(one.members) if one.members else len(hosts)
            told = (*nodes.find_lacking(one.node), *nodes.find_remarks(one.node, members))
            rows += [(host.name, remark) for remark in told]
        rows += [
            (
                host.name,
                f"the authority's key lies at {key}: whoever reads it can sign; put it where "
                "authority.key says, encrypted, and move it off the host",
            )
            for key in one.keys_of_authority
            if one.node is None
        ]
        rows += [
            (host.name, f"etcd listens on {url} without TLS")
            for name in ("LISTEN_CLIENT_URLS", "LISTEN_PEER_URLS")
            for url in one.setting(name).split(",")
            if url.startswith("http://")
        ]
        if one.setting("STRICT_RECONFIG_CHECK", "true") != "true":
            rows.append((host.name, "strict-reconfig-check is off, which can cost the quorum"))
        rows += [
            (host.name, f"{_flag(name)} is off")
            # A trusted file switches it on, whatever is set (etcd's --trusted-ca-file).
            for name, file in (
                ("CLIENT_CERT_AUTH", "TRUSTED_CA_FILE"),
                ("PEER_CLIENT_CERT_AUTH", "PEER_TRUSTED_CA_FILE"),
            )
            if one.setting(name) != "true" and not one.setting(file)
        ]
        if one.setting("FORCE_NEW_CLUSTER") == "true":
            rows.append(
                (
                    host.name,
                    "FORCE_NEW_CLUSTER is set: at its next start this member leaves all others and "
                    "is a cluster of its own; take it out before anything restarts it",
                )
            )
        rows += [
            (
                host.name,
                f"another etcd runs here ({other}): where it uses the same files, what is done to "
                "these is done to it; adopt it too, with its unit",
            )
            for other in one.others
        ]
        rows += [(host.name, f"without effect: {what}") for what in one.skipped]
        if not one.is_running:
            instead = "manifest" if one.node else "unit"
            rows.append((host.name, f"etcd does not run; its {instead} was read instead"))
        elif one.members is None:
            said = f" ({'; '.join(one.told)})" if one.told else ""
            rows.append((host.name, f"the member list could not be read{said}"))
    return (*group_remarks(rows), *find_differing(hosts))


def authority_remarks(found: tuple[FoundEtcd, ...]) -> tuple[str, ...]:
    """Tell where the key of a stacked cluster's authority lies, which is left there."""
    having = [
        one.host for one in found if any(k.endswith("/ca.key") for k in one.keys_of_authority)
    ]
    if having:
        return (
            f"the authority's key lies where kubeadm put it, on {', '.join(having)}: it is left "
            "there, and in the runner's memory only while it signs",
        )
    return (
        "no host has the authority's key, so it is an external one: to renew, put its certificate "
        "and key on the runner and name them in `authority`, with a passphrase",
    )


def find_differing(hosts: tuple[Named, ...]) -> tuple[str, ...]:
    """List the settings that differ between the hosts; most hosts' is kept, or none."""
    names = {name for host in hosts for name in host.found.settings}
    told = []
    for name in sorted(names - ENGINE_ONLY):
        by_value: dict[str, list[str]] = {}
        for host in hosts:
            by_value.setdefault(setting_of(host, name), []).append(host.name)
        if len(by_value) > 1:
            each = "; ".join(f"{', '.join(n)}: {v or 'not set'}" for v, n in by_value.items())
            kept = next((v for v, n in by_value.items() if 2 * len(n) > len(hosts)), None)
            what = f"the inventory has {kept or 'none'}" if kept is not None else "left out"
            told.append(f"{name} differs ({each}); {what}, and no host is changed by that")
    return tuple(told)


def group_remarks(rows: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Tell each sentence once, before it the hosts that it is true of."""
    hosts: dict[str, list[str]] = {}
    for host, sentence in rows:
        told = hosts.setdefault(sentence, [])
        if host not in told:
            told.append(host)
    return tuple(
        f"{', '.join(filter(None, names))}: {sentence}" if any(names) else sentence
        for sentence, names in hosts.items()
    )


def on_a_screen(remarks: tuple[str, ...]) -> tuple[str, ...]:
    """Cut a list that is too long to be read, and say so."""
    if len(remarks) <= AT_MOST:
        return remarks
    left = len(remarks) - AT_MOST + 1
    return (*remarks[: AT_MOST - 1], f"and {left} more, in the report")


def _flag(name: str) -> str:
    return f"--{name.lower().replace('_', '-')}"
