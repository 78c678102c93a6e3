"""Preflight: every reason not to start, from what was seen, all at once.

Refusals forbid the run; warnings are the operator's to weigh. Thresholds are named here, with
their source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address

from tasks.model.fields import is_ip_address, is_same_host
from tasks.model.inventory import Inventory
from tasks.model.machines import Host
from tasks.model.observation import (
    ClockReading,
    DataDirectory,
    HostObservation,
    PairsObservation,
    Path,
    Reachability,
)
from tasks.model.plan import Finding, Severity
from tasks.model.settings import InstalledBinaries
from tasks.plans.rooms import room_findings

ARCHITECTURES = ("x86_64", "aarch64")
SYSTEMD_MINIMUM = 219
"""RHEL 7's. What the unit has of later ones is passed over there, and etcd can do without it."""
CLOCK_WARNING_SECONDS, CLOCK_REFUSAL_SECONDS = 1.0, 60.0
"""Certificates are back-dated by five minutes; one minute apart is a broken clock all the same."""
FSYNC_WARNING_SECONDS = 0.010
"""https://etcd.io/docs/v3.5/faq: the 99th percentile of WAL fsync should be below 10 ms."""
DISK_REFUSAL_BYTES, DISK_WARNING_BYTES = 256 << 20, 2 << 30
"""The default quota is 2 GiB; less than 256 MiB does not hold the first WAL and programs."""


def is_bound_elsewhere(path: Path, host: HostObservation) -> bool:
    """Whether the member holds the port at its old address alone, and nobody hears at the new one.

    Such a refusal tells nothing of a firewall; a listener beside it would take etcd's place.
    """
    bound = {each.address for each in host.listeners if each.port == path.port and each.is_own}
    everywhere = {path.address, "*", "0.0.0.0", "::"}  # noqa: S104 - as ss writes it
    return path.met is Reachability.REFUSED and bool(bound) and not bound & everywhere


def find_reasons(
    inventory: Inventory, hosts: tuple[HostObservation, ...], paths: tuple[Path, ...]
) -> tuple[Finding, ...]:
    """List every finding, refusals first, in the inventory's order."""
    found = [*_members(inventory), *clock_findings(hosts)]
    for host in hosts:
        found += _machine(host)
        found += _unit(host, inventory)
        found += _disk(host, inventory)
        found += room_findings(host, inventory)
        found += _ports(host, inventory)
        found += _programs(host, inventory)
        found += _names(host, inventory)
    found += path_findings(paths)
    return tuple(sorted(found, key=lambda finding: finding.severity is Severity.WARNING))


def _refusal(host: str | None, sentence: str) -> Finding:
    return Finding(Severity.REFUSAL, host, sentence)


def _warning(host: str | None, sentence: str) -> Finding:
    return Finding(Severity.WARNING, host, sentence)


def _members(inventory: Inventory) -> Iterator[Finding]:
    count = len(inventory.hosts)
    if count % 2 == 0:
        tolerated = (count - 1) // 2
        sentence = (
            f"{count} members tolerate {tolerated} failure(s), no more than {count - 1} would"
        )
        if inventory.even_members:
            yield _warning(None, sentence)
        else:
            yield _refusal(None, f"{sentence}; use an odd number, or set even_members: true")
    elif count == 1:
        yield _warning(None, "one member tolerates no failure; use three or more")


def clock_findings(
    hosts: Sequence[HostObservation | PairsObservation | ClockReading],
) -> Iterator[Finding]:
    """Tell clocks that are apart from each other or from the runner's, which dates certificates."""
    if not hosts:
        return
    first = min(hosts, key=lambda h: h.clock_offset)
    last = max(hosts, key=lambda h: h.clock_offset)
    apart = last.clock_offset - first.clock_offset
    apart -= first.clock_uncertainty + last.clock_uncertainty
    if apart > CLOCK_WARNING_SECONDS:
        sentence = (
            f"the clock is {apart:.1f} s ahead of {first.host}'s; let NTP set both, then try again"
        )
        severe = apart > CLOCK_REFUSAL_SECONDS
        yield (_refusal if severe else _warning)(last.host, sentence)
    for host in hosts:
        ahead = abs(host.clock_offset) - host.clock_uncertainty
        if ahead > CLOCK_REFUSAL_SECONDS:
            yield _refusal(
                host.host,
                f"the clock is {ahead:.0f} s away from the runner's, which dates the certificates",
            )


def _machine(host: HostObservation) -> Iterator[Finding]:
    if host.architecture not in ARCHITECTURES:
        yield _refusal(
            host.host, f"is {host.architecture}; etcd supports {', '.join(ARCHITECTURES)}"
        )
    if host.systemd_version is None:
        yield _refusal(host.host, "does not run systemd, which starts and watches etcd here")
    elif host.systemd_version < SYSTEMD_MINIMUM:
        yield _refusal(
            host.host, f"has systemd {host.systemd_version}; {SYSTEMD_MINIMUM} or newer is needed"
        )
    if host.missing_tools:
        yield _refusal(
            host.host,
            f"lacks {', '.join(host.missing_tools)}; install the packages that have them "
            "(Debian: openssl util-linux iproute2 passwd)",
        )


def _unit(host: HostObservation, inventory: Inventory) -> Iterator[Finding]:
    """Refuse what somebody forbade to start; writing the unit would lift that in silence."""
    if host.service is not None and host.service.is_masked:
        unit = inventory.layout(host.host).service
        yield _refusal(
            host.host,
            f"{unit} is masked and must not start; on {host.host}: systemctl unmask {unit}",
        )


