"""A lab's bridge, and each host's cable: a veth pair into a network namespace of its own.

The namespace is kept by a bind mount in the host's state directory, made anew at every start, and
has its address before the host boots. Addresses and MACs stay the same over power cuts.
"""

from __future__ import annotations

import contextlib
import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import mounts
from tests.lab.commands import run
from tests.lab.errors import CommandFailed, LabError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.lab.state import LabRecord

POOL = [IPv4Network(f"10.77.{third}.0/24") for third in range(256)]
"""Subnets for labs that name none, in the order they are given out."""

INTERFACE = "eth0"
"""The host's end of its cable."""


def list_links() -> set[str]:
    """List the names of this machine's links."""
    return {path.name for path in Path("/sys/class/net").iterdir()}


def choose_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """Choose the first subnet that overlaps with no other lab's and with no address in use here."""
    used = [*taken, *_list_own_networks()]
    for subnet in POOL:
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise LabError(f"none of {POOL[0]} to {POOL[-1]} is free: end a lab (python -m tests.lab list)")


def check_subnet(text: str, taken: Iterable[IPv4Network]) -> IPv4Network:
    """Refuse a subnet that overlaps with another lab's or with an address in use here."""
    try:
        subnet = IPv4Network(text)
    except ValueError as error:
        raise LabError(f"{text!r} is no subnet such as {POOL[0]}: {error}") from error
    for other in [*taken, *_list_own_networks()]:
        if subnet.overlaps(other):
            raise LabError(f"{subnet} overlaps with {other}, which is in use: choose another")
    return subnet


def make_bridge(lab: LabRecord) -> None:
    """Make the bridge, with the runner's address on it."""
    length = lab.network.prefixlen
    run("ip", "link", "add", lab.bridge, "address", _mac(lab, 1), "type", "bridge")
    run("ip", "address", "add", f"{lab.gateway}/{length}", "dev", lab.bridge)
    run("ip", "link", "set", lab.bridge, "up")


def remove_bridge(lab: LabRecord) -> None:
    """Remove the bridge if it is there and, by its MAC, ours; another's of that name is left."""
    with contextlib.suppress(FileNotFoundError):
        mac = Path(f"/sys/class/net/{lab.bridge}/address").read_text().strip()
        if mac == _mac(lab, 1):
            remove_link(lab.bridge)


def cable(lab: LabRecord, number: int) -> str:
    """Name the bridge's end of a host's cable."""
    return f"{lab.cable_prefix}{number}"


def connect(lab: LabRecord, number: int, namespace: Path, *, plugged: bool) -> None:
    """Make a host's network namespace and its cable; `plugged` says whether the link is up."""
    namespace.touch()
    run("unshare", f"--net={namespace}", "true")
    link, peer = cable(lab, number), ["peer", "name", INTERFACE, "netns", str(namespace)]
    mac = ["address", _mac(lab, number)]
    run("ip", "link", "add", link, "type", "veth", *peer, *mac)
    run("ip", "link", "set", link, "master", lab.bridge, "up" if plugged else "down")
    inside = [
        "link set lo up",
        f"address add {lab.address(number)}/{lab.network.prefixlen} dev {INTERFACE}",
        f"link set {INTERFACE} up",
        f"route add default via {lab.gateway}",
        # Rules are read in order: `local` moves behind those that block_port adds.
        "rule add pref 100 lookup local",
        "rule del pref 0",
    ]
    run("nsenter", f"--net={namespace}", "ip", "-batch", "-", text="\n".join(inside) + "\n")


def disconnect(lab: LabRecord, number: int, namespace: Path) -> None:
    """Remove a host's cable and network namespace; what is not there is no error."""
    remove_link(cable(lab, number))
    mounts.unmount_below(namespace)
    namespace.unlink(missing_ok=True)


def set_plugged(lab: LabRecord, number: int, *, plugged: bool) -> None:
    """Set the bridge's end of a host's cable up or down."""
    run("ip", "link", "set", cable(lab, number), "up" if plugged else "down")


def remove_link(name: str) -> None:
    """Remove a link, whose other end goes with it; a link that is not there is no error."""
    if name in list_links():
        # It may vanish meanwhile: a namespace that ends takes its veth with it.
        with contextlib.suppress(CommandFailed):
            run("ip", "link", "del", name)
        if name in list_links():
            raise LabError(f"the link {name} cannot be removed: try `ip link del {name}`")


def block_port(namespace: Path, port: int) -> None:
    """Drop what comes in over the cable for a TCP port, established connections too."""
    _rule(namespace, "add", port)


def unblock_port(namespace: Path, port: int) -> None:
    """Let a blocked TCP port be reached again; CommandFailed when it is not blocked."""
    _rule(namespace, "del", port)


def _rule(namespace: Path, verb: str, port: int) -> None:
    match = ["iif", INTERFACE, "ipproto", "tcp", "dport", str(port)]
    rule = ["rule", verb, "pref", "10", *match, "blackhole"]
    run("nsenter", f"--net={namespace}", "ip", *rule)


def _mac(lab: LabRecord, number: int) -> str:
    """Make a locally administered address; .1, the bridge, has the number 1 too."""
    return f"02:77:00:{lab.slot:02x}:00:{number:02x}"


def _list_own_networks() -> list[IPv4Network]:
    found = []
    for link in json.loads(run("ip", "-json", "-4", "address", "show")):
        for address in link.get("addr_info", []):
            network = f"{address['local']}/{address['prefixlen']}"
            found.append(IPv4Network(network, strict=False))
    return found
