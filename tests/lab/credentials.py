"""The operator's files for a lab: SSH key, known_hosts, the authority's passphrase."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from tests.lab.commands import run
from tests.lab.state import locked

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.state import LabRecord


def key_path(lab: LabRecord) -> Path:
    """Tell where the operator's private SSH key is (mode 0600)."""
    return lab.directory / "id_ed25519"


def known_hosts_path(lab: LabRecord) -> Path:
    """Tell where the hosts' SSH keys are, by address."""
    return lab.directory / "known_hosts"


def authority_path(lab: LabRecord) -> Path:
    """Tell the directory for the authority's files; the lab puts `passphrase` there."""
    return lab.directory / "authority"


def make_credentials(lab: LabRecord) -> None:
    """Make the operator's key pair, an empty known_hosts and a random passphrase."""
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", str(key_path(lab)))
    known_hosts_path(lab).touch()
    authority_path(lab).mkdir(mode=0o700)
    passphrase = authority_path(lab) / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(f"{secrets.token_urlsafe(24)}\n")


def read_public_key(lab: LabRecord) -> str:
    """Read the line for authorized_keys."""
    return key_path(lab).with_suffix(".pub").read_text()


def trust(lab: LabRecord, address: str, host_key: str) -> None:
    """Put a host's key into known_hosts in the place of any other of its address."""
    path = known_hosts_path(lab)
    with locked():
        lines = [line for line in path.read_text().splitlines() if line.split()[0] != address]
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text("\n".join([*lines, f"{address} {host_key}"]) + "\n")
        temporary.rename(path)
