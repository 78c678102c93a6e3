"""Give a member another address."""

from __future__ import annotations

from typing import Literal

from typing_extensions import override

from tasks.engine.frame import runbook
from tasks.etcd.probe import Probe
from tasks.procedures.changes import MemberRecipe
from tasks.procedures.course import Actions, Choices
from tasks.procedures.drafting import Draft
from tasks.procedures.wishes import Wish


@runbook(flow_run_name="move {member} of {cluster} to {address}")
async def update_member(
    cluster: str,
    member: str,
    address: str,
    write_inventory: bool = False,
    skip: list[Literal["kube_apiservers", "load_balancers"]] | None = None,
    snapshot: Literal["take", "skip"] = "take",
    approval: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> None:
    """Tell the cluster a member's new peer and client URL; its data and its id stay.

    The host must have the new address already, and SSH must reach it there. The member restarts
    once, so the cluster must be able to lose it. Where its URLs have a name, they stay, and the
    other hosts must have that name at the new address already.

    Stages, and what is true when the runner dies in one:

    1. Lock, observe, plan: nothing has been changed. A verified snapshot is taken beside 2.
    2. Certificates that name the new address; until the restart no member connects to it anew.
    3. Leadership moved if it leads; the new peer URL in the member list; its etcd.conf, a restart.
       Each is looked for by the next run, which does what is left.
    4. The other hosts' etcd.conf, and what else lists the members.
    5. The inventory file, if asked for; verify.

    Args:
        cluster: name under deployments/clusters, or the path of an inventory file
        member: the member's name in the inventory
        address: its new IP address
        write_inventory: write the inventory file's change, which the plan shows
        skip: what else lists the members and is left to be done by hand
        snapshot: `skip` needs a reason
        approval: show the plan and wait for a person, also where the inventory does not ask it
        dry_run: stop after the plan; nothing is changed
        reason: why, for the record
    """
    wish = Wish(
        moving=f"{member}={address}", writes_inventory=write_inventory, skip=tuple(skip or ())
    )
    choices = Choices(snapshot=snapshot, approval=approval, dry_run=dry_run, reason=reason)
    await _Readdressing(cluster, wish).follow(choices)


class _Readdressing(MemberRecipe):
    runbook = "update_member"

    @override
    def actions(self, seen: Draft, probe: Probe | None) -> Actions:
        return self.preparing(seen) | self.readdressing(seen) | self.telling(seen)
