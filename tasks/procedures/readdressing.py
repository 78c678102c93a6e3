"""Giving a static pod's member another address: what its pairs lack, and its manifest's edit.

Composes steps; owns none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.engine.authority import known_authorities
from tasks.engine.run import Run
from tasks.model.certificates import Generation
from tasks.model.members import DesiredMember
from tasks.pki.targets import LeafTarget, member_targets
from tasks.plans.leaves import Work
from tasks.steps import certificates


@dataclass(frozen=True, slots=True)
class Leaves:
    """The pairs of a host as they shall be, and why some are to be replaced, by label."""

    targets: dict[str, dict[str, LeafTarget]] = field(default_factory=dict)
    work: Work = field(default_factory=dict)


async def find_leaves(run: Run, member: DesiredMember) -> Leaves:
    """See which pairs of a host do not name a member's new address; they keep what else they are.

    The former address stays in them, so that nobody is turned away before the restart.
    """
    host, layout = run.hosts[member.name], run.inventory.layout(member.name)
    seen = await certificates.observe_pairs(
        run, host, member.name, layout.pairs, layout.trusted, None
    )
    targets = member_targets(run.inventory, member, seen.group, seen)
    authority = known_authorities(run)[Generation.CURRENT]
    work = {
        label: certificates.pair_differences(
            run.inventory, target, seen.pairs[label], authority, early=False
        )
        for label, target in targets.items()
    }
    return Leaves({member.name: targets}, {member.name: work})
