"""What tests of adopted clusters share: the adoption, the authority's key, and what is kept."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from tasks.model.inventory_file import load_inventory
from tasks.pki.policy import read_leaf
from tests.integration.runbooks import Ended, Prefect, finish, start_runbook

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from tasks.model.adoption import FoundLeaf
    from tests.field.layouts import Cluster
    from tests.lab.host import Host
    from tests.lab.lab import Lab

PASSPHRASE = "correct horse battery staple"


def adopt(
    prefect: Prefect,
    lab: Lab,
    output: Path,
    *options: str,
    hosts: int = 3,
    names: list[str] | None = None,
) -> Ended:
    """Adopt the cluster on a lab's first hosts, or on some, into a file."""
    on = [lab[name] for name in names] if names else list(lab.hosts.values())[:hosts]
    found = [f"{host.name}={host.address}" for host in on]
    named = [word for host in found for word in ("--hosts", host)]
    access = ["--user", "operator", "--key", str(lab.key), "--known-hosts", str(lab.known_hosts)]
    words = [*named, *access, "--output", str(output), *options]
    return finish(start_runbook(prefect, "adopt_cluster", "adopted", *words))


def give_key(inventory: Path, cluster: Cluster) -> None:
    """Do what the adopted inventory asks of the operator: put the authority's key there."""
    found = load_inventory(str(inventory)).authority
    assert found.certificate.read_text() == cluster.authority.certificate
    found.key.write_text(cluster.authority.key)
    os.environ["ETCD_CA_PASSPHRASE"] = PASSPHRASE


def describe(lab: Lab, inventory: Path) -> dict[str, tuple[FoundLeaf, str]]:
    """Tell of every pair what a rotation must keep: names, subject, key, usages, owner, modes.

    The life is told in days: an hour goes to the clock's margin.
    """
    found = {}
    read = load_inventory(str(inventory))
    for layout in (read.layout(host.name) for host in read.hosts):
        for pair in layout.pairs:
            host = lab[layout.host]
            stat = ["stat", "-c", "%a %U %G", str(pair.certificate), str(pair.key)]
            kept = describe_file(host, pair.certificate), host.run(stat).check().stdout
            found[f"{layout.host} {pair.label}"] = kept
    return found


def describe_file(host: Host, certificate: PurePosixPath) -> FoundLeaf:
    """Tell of one certificate what a rotation must keep."""
    leaf = read_leaf(host.run(["cat", str(certificate)]).check().stdout)
    assert leaf is not None
    return replace(leaf, validity=timedelta(round(leaf.validity / timedelta(1))))


def serials(lab: Lab, inventory: Path) -> set[str]:
    """List the serials of all pairs."""
    read = load_inventory(str(inventory))
    return {
        lab[host.name]
        .run(["openssl", "x509", "-noout", "-serial", "-in", str(pair.certificate)])
        .stdout
        for host in read.hosts
        for pair in read.layout(host.name).pairs
    }
