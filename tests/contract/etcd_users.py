"""The users of the contract suite's clusters, once RBAC is on."""

from __future__ import annotations

from tasks.etcd.login import Login

ROOT = "root"
RUNBOOKS = "etcd-runbooks"
READER = "reader"
PASSWORDS = {name: f"marker-password-of-{name}" for name in (ROOT, RUNBOOKS, READER)}
"""Of all of them; the last one has no role."""


def login_as(user: str, password: str | None = None) -> Login:
    """Make the log-in of one of them."""
    return Login(user, password or PASSWORDS[user])
