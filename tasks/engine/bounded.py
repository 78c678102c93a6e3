"""A process worker that runs this checkout's runbooks, and nothing else.

`python -m tasks.engine.bounded --name NAME`. Prefect's own lets whoever may write to its API choose
what the worker's account executes: by the job variables of a run, the pull steps or entrypoint of a
deployment, the template of a work pool. Here the API says which runbook with which parameters, and
no more; command, code, directory and environment are the worker's own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import warnings
from pathlib import Path
from typing import cast

from anyio import TASK_STATUS_IGNORED, create_task_group
from anyio.abc import TaskStatus
from cyclopts import App
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.runner._flow_run_executor import FlowRunExecutionResult, FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle
from prefect.runner._starter_engine import EngineCommandStarter
from prefect.workers.process import (
    ProcessJobConfiguration,
    ProcessWorkerResult,
)
from typing_extensions import override

from tasks.engine.patience import PatientWorker, work

LIMIT = 8
"""Runs at once; each is a process of about 100 MB."""
ROOT = Path(__file__).resolve().parents[2]
OWN_ENVIRONMENT = {
    # deployments/automations.yaml takes a run without three of these for one without a runner.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # A database that is away for a moment answers 500; the run asks again.
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500,502",
}
REFUSED = (
    "{} is no runbook of this worker's checkout, {}, and it runs nothing else; deploy again from "
    "it with `prefect --no-prompt deploy --all`. Nothing was changed"
)


class Configuration(ProcessJobConfiguration):
    """How a run is started, whatever the work pool, the deployment and the run say of it."""

    runbook: str = ""

    @override
    @classmethod
    async def resolve_for_flow_run(
        cls,
        flow_run: FlowRun,
        *,
        client: PrefectClient,
        work_pool: WorkPool,
        worker_name: str,
        worker_id: object = None,
        deployment: DeploymentResponse | None = None,
    ) -> Configuration:
        """Read the name of the flow alone; job variables and templates are not looked at."""
        if deployment is None and flow_run.deployment_id is not None:
            deployment = await client.read_deployment(flow_run.deployment_id)
        flow = await client.read_flow(flow_run.flow_id)
        own = cls(env=dict(OWN_ENVIRONMENT), working_dir=ROOT, runbook=flow.name)
        own.prepare_for_flow_run(flow_run, deployment, flow, work_pool, worker_name)
        return own

    @property
    def entrypoint(self) -> str | None:
        """Where the runbook is in this checkout; None where it is none."""
        known = {path.stem for path in (ROOT / "flows").glob("[!_]*.py")}
        return f"flows/{self.runbook}.py:{self.runbook}" if self.runbook in known else None


class _NoHooks:
    """Hooks of a flow, which Prefect would load as the deployment says; runbooks have none."""

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Do nothing."""

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Do nothing."""


with warnings.catch_warnings():
    # It takes the place of Prefect's own among the types of workers, of which Prefect warns.
    warnings.simplefilter("ignore", UserWarning)

    class BoundedWorker(PatientWorker):
        """Starts each run as a process of this checkout."""

        type = "process"
        job_configuration = Configuration

        @override
        async def run(
            self,
            flow_run: FlowRun,
            configuration: ProcessJobConfiguration,
            task_status: TaskStatus[int] | None = None,
        ) -> ProcessWorkerResult:
            """Run it to its end; what is no runbook ends as Refused."""
            status = TASK_STATUS_IGNORED if task_status is None else task_status
            own = cast("Configuration", configuration)
            if own.entrypoint is None:
                told = REFUSED.format(own.runbook, ROOT)
                state: State = State(type=StateType.FAILED, name="Refused", message=told)
                await self.client.set_flow_run_state(flow_run.id, state, force=True)
                status.started(0)
                return ProcessWorkerResult(status_code=0, identifier="none")
            async with FlowRunExecutorContext() as context, create_task_group() as group:
                starter = EngineCommandStarter(
                    entrypoint=own.entrypoint,
                    cwd=ROOT,
                    env=own.env,
                    control_channel=context.control_channel,
                )
                executor = context.create_executor(
                    flow_run, starter, propose_submitting=False, hook_runner=_NoHooks()
                )
                ended: list[FlowRunExecutionResult | None] = []

                async def execute(*, task_status: TaskStatus[ProcessHandle]) -> None:
                    ended.append(await executor.submit(task_status=task_status))

                handle = await group.start(execute)
                status.started(handle.pid or 0)
            result = ended[0]
            if result is None or result.status_code is None:
                raise RuntimeError("the run's process did not start")
            return ProcessWorkerResult(
                status_code=result.status_code, identifier=str(result.handle.pid)
            )


def main(*, name: str | None = None) -> None:
    """Take runs from the work pool `etcd` until told to stop, which waits for those under way.

    Args:
        name: how Prefect's UI calls this worker; without it, by machine and process
    """
    worker = BoundedWorker(
        work_pool_name="etcd",
        name=name or f"{socket.gethostname()}-{os.getpid()}",
        limit=LIMIT,
        create_pool_if_not_found=False,
    )
    asyncio.run(work(worker))


if __name__ == "__main__":
    app = App(version_flags=(), result_action="return_value")
    app.default(main)
    app()
