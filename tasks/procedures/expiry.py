"""Checking certificates: every host of any number of clusters, read-only, a bounded number at once.

Composes the steps that look.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from prefect.events import emit_event

from tasks.engine import frame, metrics
from tasks.engine.authority import find_authority_certificate, write_private
from tasks.engine.run import Run, open_run, step
from tasks.hosts.connection import HostConnection
from tasks.model.certificates import Role
from tasks.model.clients import Client
from tasks.model.errors import CertificateRefused, CheckFailed, RunbookError
from tasks.model.expiry import (
    CertificateFinding,
    CertificateRow,
    ClusterCheck,
    Grade,
    Kind,
)
from tasks.model.inventory import KUBEADM_AUTHORITY, Inventory, Topology
from tasks.model.layout import Layout, Pair
from tasks.model.observation import LeafFiles, PairsObservation
from tasks.model.record import Event
from tasks.model.urls import split_url
from tasks.pki.inspect import read_certificate
from tasks.pki.judgement import Place, judge_authorities, judge_pair
from tasks.pki.targets import LeafTarget, client_targets, member_targets
from tasks.plans.addresses import desired_member
from tasks.procedures import location
from tasks.report.certificates import (
    MANY_ROWS,
    certificate_table,
    certificates_json,
    certificates_markdown,
    verdict,
)
from tasks.report.metrics import of_certificates
from tasks.report.tables import first_of
from tasks.steps import certificates, onhosts, preflight
from tasks.steps.reports import artifact_key

HOSTS_AT_ONCE = 40
CLUSTERS_AT_ONCE = 20
TOLD = 20
AUTHORITY = "authority"


async def check_clusters(clusters: Iterable[str], reason: str | None) -> tuple[ClusterCheck, ...]:
    """Check clusters side by side; what cannot be checked is a finding, and stops no other."""
    hosts, slots = asyncio.Semaphore(HOSTS_AT_ONCE), asyncio.Semaphore(CLUSTERS_AT_ONCE)

    async def check(cluster: str) -> ClusterCheck:
        async with slots:
            try:
                async with open_run(cluster, "check_certificates", reason=reason) as run:
                    return await _check_cluster(run, hosts)
            except RunbookError as error:
                finding = CertificateFinding(
                    Kind.UNCHECKED, Grade.CRITICAL, cluster, "", "", str(error)
                )
                return ClusterCheck(cluster, (), (finding,))

    return tuple(await asyncio.gather(*map(check, clusters)))


async def _check_cluster(run: Run, slots: asyncio.Semaphore) -> ClusterCheck:
    check = await look(run, slots)
    await publish_check(run, check)
    return check


async def look(
    run: Run, slots: asyncio.Semaphore, seen: dict[str, PairsObservation] | None = None
) -> ClusterCheck:
    """Look at a cluster's certificates, and close each host's connection when it is seen.

    Who wants to know more of the hosts gives `seen`, by name; it gets their members' settings, too,
    and the connections stay.
    """
    inventory, name = run.inventory, run.inventory.name
    rows: list[CertificateRow] = []
    findings: list[CertificateFinding] = []

    async def see(host: HostConnection, clients: tuple[Client, ...]) -> None:
        async with slots:
            try:
                if host.name in run.hosts:
                    rows.extend(await check_host(run, host, seen))
                for client in clients:
                    rows.extend(await _check_client(run, host, client))
            except RunbookError as error:
                findings.append(
                    CertificateFinding(
                        Kind.UNREACHABLE, Grade.CRITICAL, name, host.name, "", error.message
                    )
                )
            finally:
                if seen is None:
                    await host.close()

    looked_at = [c for c in inventory.clients if c.certificate is not None]
    await asyncio.gather(
        *(
            see(host, tuple(c for c in looked_at if c.host == host.name))
            for host in run.hosts.values()
        ),
        *(see(run.clients[c.name], (c,)) for c in looked_at if c.host is None),
    )
    # In the inventory's order, whoever answered first; a host's rows stay in theirs.
    order = {name: number for number, name in enumerate((*run.hosts, *run.clients))}
    rows.sort(key=lambda row: order.get(row.host, len(order)))
    findings.sort(key=lambda finding: order.get(finding.host, len(order)))
    findings += await _foreign_authority(run, rows)
    return ClusterCheck(name, tuple(rows), (*findings, *_differing_trust(run, rows)))


async def _foreign_authority(run: Run, rows: list[CertificateRow]) -> list[CertificateFinding]:
    """Tell when the members serve under another authority than the one that this runner has."""
    if not any(row.findings for row in rows):
        return []
    try:
        sentence = await onhosts.find_foreign(run, await location.locate_members(run))
    except RunbookError:
        return []  # who cannot be reached is a finding already
    if sentence is None:
        return []
    path = str(run.inventory.authority.certificate)
    name = run.inventory.name
    return [CertificateFinding(Kind.UNTRUSTED, Grade.CRITICAL, name, "", path, sentence)]


def _differing_trust(run: Run, rows: list[CertificateRow]) -> list[CertificateFinding]:
    """Tell when the members do not all trust the same authorities, as in mid-rotation."""
    trusted: dict[str, set[int]] = {}
    for row in rows:
        if (
            row.label in {AUTHORITY, KUBEADM_AUTHORITY}
            and row.host in run.hosts
            and row.serial is not None
        ):
            trusted.setdefault(row.host, set()).add(row.serial)
    kinds = {frozenset(serials) for serials in trusted.values()}
    if len(kinds) < 2:  # noqa: PLR2004 - they agree
        return []
    told = "; ".join(
        f"{host}: {', '.join(sorted(f'{serial:x}'[:12] for serial in serials))}"
        for host, serials in sorted(trusted.items())
    )
    sentence = f"the members do not trust the same authorities ({told}); rotate_authority goes on"
    return [
        CertificateFinding(
            Kind.UNTRUSTED,
            Grade.WARNING,
            run.inventory.name,
            "",
            str(run.inventory.layout(min(trusted)).trusted),
            sentence,
        )
    ]


async def check_host(
    run: Run, host: HostConnection, seen: dict[str, PairsObservation] | None = None
) -> list[CertificateRow]:
    """Look at a host's certificates and judge them; `seen` gets what was seen, with settings."""
    inventory, wanted = run.inventory, run.inventory.host(host.name)
    fixed = wanted.fixed_address or (wanted.peer_address and wanted.client_address)
    detected = None if fixed else await preflight.detect_address(run, host)
    member = desired_member(inventory, wanted, detected)
    layout = inventory.layout(host.name)
    pairs = (*layout.pairs, *((layout.authority,) if layout.authority else ()))
    found = await certificates.observe_pairs(
        run,
        host,
        host.name,
        pairs,
        layout.trusted,
        member,
        only_looks=True,
        with_settings=seen is not None,
    )
    if seen is not None:
        seen[host.name] = found
    targets = member_targets(inventory, member, found.group)
    urls = (member.peer_url, member.client_url)
    addresses = {split_url(url)[0] for url in urls}
    return _judge(inventory, found, targets, frozenset(addresses))


