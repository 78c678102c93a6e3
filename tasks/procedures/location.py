"""Where the members are, also those whose host cannot be asked for its address.

A host that was entered by a DNS name tells its address over SSH. When it is dead, those members
that answer say where it is: their list is what the cluster itself goes by. And from where a member
reaches the others, since they look at that.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from tasks.engine.run import Run, together
from tasks.model.certificates import Role
from tasks.model.cluster import DesiredMember
from tasks.model.errors import RunbookError
from tasks.model.fields import is_ip_address
from tasks.model.plan import Finding, Severity
from tasks.pki.targets import wanted_leaves
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
    run: Run, members: Iterable[DesiredMember], others: Iterable[DesiredMember]
) -> tuple[Finding, ...]:
    """Refuse members that reach the others from an address that their certificates do not name.

    A peer that shows a certificate with addresses alone must come from one of them (checkCertSAN
    of etcd's client/pkg/transport). With DNS names etcd resolves those, which only it can tell.
    """
    inventory, all_of_them = run.inventory, tuple(others)

    async def look(member: DesiredMember) -> list[Finding]:
        leaf = wanted_leaves(inventory, inventory.host(member.name), member)[Role.PEER]
        if not all(map(is_ip_address, leaf.sans)):
            return []
        urls = (other.peer_url for other in all_of_them if other.name != member.name)
        hosts = tuple(host for url in urls if is_ip_address(host := urlsplit(url).hostname or ""))
        found = await preflight.find_sources(run, run.hosts[member.name], hosts)
        return [
            Finding(
                Severity.REFUSAL,
                member.name,
                f"reaches the other members from {source}, which its peer certificate would not "
                f"name ({', '.join(leaf.sans)}), so that they would refuse it; let it come from "
                f"its own address (ip route replace ... src), take {source} off it, or add it to "
                "the host's extra_sans",
            )
            for source in sorted(found - set(leaf.sans))
        ]

    return tuple(finding for found in await together(map(look, members)) for finding in found)
