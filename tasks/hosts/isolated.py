"""The words of an etcd that runs where no client reaches it, on a member's own pairs."""

from __future__ import annotations

from urllib.parse import urlsplit

from tasks.hosts.restores import isolated_port
from tasks.model.certificates import Role
from tasks.model.layout import Layout
from tasks.model.members import DesiredMember
from tasks.model.restores import UNLIMITED_BYTES


def listening(url: str) -> str:
    """Choose the address to listen on: all of them, since a URL's need not be the host's own."""
    is_newer = ":" in (urlsplit(url).hostname or "")
    return "[::]" if is_newer else "0.0.0.0"  # noqa: S104 - peers show certificates


def client_words(layout: Layout, own: DesiredMember) -> tuple[str, ...]:
    """Say how it serves this run alone, on a port of the loopback."""
    pair = layout.pair(Role.SERVER)
    return (
        f"--listen-client-urls=https://127.0.0.1:{isolated_port(layout)}",
        f"--advertise-client-urls={own.client_url}",
        f"--cert-file={pair.certificate}",
        f"--key-file={pair.key}",
        f"--trusted-ca-file={layout.trusted}",
        "--client-cert-auth",
        f"--quota-backend-bytes={UNLIMITED_BYTES}",
        "--logger=zap",
    )


def peer_words(layout: Layout) -> tuple[str, ...]:
    """Say how it meets its peers: as the member does."""
    pair = layout.pair(Role.PEER)
    return (
        f"--peer-cert-file={pair.certificate}",
        f"--peer-key-file={pair.key}",
        f"--peer-trusted-ca-file={layout.peer_trusted}",
        "--peer-client-cert-auth",
    )
