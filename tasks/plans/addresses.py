"""Which address each member uses: the inventory's, or the one detected on the host."""

from __future__ import annotations

from tasks.model.errors import Refused
from tasks.model.inventory import Inventory
from tasks.model.machines import Host
from tasks.model.members import DesiredMember
from tasks.model.urls import member_url


def member_addresses(host: Host, detected: str | None) -> tuple[str, str]:
    """Get a host's peer and client address; raises Refused when there is none to be had."""
    base = host.fixed_address or detected
    peer, client = host.peer_address or base, host.client_address or base
    if peer is None or client is None:
        raise Refused(
            "has no default route to detect an address from; set hosts[].address, or "
            "peer_address and client_address, in the inventory",
            host=host.name,
        )
    return peer, client


def desired_member(inventory: Inventory, host: Host, detected: str | None) -> DesiredMember:
    """Get the member that the inventory asks for; raises Refused when it has no address."""
    peer, client = member_addresses(host, detected)
    return DesiredMember(
        host.name,
        member_url(peer, host.peer_port or inventory.etcd.peer_port),
        member_url(client, host.client_port or inventory.etcd.client_port),
        host.member_name,
    )
