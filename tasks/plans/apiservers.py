"""The API servers that live on members: for how long each is away, and who waits for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from tasks.model.nodes import NodeObservation
from tasks.plans.nodes import LOOPBACK

CHANGE_SECONDS = 15
"""While its etcd's manifest is changed once: 14 s on kubelets of 1.37."""
RESTART_SECONDS = 10
"""While it is restarted alone, for a file that it reads at its start."""
JOIN_SECONDS = 30
"""While its member joins anew: out, in as a learner, out and in again; 19 to 27 s on those."""
LOG_MEGABYTES_A_SECOND = 20
"""Which a learner takes in beside that, on an ordinary disk."""

RESTARTED = f"away for about {RESTART_SECONDS} s"
CHANGED = f"away for about {CHANGE_SECONDS} s"
JOINED = (
    f"away for about {JOIN_SECONDS} s in all, and a second more for each {LOG_MEGABYTES_A_SECOND} "
    "MB of etcd's data"
)


def warn_of_clients(nodes: Iterable[NodeObservation]) -> tuple[str, ...]:
    """Say who is without an API server while that of one node is away.

    A kubeconfig that names a node's own address waits for that node; of another server (a load
    balancer, a name) it is said which one.
    """
    seen = tuple(nodes)
    owners = {address: node.host for node in seen for address in _addresses(node)}
    told: dict[tuple[str, str, str], list[str]] = {}
    for node in seen:
        for name, server in sorted(node.kubeconfigs.items()):
            address = urlsplit(server).hostname or server
            owner = node.host if address in LOOPBACK else owners.get(address, "")
            told.setdefault((node.host, owner, server), []).append(name)
    return (
        "one node's API server is away at a time, never two; whoever asks that one alone waits: "
        "its node's kubelet, and the kubeconfigs below",
        *(_sentence(*key, names) for key, names in told.items()),
    )


def name_kubeconfigs(nodes: Iterable[NodeObservation]) -> tuple[str, ...]:
    """Name the kubeconfigs of nodes: their users have a certificate that they read once."""
    users: dict[str, list[str]] = {}
    for node in nodes:
        if node.kubeconfigs:
            users.setdefault(", ".join(sorted(node.kubeconfigs)), []).append(node.host)
    return tuple(
        f"{', '.join(hosts)}: who uses {names} reads its client certificate once, at its start, "
        "and it is not etcd's: it keeps what it has, and needs nothing now"
        for names, hosts in users.items()
    )


def _sentence(host: str, owner: str, server: str, names: list[str]) -> str:
    ask = f"{host}: {', '.join(names)} {'asks' if len(names) == 1 else 'ask'} {server}"
    return f"{ask}, {owner} alone" if owner else f"{ask}, which is no node's own address"


def _addresses(node: NodeObservation) -> Mapping[str, None]:
    urls = (*node.settings.split("advertise-client-urls"), *node.settings.split("listen-peer-urls"))
    found = (urlsplit(url).hostname or "" for url in urls)
    return dict.fromkeys([*(a for a in found if a not in LOOPBACK), node.host, node.hostname])
