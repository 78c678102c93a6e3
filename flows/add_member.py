"""Add members to a running cluster."""

from __future__ import annotations

from typing import Literal

from typing_extensions import override

from tasks.engine.frame import runbook
from tasks.etcd.probe import Probe
from tasks.procedures.changes import MemberRecipe
from tasks.procedures.course import Actions, Choices
from tasks.procedures.drafting import Draft
from tasks.procedures.wishes import Wish


@runbook(flow_run_name="add {member} to {cluster}")
async def add_member(
    cluster: str,
    member: list[str],
    write_inventory: bool = False,
    skip: list[Literal["kube_apiservers", "load_balancers"]] | None = None,
    snapshot: Literal["take", "skip"] = "take",
    approval: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Let hosts join a cluster, one after the other: first as learners, without a vote.

    Stages, and what is true when the runner dies in one:

    1. Lock, observe, plan: nothing has been changed. A verified snapshot is taken beside 2.
    2. Prepare the hosts that join, all at once: account, programs, directories, certificates.
    3. Members, one step at a time: add a learner, write its etcd.conf from the live list, start,
       promote. What was begun stands in the member list, and the next run goes on from there.
    4. The other hosts' etcd.conf names the new members; etcd does not read it any more.
    5. The inventory file, if asked for; verify.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        member: the host that joins, as NAME=ADDRESS, or the name of a host of the inventory;
            give two to keep the number of members odd
        write_inventory: write the inventory file's change, which the plan shows
        skip: what else lists the members and is left to be done by hand
        snapshot: `skip` needs a reason
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    wish = Wish(joining=tuple(member), writes_inventory=write_inventory, skip=tuple(skip or ()))
    choices = Choices(snapshot=snapshot, approval=approval, dry_run=dry_run, reason=reason)
    await _Addition(cluster, wish).follow(choices)


class _Addition(MemberRecipe):
    runbook = "add_member"

    @override
    def actions(self, seen: Draft, probe: Probe | None) -> Actions:
        return self.preparing(seen) | self.joining(seen) | self.telling(seen)
