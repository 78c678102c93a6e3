"""The deployments' forms in Prefect brought up to date with the inventories; run when one changes.

`python -m tasks.engine.forms`, by hand or by `deployments/etcd-runbooks-forms.path`, a unit that
watches deployments/clusters.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import get_current_settings

from tasks.engine.automations import WAY_OUT
from tasks.engine.frame import CHANGES
from tasks.engine.recording import CLUSTER_TAG, TAG
from tasks.model.errors import InvalidInventory, Refused
from tasks.model.inventory_file import list_clusters, load_inventory
from tasks.report.forms import has_choices, shape_cluster_form, shape_form

OF_ONE_CLUSTER = "of-one-cluster"
"""A tag of the deployments that are made here, beside those of prefect.yaml."""
BROUGHT = "brought up to date"
PAGE = 200
FIELDS = (
    *("description", "parameters", "parameter_openapi_schema", "enforce_parameter_schema", "tags"),
    *("entrypoint", "path", "pull_steps", "work_pool_name", "job_variables"),
)
"""What a deployment of one cluster has of its own, and of the one that it is made of."""


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
    """Shape the forms of all our deployments; raises Refused when no server answers.

    Where a runbook names members there is one more deployment for each cluster, RUNBOOK-CLUSTER,
    whose form offers that cluster's members.
    """
    url = get_current_settings().api.url
    if url is None:
        raise Refused(f"forms are a server's, and none is set: {WAY_OUT}")
    clusters, told = read_clusters()
    async with get_client() as client:
        if await client.api_healthcheck() is not None:
            raise Refused(f"no Prefect server answers at {url}: {WAY_OUT}")
        every = await _read(client)
        own = {(d.flow_id, d.name): d for d in every if OF_ONE_CLUSTER in d.tags}
        wanted = set[tuple[UUID, str]]()
        for one in (d for d in every if OF_ONE_CLUSTER not in d.tags):
            schema, changes = one.parameter_openapi_schema or {}, CHANGES in one.tags
            form = shape_form(schema, clusters, changes=changes)
            told.append(f"{one.name}: {'up to date' if form == schema else BROUGHT}")
            if form != schema:
                changed = DeploymentUpdate(parameter_openapi_schema=form)
                await client.update_deployment(one.id, changed)
            for cluster, hosts in clusters.items() if has_choices(schema) else ():
                name = f"{one.name}-{cluster}"
                wanted.add((one.flow_id, name))
                if not hosts:
                    continue  # its inventory is broken: what there is stays as it is
                made = _of_cluster(one, name, cluster, hosts)
                if await _put(client, made, own.get((one.flow_id, name))):
                    told.append(f"{name}: {BROUGHT}")
        for key, gone in own.items():
            if key not in wanted:
                await client.delete_deployment(gone.id)
                told.append(f"{gone.name}: removed; its inventory, or its runbook, is gone")
    return told


async def _read(client: PrefectClient) -> list[DeploymentResponse]:
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    found: list[DeploymentResponse] = []
    while True:
        page = await client.read_deployments(deployment_filter=ours, limit=PAGE, offset=len(found))
        found += page
        if len(page) < PAGE:
            return found


def _of_cluster(
    base: DeploymentResponse, name: str, cluster: str, hosts: Sequence[str]
) -> DeploymentResponse:
    schema, changes = base.parameter_openapi_schema or {}, CHANGES in base.tags
    return base.model_copy(
        update={
            "name": name,
            "description": f"{base.description} Of the cluster {cluster}.",
            "parameters": {**base.parameters, "cluster": cluster},
            "parameter_openapi_schema": shape_cluster_form(schema, cluster, hosts, changes=changes),
            "enforce_parameter_schema": True,
            "tags": [*base.tags, OF_ONE_CLUSTER, CLUSTER_TAG + cluster],
        }
    )


async def _put(
    client: PrefectClient, made: DeploymentResponse, there: DeploymentResponse | None
) -> bool:
    """Make or change the deployment of one cluster; whether it was not so already."""
    fields = {name: getattr(made, name) for name in FIELDS}
    if there is not None and fields == {name: getattr(there, name) for name in FIELDS}:
        return False
    await client.create_deployment(made.flow_id, made.name, **fields)
    return True


if __name__ == "__main__":
    try:
        sys.stdout.write("\n".join([*asyncio.run(apply_all()), "done"]) + "\n")
    except Refused as error:
        sys.exit(f"refused: {error}")
