"""The barriers of a succession of authorities: everybody is looked at again before the next stage.

Stands above `rotation` and the steps; nothing is concluded from what was seen before.
"""

from __future__ import annotations

from tasks.engine.run import Run
from tasks.model.certificates import Generation
from tasks.model.plan import Plan
from tasks.model.trust import TrustView
from tasks.plans import succession as plans
from tasks.plans.barriers import find_issuer_obstacles, find_trust_obstacles
from tasks.procedures import rotation
from tasks.procedures.rotation import Sight
from tasks.steps import health, trust


async def view(run: Run, sight: Sight) -> tuple[tuple[TrustView, ...], tuple[TrustView, ...]]:
    """Say whom every member, and every client, trusts and is signed by.

    Raises EtcdUnavailable for a member that cannot be asked.
    """
    accepted = await health.read_all_accepted(run, sight.members)
    views = {
        name: trust.view_trust(run, seen, accepted.get(name))
        for name, seen in sight.observed.items()
    }
    names = [member.name for member in sight.members]
    clients = tuple(one for name, one in views.items() if name not in names)
    return tuple(views[name] for name in names), clients


def find_strangers(run: Run, sight: Sight, plan: Plan) -> tuple[str, ...]:
    """Tell which further authorities are in the trusted files that a plan writes."""
    names = dict.fromkeys(s.name for s in plan.steps if isinstance(s, plans.WriteTrust))
    return tuple(said for name in names for said in trust.find_strangers(run, sight.observed[name]))


async def verify_trust(run: Run, step: plans.VerifyTrust) -> None:
    """See every member and client trust the authorities of this stage, and no other.

    Raises MemberFailed with all that is missing; the bundle for unmanaged clients is written.
    """
    sight, views = await _look_again(run)
    known = trust.fingerprints(run)
    wanted = set(known.values()) if step.both else {known[Generation.CURRENT]}
    if step.both:
        await trust.write_bundle(run)
    await trust.stand_at_barrier(run, find_trust_obstacles(views, frozenset(wanted)))
    await rotation.verify_ways(run, sight)


async def verify_issuers(run: Run, _step: plans.VerifyIssuers) -> None:
    """See every pair, on disk and served, signed by the authority that signs now.

    Raises MemberFailed with all that is not.
    """
    sight, views = await _look_again(run)
    current = trust.fingerprints(run)[Generation.CURRENT]
    await trust.stand_at_barrier(run, find_issuer_obstacles(views, current))
    await rotation.verify_ways(run, sight)


async def _look_again(run: Run) -> tuple[Sight, tuple[TrustView, ...]]:
    sight = await rotation.look(run, {})
    rotation.refuse_absent(run, sight)
    members, clients = await view(run, sight)
    return sight, (*members, *clients)