async def _check_client(run: Run, host: HostConnection, client: Client) -> list[CertificateRow]:
    inventory = run.inventory
    # One that the operator renews is looked at all the same, also where its key is not named.
    managed = client.model_copy(update={"managed": True, "key": client.key or client.certificate})
    targets = client_targets(inventory, managed)
    seen = await certificates.observe_pairs(
        run,
        host,
        client.name,
        tuple(target.pair for target in targets.values()),
        client.trusted or inventory.layout(host.name).trusted,
        None,
        only_looks=True,
    )
    targets = client_targets(inventory, managed, seen)
    if client.key is None:
        pairs = {label: _without_key(files) for label, files in seen.pairs.items()}
        seen = replace(seen, pairs=pairs)
    if client.trusted is None:
        seen = replace(seen, trusted=None)
    return _judge(inventory, seen, targets, frozenset())


def _without_key(files: LeafFiles) -> LeafFiles:
    public = None
    with suppress(CertificateRefused):
        text = files.certificate.text if files.certificate else None
        public = read_certificate(text or "").public_key_pem.decode()
    return LeafFiles(files.certificate, None, public)


def _judge(
    inventory: Inventory,
    seen: PairsObservation,
    targets: dict[str, LeafTarget],
    addresses: frozenset[str],
) -> list[CertificateRow]:
    now = datetime.now(UTC)

    def place(label: str, path: str) -> Place:
        return Place(
            cluster=inventory.name,
            host=seen.host,
            label=label,
            path=path,
            addresses=addresses,
            trusted=(seen.trusted.text or "") if seen.trusted else None,
            authority=find_authority_certificate(inventory),
            expiry=inventory.expiry,
            has_policy=inventory.topology is Topology.EXTERNAL,
        )

    rows: list[CertificateRow] = []
    if seen.host in {host.name for host in inventory.hosts} or seen.trusted:
        layout = inventory.layout(seen.host)
        label = layout.authority.label if layout.authority else AUTHORITY
        key = seen.pairs.get(label)
        at = place(label, str(layout.trusted))
        rows += judge_authorities(at, now, key, seen.pairs.values())
    for label, target in targets.items():
        rows.append(
            judge_pair(
                place(label, str(target.pair.certificate)),
                seen.pairs[label],
                _served(target.pair, seen, inventory.layout(seen.host)),
                target.want,
                now,
                target.key_mode,
            )
        )
    return rows


