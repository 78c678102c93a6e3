"""The deployments' forms in Prefect brought up to date with the inventories; run when one changes.

`python -m tasks.engine.forms`, by hand or by `deployments/etcd-runbooks-forms.path`, a unit that
watches deployments/clusters.
"""

from __future__ import annotations

import asyncio
import sys

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.settings import get_current_settings

from tasks.engine.automations import WAY_OUT
from tasks.engine.frame import CHANGES
from tasks.engine.recording import TAG
from tasks.model.errors import InvalidInventory, Refused
from tasks.model.inventory_file import list_clusters, load_inventory
from tasks.report.forms import shape_form


def read_clusters() -> tuple[dict[str, list[str]], list[str]]:
    """Read every inventory: its hosts by its name, and what is wrong with those that are broken.

    A broken one is a choice all the same: its run says what is wrong.
    """
    found, wrong = dict[str, list[str]](), list[str]()
    for name in list_clusters():
        try:
            found[name] = [host.name for host in load_inventory(name).hosts]
        except InvalidInventory as error:
            found[name] = []
            wrong.append(str(error))
    return found, wrong


async def apply_all() -> list[str]:
    """Shape the forms of all our deployments; raises Refused when no server answers."""
    url = get_current_settings().api.url
    if url is None:
        raise Refused(f"forms are a server's, and none is set: {WAY_OUT}")
    clusters, told = read_clusters()
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    async with get_client() as client:
        if await client.api_healthcheck() is not None:
            raise Refused(f"no Prefect server answers at {url}: {WAY_OUT}")
        for one in await client.read_deployments(deployment_filter=ours):
            schema = one.parameter_openapi_schema or {}
            form = shape_form(schema, clusters, changes=CHANGES in one.tags)
            if form == schema:
                told.append(f"{one.name}: up to date")
                continue
            changed = DeploymentUpdate(parameter_openapi_schema=form)
            await client.update_deployment(one.id, changed)
            told.append(f"{one.name}: brought up to date")
    return told


if __name__ == "__main__":
    try:
        sys.stdout.write("\n".join([*asyncio.run(apply_all()), "done"]) + "\n")
    except Refused as error:
        sys.exit(f"refused: {error}")