def _disk(host: HostObservation, inventory: Inventory) -> Iterator[Finding]:
    state = inventory.layout(host.host).data
    if host.fsync_mean is None:
        yield _refusal(host.host, f"the disk of {state} took no test write; is it full, read-only?")
    elif host.fsync_mean > FSYNC_WARNING_SECONDS:
        yield _warning(
            host.host,
            f"a synchronous write to the disk of {state} takes {host.fsync_mean * 1000:.1f} ms in "
            f"the mean; etcd wants its slowest below {FSYNC_WARNING_SECONDS * 1000:.0f} ms",
        )
    free = f"{host.disk_free / (1 << 20):.0f} MiB free for {state}"
    if host.disk_free < DISK_REFUSAL_BYTES and host.data is not DataDirectory.INITIALISED:
        yield _refusal(host.host, f"has only {free}; {DISK_REFUSAL_BYTES >> 20} MiB are needed")
    elif host.disk_free < DISK_WARNING_BYTES:
        yield _warning(host.host, f"has {free}; etcd's default quota alone is 2 GiB")


def _ports(host: HostObservation, inventory: Inventory) -> Iterator[Finding]:
    layout = inventory.layout(host.host)
    told = set()
    for listener in host.listeners:
        if listener.port not in (layout.client_port, layout.peer_port) or listener.is_own:
            continue
        holder = f"{listener.program} of {listener.unit}" if listener.unit else listener.program
        if (listener.port, holder) in told:  # at each of its addresses
            continue
        told.add((listener.port, holder))
        way = "stop it first"
        if listener.program == "etcd":
            way = (
                f"it is not this inventory's {layout.service}; stop it first, or give one of "
                "the two other ports (etcd.client_port, etcd.peer_port)"
            )
        yield _refusal(
            host.host,
            f"port {listener.port} is taken by {holder}; {way} "
            f"(ss -ltnp 'sport = :{listener.port}')",
        )


def _programs(host: HostObservation, inventory: Inventory) -> Iterator[Finding]:
    if not isinstance(inventory.etcd.binaries, InstalledBinaries):
        return
    etcd = next((p for p in host.programs if p.name == "etcd"), None)
    where = f"{inventory.layout(host.host).binaries}/etcd"
    if etcd is None:
        yield _refusal(
            host.host,
            f"there is no {where}, and etcd.binaries says it is installed; install it, or let the "
            "runbook upload it (etcd.binaries.source: archive or directory)",
        )
    elif etcd.version != inventory.etcd.version:
        yield _refusal(
            host.host,
            f"{where} is version {etcd.version or 'unknown'}; the inventory wants "
            f"{inventory.etcd.version}",
        )


def _names(host: HostObservation, inventory: Inventory) -> Iterator[Finding]:
    for name, addresses in host.resolved.items():
        if not addresses:
            yield _warning(
                host.host,
                f"does not resolve {name}, which certificates will name; add it to DNS or "
                "/etc/hosts if clients use it",
            )
    if not is_same_host(host.hostname, host.host):
        yield _warning(host.host, f"calls itself {host.hostname}; is this the right machine?")
    wanted = inventory.host(host.host)
    for label, address in (
        ("peer_address", wanted.peer_address),
        ("client_address", wanted.client_address),
    ):
        if address and is_ip_address(address) and not _has(host, address):
            yield _refusal(host.host, f"does not have {label} {address} of the inventory")
    fixed = wanted.fixed_address
    if fixed and not _has(host, fixed):
        needed = not (wanted.peer_address and wanted.client_address)
        if needed:
            yield _refusal(
                host.host,
                f"does not have the address {fixed} itself (it has "
                f"{', '.join(host.addresses) or 'none'}); behind a NAT, set peer_address and "
                "client_address too",
            )


def find_unmoved_names(moved: Host, observed: Iterable[HostObservation]) -> Iterator[Finding]:
    """Refuse to move a member whose name the others still have at another address.

    It would listen where none of them looks for it.
    """
    names = {a for a in (moved.peer_address, moved.client_address) if a and not is_ip_address(a)}
    for host in observed:
        for name in sorted(names) if host.host != moved.name else ():
            found = host.resolved.get(name, ())
            if moved.fixed_address and moved.fixed_address not in found:
                yield _refusal(
                    host.host,
                    f"has {name} at {', '.join(found) or 'no address'}; let it resolve to "
                    f"{moved.fixed_address} there (DNS, /etc/hosts) before {moved.name} moves",
                )


def _has(host: HostObservation, address: str) -> bool:
    """Whether a host has an address; one of IPv6 is written in more than one way."""
    return ip_address(address) in map(ip_address, host.addresses)


def path_findings(paths: Iterable[Path]) -> Iterator[Finding]:
    """Refuse ways that are shut, named by pair."""
    return map(_path_finding, (path for path in paths if path.met is not Reachability.OPEN))


def _path_finding(path: Path) -> Finding:
    way = f"cannot reach {path.target} at {path.address} port {path.port} ({path.met})"
    hint = {
        Reachability.TIMED_OUT: "a firewall drops it; open the port between the hosts",
        Reachability.REFUSED: "a firewall rejects it; open the port between the hosts",
        Reachability.WRONG_HOST: "two machines share the address, or the inventory has a wrong one",
    }[path.met]
    if not is_ip_address(path.address):
        hint = f"{path.address} resolves to nothing or to another's address there, or {hint}"
    return _refusal(path.source, f"{way}: {hint}")
