"""Where the members are, also those whose host cannot be asked for its address.

A host that was entered by a DNS name tells its address over SSH. When it is dead, those members
that answer say where it is: their list is what the cluster itself goes by. And from where a member
reaches the others, since they look at that.
"""

from __future__ import annotations

from collections.abc import Mapping

from tasks.config.settings import read_settings
from tasks.engine.run import Run, together
from tasks.model.certificates import Role
from tasks.model.errors import CertificateRefused, RunbookError
from tasks.model.fields import is_ip_address
from tasks.model.members import DesiredMember
from tasks.model.observation import HostObservation
from tasks.model.plan import Finding
from tasks.model.urls import split_url
from tasks.pki.inspect import read_certificate
from tasks.pki.targets import wanted_leaves
from tasks.plans.sources import SKIPPING, Way, find_strange
from tasks.steps import health, preflight


async def locate_members(run: Run) -> tuple[DesiredMember, ...]:
    """Get the members that the inventory names; never fails for a host that cannot be reached."""
    members, guessed = await preflight.locate_members(run)
    known = tuple(member for member in members if member.name not in guessed)
    if not guessed or not known:
        return members
    try:
        async with health.etcd_client(run, known) as client:
            found = await client.observe_cluster()
    except RunbookError:
        return members  # an authority that cannot sign now; the names' addresses have to do
    listed = {m.host: m.as_desired for m in found.seen_members() if m.client_url}
    return tuple(listed.get(m.name, m) if m.name in guessed else m for m in members)


async def find_strange_sources(
    run: Run,
    made: tuple[DesiredMember, ...],
    goal: tuple[DesiredMember, ...],
    observed: Mapping[str, HostObservation],
) -> tuple[Finding, ...]:
    """Refuse members that come, to or from one that joins or moves, from where nobody knows them.

    The others as well: they may reach its new address from one that their certificates lack, of
    the other family, for one.
    """
    inventory, changed = run.inventory, {member.name for member in made}
    seen = [member for member in goal if member.name in observed]

    async def look(member: DesiredMember) -> list[Way]:
        ends = {
            host: other.name
            for other in goal
            if other.name != member.name
            and {member.name, other.name} & changed
            and not _skips(observed.get(other.name))
            and is_ip_address(host := split_url(other.peer_url)[0])
        }
        if not ends:
            return []
        found = await preflight.find_sources(run, run.hosts[member.name], tuple(ends))
        return [Way(member.name, ends[address], source) for address, source in found.items()]

    ways = [way for found in await together(map(look, seen)) for way in found]
    sans = {
        member.name: wanted_leaves(inventory, inventory.host(member.name), member)[Role.PEER].sans
        if member.name in changed
        else _sans(observed[member.name])
        for member in seen
    }
    resolved = {name: host.resolved for name, host in observed.items()}
    return find_strange(ways, sans, resolved, changed)


def _skips(host: HostObservation | None) -> bool:
    """Whether a member does not look at where its peers come from."""
    if host is None or host.settings is None:
        return False
    settings = read_settings(host.settings)
    return any(settings.value(name) == "true" for name in SKIPPING)


def _sans(host: HostObservation) -> tuple[str, ...]:
    pair = host.leaves.get(Role.PEER)
    if pair is None or pair.certificate is None or not pair.certificate.text:
        return ()
    try:
        return tuple(sorted(read_certificate(pair.certificate.text).sans))
    except CertificateRefused:
        return ()
