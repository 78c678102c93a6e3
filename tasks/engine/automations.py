"""Prefect's automations for these runbooks, made or brought up to date by name.

What `deployments/automations.yaml` says, matched by name, so that a second time changes nothing
and doubles nothing. Where the file has no action of its own, the operator's stays.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient, get_client
from prefect.events.actions import DoNothing
from prefect.settings import get_current_settings
from ruamel.yaml import YAML

from tasks.model.errors import Refused

DESIRED = Path(__file__).parents[2] / "deployments" / "automations.yaml"
WAY_OUT = "start it with `.venv/bin/prefect server start`, or set PREFECT_API_URL to the team's"


def read_desired(path: Path = DESIRED) -> tuple[AutomationCore, ...]:
    """Read the automations that shall be."""
    content = YAML(typ="safe").load(path)
    return tuple(AutomationCore.model_validate(one) for one in content["automations"])


async def apply(client: PrefectClient, desired: AutomationCore) -> str:
    """Make one automation what it shall be, and the only one of its name; returns a sentence."""
    found = await client.read_automations_by_name(desired.name)
    if not found:
        await client.create_automation(desired)
        return f"{desired.name}: created"
    kept, *doubles = sorted(found, key=lambda one: str(one.id))
    for double in doubles:
        await client.delete_automation(double.id)
    placeholder = all(isinstance(action, DoNothing) for action in desired.actions)
    actions = kept.actions if placeholder else desired.actions
    wanted = desired.model_copy(update={"enabled": kept.enabled, "actions": actions})
    await client.update_automation(kept.id, wanted)
    return f"{desired.name}: up to date" + (f", {len(doubles)} doubles deleted" if doubles else "")


async def apply_all() -> list[str]:
    """Apply all of them; raises Refused, with nothing changed, when no server answers."""
    url = get_current_settings().api.url
    if url is None:
        raise Refused(f"automations are a server's, and none is set: {WAY_OUT}")
    async with get_client() as client:
        if await client.api_healthcheck() is not None:
            raise Refused(f"no Prefect server answers at {url}: {WAY_OUT}")
        return [await apply(client, desired) for desired in read_desired()]


if __name__ == "__main__":
    try:
        sys.stdout.write("\n".join([*asyncio.run(apply_all()), "done"]) + "\n")
    except Refused as error:
        sys.exit(f"refused: {error}")
