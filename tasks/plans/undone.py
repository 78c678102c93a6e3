"""What is not yet done for members that the kubelet runs, and how it is done by hand."""

from __future__ import annotations

from tasks.model.errors import Refused
from tasks.model.inventory import Inventory

BY_HAND = {
    "bootstrap_cluster": "`kubeadm init` makes the first member with its node, and `kubeadm join "
    "--control-plane` each further one",
    "add_member": "`kubeadm join --control-plane` on the new node adds its member",
    "update_member": "`kubeadm reset` on the node, and `kubeadm join --control-plane` with its new "
    "address",
    "recover_certificates": "`kubeadm certs renew all` on each control-plane node, then move the "
    "manifests of etcd and of the API server out of their directory, wait until both are gone, and "
    "put them back",
}


def refuse_undone(inventory: Inventory, runbook: str) -> None:
    """Raise Refused where the kubelet runs members and a runbook does not do that yet."""
    by_hand = BY_HAND.get(runbook)
    if by_hand and any(inventory.layout(host.name).manifest for host in inventory.hosts):
        raise Refused(
            f"{runbook} does not change static pods yet, and {inventory.name} is stacked; by hand: "
            f"{by_hand}. Nothing was changed"
        )
