"""The URLs of members' ports, written and read."""

from __future__ import annotations

from tasks.model.fields import is_ip_address


def address_port(address: str, port: int) -> str:
    """Write a port of an address, an IPv6 one in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def member_url(address: str, port: int) -> str:
    """Write the URL of a member's port."""
    return f"https://{address_port(address, port)}"


def split_url(url: str) -> tuple[str, int]:
    """Read the address and the port of a member's URL, which has both."""
    address, _, port = url.removeprefix("https://").removeprefix("http://").rpartition(":")
    return address.strip("[]"), int(port)


def has_name(url: str) -> bool:
    """Whether a member's URL has a name, which its hosts resolve, and not an address."""
    return not is_ip_address(split_url(url)[0])
