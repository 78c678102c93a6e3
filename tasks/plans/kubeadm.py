"""What of a stacked cluster is kubeadm's own to do: said, with its commands."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.layout import MANIFEST
from tasks.model.members import DesiredMember, SeenMember
from tasks.model.nodes import NodeObservation
from tasks.model.pods import etcd_pod
from tasks.model.pointers import pointer
from tasks.plans.nodes import HARDEN


def refuse_bootstrap(inventory: Inventory) -> None:
    """Raise Refused where kubeadm makes the members, each with its node."""
    if inventory.has_pods:
        raise Refused(
            f"{inventory.name} is stacked, and bootstrap_cluster makes no nodes: `kubeadm init` "
            "makes the first member with its node, `kubeadm join --control-plane` each further "
            f"one, and then {HARDEN}. Nothing was changed"
        )


def certificates_left(inventory: Inventory) -> tuple[str, ...]:
    """Say which certificates on the nodes are none of etcd's."""
    if not any(inventory.layout(host.name).has_apiserver for host in inventory.hosts):
        return ()
    return (
        "left to kubeadm: the API servers' own certificates and the kubeconfigs; `kubeadm certs "
        "check-expiration` on each node names those that end, `kubeadm certs renew all` renews "
        "them, and what uses them is restarted after it",
    )


def nodes_left(
    inventory: Inventory, rebuilt: Collection[str], leaving: Collection[str]
) -> tuple[str, ...]:
    """Say what of a node's change is kubeadm's and kubectl's to do."""
    gone = [name for name in sorted(leaving) if inventory.layout(name).is_pod]
    return (
        *(
            f"left to kubeadm: {name} has no etcd's manifest or does not answer, so its stale "
            f"member is removed and nothing joins now; then `kubectl delete node {name}`, and on "
            "the new node `kubeadm join --control-plane`, which adds its member"
            for name in sorted(rebuilt)
        ),
        *(
            f"left to kubeadm: `kubeadm reset` on {name}, and `kubectl delete node {name}`; its "
            f"API server ends with its member, and both manifests lie in {_kept(inventory, name)}"
            for name in gone
            if name not in rebuilt
        ),
    )


def refuse_to_join(
    inventory: Inventory, bare: Collection[str], live: tuple[SeenMember, ...]
) -> None:
    """Raise Refused for nodes that only kubeadm can make members, and say whether it can now."""
    down = [m for m in live if not m.is_healthy]
    names = ", ".join(sorted(bare))
    ready = (
        f"the cluster is ready for it: {len(live)} of {len(live)} members are healthy"
        if not down
        else f"first bring back or remove {', '.join(m.label for m in down)}, for a join waits "
        "minutes for a member that is down ("
        + pointer("remove_member", cluster=inventory.name, member=[m.label for m in down])
        + ")"
    )
    raise Refused(
        f"{names}: has no manifest of etcd's, in place or kept, and is left to kubeadm: `kubeadm "
        f"join --control-plane` there makes the node and adds its member; {ready}. After it, put "
        f"{names} into `hosts`, and {HARDEN}. Nothing was changed"
    )


def address_left(
    inventory: Inventory, nodes: Iterable[NodeObservation], member: DesiredMember
) -> tuple[str, ...]:
    """Say what on a node has its former address and is none of etcd's."""
    name = member.name
    if not inventory.layout(name).has_apiserver:
        return ()
    asked = next((node.kubeconfigs for node in nodes if node.host == name), {})
    own = ", ".join(sorted(asked)) or "the kubeconfigs"
    return (
        f"left to kubeadm and the kubelet, on {name}: the API server's --advertise-address, the "
        "host of its probes and its certificate (`kubeadm init phase certs apiserver` and `phase "
        f"control-plane apiserver`), {own} where they name the former address, the kubelet's "
        "--node-ip; with an address that is gone the kubelet's probes end that API server again "
        "and again",
    )


def _kept(inventory: Inventory, name: str) -> PurePosixPath:
    return etcd_pod(inventory.layout(name).manifest or MANIFEST).kept.parent
