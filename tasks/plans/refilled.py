"""A member that has lost its disk and was filled again under its old id; pure."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.model.cluster import ClusterHealth
from tasks.model.histories import first_id
from tasks.model.nodes import NodeObservation
from tasks.model.plan import Finding, Severity

APART_SECONDS = 120
"""Two hosts' clocks may differ by seconds, and a member joins soon after the first one began."""


def find_refilled(nodes: Iterable[NodeObservation], health: ClusterHealth) -> tuple[Finding, ...]:
    """Warn of the member that began the cluster when its data are younger than a joined one's.

    It has lost its disk and was filled under its old id, as etcd lets a leader be whose manifest
    does not forbid it. Nothing that etcd keeps tells that; a hardened one cannot do it again.
    """
    born = {node.host: node.born for node in nodes if node.born is not None}
    soft = {node.host for node in nodes if not node.settings.begins_nothing}
    began = [m for m in health.seen_members() if m.member.id == first_id(m.member.peer_urls)]
    if len(began) != 1 or began[0].host not in born.keys() & soft:
        return ()
    host = began[0].host
    older = [name for name, since in born.items() if since + APART_SECONDS < born[host]]
    if not older:
        return ()
    said = (
        f"it began this cluster, and its data are younger than those of {', '.join(older)}, which "
        "joined it: its disk was lost and it was filled again under its old id, or the data were "
        "copied there. While it was empty it voted, so that what was acknowledged just before may "
        f"be missing; harden_members lets it end at once"
    )
    return (Finding(Severity.WARNING, host, said),)
