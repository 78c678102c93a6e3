"""A member's hash by etcdctl on its host, for versions whose gateway does not tell it."""

from __future__ import annotations

import json
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.model.certificates import Role
from tasks.model.layout import Layout
from tasks.model.snapshots import DataHash

SECONDS = 60


def hash_command(layout: Layout, client_url: str, revision: int) -> Command:
    """Ask a member with its own pair; etcd's image has no shell, but it has etcdctl."""
    pair = layout.pair(Role.SERVER)
    inside = "crictl exec $(crictl ps --quiet --name '^etcd$' | head -n 1) etcdctl"
    program = inside if layout.is_pod else quote(f"{layout.binaries}/etcdctl")
    flags = f"--cacert={layout.trusted} --cert={pair.certificate} --key={pair.key}"
    script = (
        f"ETCDCTL_API=3 {program} {flags} --endpoints={quote(client_url)} "
        f"--command-timeout={SECONDS}s endpoint hashkv --rev={revision} -w json"
    )
    return Command("ask for the data's hash", script)


def parse_hash(result: Result) -> DataHash:
    """Read the answer of `hash_command`; raises ValueError, KeyError where it is another."""
    (row,) = json.loads(result.stdout)
    found = row["HashKV"]
    return DataHash(hash=found["hash"], compact_revision=max(found.get("compact_revision", 0), 0))
