"""Leaf certificates: keys born on the host, requests checked and signed here, pairs installed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tasks.authority import opened_authority, read_authority_certificate
from tasks.engine import Run, step
from tasks.hosts import files, leaves, system
from tasks.hosts.batch import Command
from tasks.hosts.connection import HostConnection
from tasks.model.certificates import Role
from tasks.model.cluster import DesiredMember
from tasks.model.inventory import Host, Inventory
from tasks.model.observation import HostObservation
from tasks.pki.inspect import find_differences
from tasks.pki.leaf import WantedLeaf, wanted_leaf
from tasks.pki.requests import openssl_key_command, openssl_request_config
from tasks.plans.bootstrap import IssueCertificates

RENEW_BEFORE = timedelta(days=1)
"""Bootstrap reissues only what is about to expire; renewing in time is another runbook's work."""


def wanted_leaves(
    inventory: Inventory, host: Host, member: DesiredMember
) -> dict[Role, WantedLeaf]:
    """Say what each of a host's certificates shall be."""
    urls = (member.peer_url, member.client_url)
    addresses = [url.removeprefix("https://").rsplit(":", 1)[0].strip("[]") for url in urls]
    if host.fixed_address:
        addresses.append(host.fixed_address)
    extra = (*host.extra_sans, *inventory.extra_sans)
    return {
        role: wanted_leaf(
            inventory.certificates.leaf(role), role, host.name, tuple(addresses), extra
        )
        for role in Role
    }


def leaf_differences(
    inventory: Inventory, member: DesiredMember, seen: HostObservation, authority: bytes | None
) -> dict[Role, tuple[str, ...]]:
    """Say for each role why the pair on the host is not the wanted one; empty where it is."""
    wanted = wanted_leaves(inventory, inventory.host(seen.host), member)
    differences = {}
    for role, want in wanted.items():
        files_seen = seen.leaves[role]
        certificate = files_seen.certificate
        differences[role] = find_differences(
            certificate.text if certificate else None,
            want,
            authority,
            files_seen.key_public,
            datetime.now(UTC),
            RENEW_BEFORE,
        )
        if not differences[role] and files_seen.key and files_seen.key.mode != "0600":
            differences[role] = (f"its key has mode {files_seen.key.mode}, not 0600",)
    return differences


@step("issue certificates on {host}")
async def issue_certificates(
    run: Run, host: HostConnection, planned: IssueCertificates, members: dict[str, DesiredMember]
) -> bool:
    """Make new keys on the host, sign their requests, install the pairs and the authority.

    The authority is opened for the signing alone. Raises CertificateRefused when a request is
    not what the plan says. A pair that was replaced is kept aside on the host; on failure a pair
    is the old one or the new one.
    """
    inventory = run.inventory
    pairs = [pair for pair in inventory.pairs(host.name) if set(pair.roles) & set(planned.roles)]
    wanted = wanted_leaves(inventory, host.host, members[host.name])
    requests = [
        leaves.request_leaf_command(
            pair.key,
            openssl_key_command(wanted[pair.roles[0]].key),
            openssl_request_config(wanted[pair.roles[0]]),
        )
        for pair in pairs
    ]
    account = inventory.etcd.run_as
    found, *answers = await host.run(system.account_command(account), *requests, changes=True)
    group = system.parse_account(found)[1] or account
    staging: list[Command] = []
    if pairs:
        authority = await opened_authority(inventory)
        for pair, answer in zip(pairs, answers, strict=True):
            request, want = leaves.parse_request(answer), wanted[pair.roles[0]]
            signed = authority.sign(request, want, datetime.now(UTC)).decode()
            # The client's pair is for operators and their tools, through sudo.
            is_etcds = any(role.is_for_members for role in pair.roles)
            owner, owning_group = (account, group) if is_etcds else ("root", "root")
            staging.append(
                leaves.stage_leaf_command(
                    pair.certificate, pair.key, signed, owner=owner, group=owning_group
                )
            )
    backup = inventory.paths.backups / run.backup
    trusted = read_authority_certificate(inventory) or b""
    await host.run(
        files.write_file_command(
            inventory.trusted,
            trusted.decode(),
            mode="0644",
            owner="root",
            group=group,
            backup=backup,
        ),
        *staging,
        *(leaves.swap_leaf_command(pair.certificate, pair.key, backup=backup) for pair in pairs),
        changes=True,
    )
    return True
