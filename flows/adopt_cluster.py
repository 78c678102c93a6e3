"""Adopt an existing external cluster: read it from its hosts, and write its inventory."""

from __future__ import annotations

from tasks.engine.frame import runbook
from tasks.engine.run import open_run
from tasks.model.record import Event
from tasks.procedures import adoption


@runbook(flow_run_name="adopt {cluster}")
async def adopt_cluster(
    cluster: str,
    hosts: list[str],
    user: str = "root",
    key: str | None = None,
    key_passphrase: str | None = None,
    ssh_config: str | None = None,
    known_hosts: str = "~/.ssh/known_hosts",
    port: int = 22,
    unit: str = "etcd.service",
    output: str | None = None,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Write the inventory of a cluster that runs already, whoever built it.

    Reads how etcd runs (its own flags and variables, or its unit), its certificates and its member
    list; the inventory says how the certificates are made, so that new ones are made so. What it
    cannot see, what is wrong and what cannot be kept is told before the file is written. Nothing on
    the hosts is changed, and no lock is taken; dying at any point leaves it written or not.

    Args:
        cluster: the new inventory's name
        hosts: every member's host: an address, or NAME=ADDRESS
        user: who logs in
        key: private key for SSH; without it the SSH agent
        key_passphrase: where that key's passphrase is, for a worker: `env=NAME`, `file=PATH` or
            `block=NAME` (a Prefect Secret block)
        ssh_config: a file as ~/.ssh/config is, for what is not said here, such as a jump host
        known_hosts: the hosts' keys; an unknown one is refused
        port: SSH port
        unit: the systemd unit of etcd
        output: the file to write; without it `deployments/clusters/<cluster>.yaml`
        dry_run: show what was found and write nothing
        reason: why, for the record
    """
    path = adoption.target_path(cluster, output)
    said = {
        "user": user,
        "port": port,
        "known_hosts": known_hosts,
        "key": key,
        "config": ssh_config,
    }
    ssh = adoption.ssh_content(said, key_passphrase)
    given = frozenset(word.partition("=")[0].lower() for word in hosts if "=" in word)
    provisional = adoption.provisional(cluster, hosts, ssh, unit)
    async with open_run(provisional, "adopt_cluster", reason=reason) as run:
        found = await adoption.read_all(run)
        inventory, text = adoption.compose(run, found, ssh, path, given)
        differences = await adoption.judge(inventory, found)
        await adoption.publish(run, path, text, found, given, differences)
        if dry_run:
            run.journal.append(Event.PROGRESS, text=f"dry run: {path} is not written")
        else:
            await adoption.write_inventory(run, path, text, inventory, found)
