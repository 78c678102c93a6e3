"""What tests of the certificate runbooks share: a client outside etcd, every member's view."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tasks.hosts import served
from tasks.hosts.batch import Result
from tasks.model.inventory_file import load_inventory
from tasks.pki.inspect import read_certificate
from tests.integration.writers import DIRECTORY

if TYPE_CHECKING:
    from tests.lab.host import Host
    from tests.lab.lab import Lab

CLIENT = """
clients:
  - name: writer
    host: {host}
    certificate: {directory}/client.pem
    key: {directory}/client-key.pem
    trusted: {directory}/ca.pem
    after_change: echo told >> {directory}/told
"""


def add_client(lab: Lab) -> Path:
    """Give the cluster a client outside etcd, on the first host; returns the inventory with it."""
    host = next(iter(lab.hosts.values()))
    host.run(
        f"mkdir -p {DIRECTORY} && cp /etc/etcd/ssl/ca.pem /etc/etcd/ssl/client.pem "
        f"/etc/etcd/ssl/client-key.pem {DIRECTORY} && chmod 0755 {DIRECTORY}"
    ).check()
    path = lab.directory / "with-client.yaml"
    path.write_text(lab.inventory.read_text() + CLIENT.format(host=host.name, directory=DIRECTORY))
    return path


def authority_digits(inventory: Path) -> str:
    """Get the first digits of the fingerprint of the authority that signs."""
    pem = load_inventory(str(inventory)).authority.certificate.read_bytes()
    return read_certificate(pem).fingerprint[:16]


def serials(lab: Lab) -> dict[str, str]:
    """Get the serial of every pair on every host's disk."""
    shown = (
        "for f in server peer client; do openssl x509 -noout -serial -in /etc/etcd/ssl/$f.pem; done"
    )
    return {name: host.run(shown).check().stdout for name, host in lab.hosts.items()}


def served_serials(host: Host) -> list[str]:
    """Get the serials that both ports present, read by openssl on the host itself."""
    ask = (
        "for p in 2379 2380; do openssl s_client -connect "
        f"{host.address}:$p </dev/null 2>/dev/null | openssl x509 -noout -serial; done"
    )
    return host.run(ask).check().stdout.split()


def find_strangers(lab: Lab) -> list[str]:
    """Ask every member from every other with its own peer pair; list who is not let in."""
    found = []
    for host in lab.hosts.values():
        others = tuple((o.name, o.address, 2380) for o in lab.hosts.values() if o is not host)
        directory = PurePosixPath("/etc/etcd/ssl")
        command = served.peers_command(
            directory / "peer.pem", directory / "peer-key.pem", directory / "ca.pem", others
        )
        done = host.run(command.script)
        met = served.parse_peers(Result("", done.status, done.stdout, done.stderr, 0.0))
        found += [
            f"{host.name} -> {n}: {met.get(n)}" for n, _, _ in others if met.get(n, "") is not None
        ]
    return found


def wait_for_restarts(lab: Lab, seconds: float = 15.0) -> None:
    """Wait until no unit is on its way up or down, as a runner that died may leave one."""
    deadline = time.monotonic() + seconds
    for host in lab.hosts.values():
        while host.run(["systemctl", "is-active", "etcd"]).stdout.strip() != "active":
            assert time.monotonic() < deadline, f"etcd on {host.name} is not active"
            time.sleep(0.1)
