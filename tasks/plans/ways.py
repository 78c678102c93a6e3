"""The ways between control-plane nodes: which are closed, and what needs them. Pure."""

from __future__ import annotations

from collections.abc import Collection

from tasks.model.inventory import Inventory
from tasks.model.observation import Path, Reachability
from tasks.model.plan import Finding, Severity

_USES = {
    "peer": "etcd's members talk there, and the next restart may cost the quorum",
    "client": "`kubeadm join` and `kubeadm upgrade` ask every member there",
    "api": "a node that joins by this one's address asks its API server there",
}


def find_closed(inventory: Inventory, paths: Collection[Path]) -> tuple[Finding, ...]:
    """List the closed ways; one to a peer port forbids every change, others are to be weighed.

    A refused connection is a firewall's only where another node was let in: else nothing may
    listen there, which health tells. What does not answer at all is always one's.
    """
    heard = {(p.target, p.port) for p in paths if p.met is Reachability.OPEN}
    return tuple(
        Finding(
            Severity.REFUSAL if use == "peer" else Severity.WARNING,
            path.source,
            f"cannot reach {path.target} at {path.address} port {path.port} ({path.met}): a "
            f"firewall between them; {_USES[use]}",
        )
        for path in paths
        for use in [_use(inventory, path)]
        if path.met is Reachability.TIMED_OUT
        or (path.met is Reachability.REFUSED and (path.target, path.port) in heard)
    )


def _use(inventory: Inventory, path: Path) -> str:
    layout = inventory.layout(path.target)
    uses = {layout.peer_port: "peer", layout.client_port: "client"}
    return uses.get(path.port, "api")
