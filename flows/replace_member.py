"""Replace failed members: from a dead host to a full, healthy cluster."""

from __future__ import annotations

from typing import Literal

from typing_extensions import override

from tasks.engine.frame import runbook
from tasks.etcd.probe import Probe
from tasks.procedures.changes import MemberRecipe
from tasks.procedures.course import Actions, Choices
from tasks.procedures.drafting import Draft
from tasks.procedures.wishes import Wish


@runbook(flow_run_name="replace {member} of {cluster}")
async def replace_member(
    cluster: str,
    member: list[str],
    replacement: list[str] | None = None,
    planned: bool = False,
    write_inventory: bool = False,
    skip: list[Literal["kube_apiservers", "load_balancers"]] | None = None,
    snapshot: Literal["take", "skip"] = "take",
    approval: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Take failed members out, and let a host join in the place of each.

    No host is special: the members are asked wherever they answer, also when the inventory's first
    host is the dead one. A healthy member is refused unless `planned`. Quorum is counted before
    each change of the member list, and the list must be the one that was planned for.

    Stages, and what is true when the runner dies in one:

    1. Lock, observe, plan: nothing has been changed. A verified snapshot is taken beside 2.
    2. Prepare (all hosts at once): account, programs, directories and certificates on the hosts
       that join; where the failed host still answers, its etcd is disabled and its data set aside,
       and where it does not, the members end their connections with it.
    3. Members, one step at a time: the dead one is removed, the new one added as a learner without
       a vote, its etcd.conf written from the live list, started, promoted when it has the log. A
       healthy one (`planned`) is removed last, after it has handed leadership over. What was
       begun stands in the member list, and the next run goes on from there.
    4. The other hosts' etcd.conf names the members that are left; etcd does not read it any more.
    5. The inventory file, if asked for; verify.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        member: the failed member: its name, id, host or address; more than one are replaced in
            one run
        replacement: the host that joins for each, as NAME=ADDRESS, or the name of a host of the
            inventory; without it the same host, reinstalled or emptied
        planned: replace a healthy member: the new one joins before the old one leaves
        write_inventory: write the inventory file's change, which the plan shows
        skip: what else lists the members and is left to be done by hand
        snapshot: `skip` needs a reason
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    wish = Wish(
        leaving=tuple(member),
        joining=tuple(replacement or ()),
        returns=True,
        planned=planned,
        writes_inventory=write_inventory,
        skip=tuple(skip or ()),
    )
    choices = Choices(snapshot=snapshot, approval=approval, dry_run=dry_run, reason=reason)
    await _Replacement(cluster, wish).follow(choices)


class _Replacement(MemberRecipe):
    runbook = "replace_member"

    @override
    def actions(self, seen: Draft, probe: Probe | None) -> Actions:
        return self.preparing(seen) | self.joining(seen) | self.leaving(seen) | self.telling(seen)
