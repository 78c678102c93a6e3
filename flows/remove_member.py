"""Remove members from a running cluster."""

from __future__ import annotations

from typing import Literal

from typing_extensions import override

from tasks.engine.frame import runbook
from tasks.etcd.probe import Probe
from tasks.procedures.changes import MemberRecipe
from tasks.procedures.course import Actions, Choices
from tasks.procedures.drafting import Draft
from tasks.procedures.wishes import Wish


@runbook(flow_run_name="remove {member} from {cluster}")
async def remove_member(
    cluster: str,
    member: list[str],
    write_inventory: bool = False,
    skip: list[Literal["kube_apiservers", "load_balancers"]] | None = None,
    snapshot: Literal["take", "skip"] = "take",
    approval: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Take members out of a cluster, dead ones first, and retire their hosts.

    A member that leads hands leadership over first. Refused where the rest would not have a
    quorum of healthy voters, or would be an even number (unless the inventory allows it).

    Stages, and what is true when the runner dies in one:

    1. Lock, observe, plan: nothing has been changed. A verified snapshot is taken beside 2.
    2. Members, one step at a time: leadership moved, the member removed; its etcd ends by itself.
    3. The other hosts' etcd.conf names the members that are left; the removed host's etcd is
       disabled and its data set aside (of a dead one before it is removed).
    4. The inventory file, if asked for; verify.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        member: its name, id, host or address; an unstarted member has only an id
        write_inventory: write the inventory file's change, which the plan shows
        skip: what else lists the members and is left to be done by hand
        snapshot: `skip` needs a reason
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    wish = Wish(
        leaving=tuple(member),
        planned=True,
        writes_inventory=write_inventory,
        skip=tuple(skip or ()),
    )
    choices = Choices(snapshot=snapshot, approval=approval, dry_run=dry_run, reason=reason)
    await _Removal(cluster, wish).follow(choices)


class _Removal(MemberRecipe):
    runbook = "remove_member"

    @override
    def actions(self, seen: Draft, probe: Probe | None) -> Actions:
        return self.leaving(seen) | self.telling(seen)
