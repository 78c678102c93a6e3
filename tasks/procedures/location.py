"""Where the members are, also those whose host cannot be asked for its address.

A host that was entered by a DNS name tells its address over SSH. When it is dead, those members
that answer say where it is: their list is what the cluster itself goes by.
"""

from __future__ import annotations

from tasks.engine.run import Run
from tasks.model.cluster import DesiredMember
from tasks.model.errors import RunbookError
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
