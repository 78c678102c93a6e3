"""Raising a member's quota: its settings, a restart, and what it then runs with. Composes steps."""

from __future__ import annotations

from functools import partial

from tasks.config.settings import set_anywhere
from tasks.engine.run import Run
from tasks.hosts.connection import HostConnection
from tasks.model.errors import Unverified
from tasks.model.space import mebibytes
from tasks.plans.quotas import QUOTA_SETTING, RaiseQuota
from tasks.procedures import restarting
from tasks.procedures.roster import Roster
from tasks.steps import configuration, health, space


async def raise_quota(run: Run, host: HostConnection, step: RaiseQuota, *, roster: Roster) -> None:
    """Give a member a larger quota; raises Unverified where it then runs with another one.

    One that does not come back with it gets its settings back. Where the run dies after they were
    written, the next start has them, and the next run restarts it if it is asked to raise again.
    """
    edit = partial(set_anywhere, name=QUOTA_SETTING, value=str(step.size))
    written = await configuration.edit_settings(run, host, edit)
    await health.move_leader_away(run, host, roster.members)
    await restarting.restart_or_put_back(run, host, roster.members, written)
    async with roster.open(run) as client:
        found = await space.read_running_quotas(run, client, (host.name,))
    if (has := found.get(host.name)) != step.size:
        raise Unverified(
            f"it runs with a quota of {mebibytes(has) if has else 'unknown size'} after its "
            "restart; something that is not in its settings' files gives it",
            host=host.name,
        )
