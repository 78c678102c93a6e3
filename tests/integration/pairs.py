"""Spoiling certificates on a lab's hosts on purpose, with the cluster's own authority."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509

from tasks.engine.authority import authority_files
from tasks.model.certificates import Generation, Role
from tasks.model.inventory_file import load_inventory
from tasks.pki.authority import BACKDATE, Authority, open_authority
from tasks.pki.leaf import wanted_leaf

if TYPE_CHECKING:
    from tests.lab.host import Host
    from tests.lab.lab import Lab

SSL = "/etc/etcd/ssl"


def lab_authority(lab: Lab) -> Authority:
    """Open a lab's authority as the runbooks would."""
    inventory = load_inventory(str(lab.inventory))
    certificate, key = authority_files(inventory, Generation.CURRENT)
    passphrase = inventory.authority.passphrase.file
    assert passphrase is not None
    return open_authority(
        certificate.read_bytes(),
        key.read_bytes(),
        passphrase.read_bytes().rstrip(b"\n"),
        datetime.now(UTC),
    )


def sign_again(
    lab: Lab,
    host: Host,
    role: Role,
    *,
    left: timedelta,
    address: str | None = None,
    authority: Authority | None = None,
) -> None:
    """Sign the pair's key on a host again: valid for `left`, for `address` instead of its own."""
    inventory = load_inventory(str(lab.inventory))
    policy = inventory.certificates.leaf(role)
    now = datetime.now(UTC)
    begin = (now - BACKDATE).replace(second=0, microsecond=0)
    policy = policy.model_copy(update={"validity": now + left - begin})
    want = wanted_leaf(policy, role, host.name, (address or host.address,), ())
    path = f"{SSL}/{role.certificate_file}"
    old = x509.load_pem_x509_certificate(host.run(["cat", path]).check().stdout.encode())
    signer = authority or lab_authority(lab)
    install(host, path, signer._issue(old.public_key(), want, now).decode())


def install(host: Host, path: str, text: str) -> None:
    """Replace a file's content, its mode and owner kept."""
    host.run(["sh", "-c", f"cat > {path}"], text=text).check()


def restart_all(lab: Lab) -> None:
    """Restart etcd everywhere without waiting, so that no connection from before is left."""
    for host in lab.hosts.values():
        host.run(["systemctl", "restart", "--no-block", "etcd"]).check()
