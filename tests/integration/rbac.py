"""Turning on etcd's authentication (RBAC) in a lab's cluster, and naming its user.

Over HTTPS from here, because etcdctl takes passwords as arguments, which a test looks for.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.lab import Lab

SSL = "etc/etcd/ssl"
USER = "etcd-runbooks"


def enable_rbac(lab: Lab, *, root: str, user: str | None = None) -> None:
    """Turn it on, with these passwords of root and of the runbooks' user, who gets root's role."""
    host = next(iter(lab.hosts.values()))
    files = host.root / SSL
    tls = ssl.create_default_context(cafile=str(files / "ca.pem"))
    tls.load_cert_chain(files / "client.pem", files / "client-key.pem")
    users = {"root": root} | ({USER: user} if user else {})
    calls: list[tuple[str, dict[str, Any]]] = [("role/add", {"name": "root"})]
    for name, password in users.items():
        calls.append(("user/add", {"name": name, "password": password}))
        calls.append(("user/grant", {"user": name, "role": "root"}))
    with httpx.Client(verify=tls, trust_env=False) as http:
        for path, body in (*calls, ("enable", {})):
            url = f"https://{host.address}:2379/v3/auth/{path}"
            http.post(url, json=body).raise_for_status()


def name_user(inventory: Path, password: Path) -> None:
    """Let an inventory say as whom etcd is asked, with the password in a file."""
    login = f"login: {{user: {USER}, password: {{file: {password}}}}}\n"
    inventory.write_text(inventory.read_text() + login)


def write_password(path: Path, password: str) -> Path:
    """Write a password's file as the inventory wants it."""
    path.touch(mode=0o600)
    path.write_text(f"{password}\n")
    return path
