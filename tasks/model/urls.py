"""The URLs of members' ports, written and read."""

from __future__ import annotations


def member_url(address: str, port: int) -> str:
    """Write the URL of a member's port."""
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


def split_url(url: str) -> tuple[str, int]:
    """Read the address and the port of a member's URL, which has both."""
    address, _, port = url.removeprefix("https://").removeprefix("http://").rpartition(":")
    return address.strip("[]"), int(port)