def _served(pair: Pair, seen: PairsObservation, layout: Layout) -> dict[int, str | None]:
    ports = {Role.SERVER: layout.client_port, Role.PEER: layout.peer_port}
    return {
        ports[role]: seen.served[ports[role]]
        for role in pair.roles
        if role in ports and ports[role] in seen.served
    }


@step("publish what was found")
async def publish_check(run: Run, check: ClusterCheck) -> None:
    """Publish a cluster's table, tell it to the terminal, and emit an event for each finding."""
    now, findings = datetime.now(UTC), check.all_findings
    write_metrics(check)
    table = certificate_table([check], now, found_only=len(check.rows) > MANY_ROWS)
    problems = [f"{f.grade}: {f}" for f in findings]
    left_out = len(check.rows) - len(table.rows)
    if left_out:
        problems.append(f"{left_out} certificates without a finding are not shown here")
    run.journal.append(Event.OBSERVED, columns=table.columns, rows=table.rows, problems=problems)
    await frame.publish(
        markdown=certificates_markdown((check,), now),
        key=artifact_key("check_certificates", check.cluster),
        description=verdict((check,)),
    )
    _tell_critical(check)
    for finding in findings:
        emit_event(
            event=f"etcd.certificate.{finding.kind}",
            resource={
                "prefect.resource.id": f"etcd.certificate.{check.cluster}.{finding.host}."
                f"{finding.path}",
                "prefect.resource.name": f"{finding.host} {finding.path}",
                "etcd.cluster": check.cluster,
                "etcd.host": finding.host,
                "etcd.grade": finding.grade,
            },
            payload={
                "cluster": check.cluster,
                "host": finding.host,
                "path": finding.path,
                "grade": finding.grade,
                "sentence": finding.sentence,
                "not_after": finding.not_after.isoformat() if finding.not_after else None,
            },
        )


def _tell_critical(check: ClusterCheck) -> None:
    """Send one event for all that is critical: who is told is told once a check."""
    critical = list(map(str, check.critical))
    if not critical:
        return
    emit_event(
        event="etcd.check.critical",
        resource={
            "prefect.resource.id": f"etcd.check.{check.cluster}",
            "prefect.resource.name": f"certificates of {check.cluster}",
            "etcd.cluster": check.cluster,
        },
        payload={
            "cluster": check.cluster,
            "count": len(critical),
            "sentences": "\n".join(first_of(critical, TOLD)),
        },
    )


def write_metrics(check: ClusterCheck) -> None:
    """Write what was found of a cluster's certificates for Prometheus."""
    metrics.write(check.cluster, "certificates", len(check.critical), of_certificates(check))


async def publish_fleet(checks: tuple[ClusterCheck, ...], json_path: str | None) -> None:
    """Publish the table of all clusters where there are several, and write JSON where asked."""
    now = datetime.now(UTC)
    if len(checks) > 1:
        await frame.publish(
            markdown=certificates_markdown(checks, now),
            key=artifact_key("check_certificates", "all"),
            description=verdict(checks),
        )
    if json_path is not None:
        text = json.dumps(certificates_json(checks, now), indent=2) + "\n"
        await asyncio.to_thread(_write_json, json_path, text)


def _write_json(path: str, text: str) -> None:
    write_private(Path(path).expanduser().absolute(), text.encode(), 0o644)


def raise_on_critical(checks: tuple[ClusterCheck, ...]) -> None:
    """Raise CheckFailed that names what is critical, the first of them where there are many."""
    critical = [str(finding) for check in checks for finding in check.critical]
    if not critical:
        return
    raise CheckFailed(
        f"{len(critical)} critical finding(s):\n  - " + "\n  - ".join(first_of(critical, TOLD))
    )
