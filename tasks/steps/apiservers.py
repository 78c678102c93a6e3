"""API servers that live on no member, while a cluster is restored: stopped first, started last."""

from __future__ import annotations

from tasks.engine.run import Run, step, together
from tasks.hosts import files, pods
from tasks.hosts.connection import HostConnection
from tasks.model.clients import KubeApiserver
from tasks.model.errors import CommandFailed, RunbookError
from tasks.plans.restoration import ResumeApiserver, SilenceApiserver


@step("look for the API server on {host}", retry_delays_seconds=(1.0,))
async def see_apiserver(_run: Run, host: HostConnection, one: KubeApiserver) -> str:
    """Say why this run cannot stop an API server; empty where it can."""
    try:
        await host.run(pods.there_command(one.pod))
    except CommandFailed as error:
        return error.stderr.strip() or error.message
    return ""


async def find_unheard(run: Run) -> dict[str, str]:
    """Say of each declared API server why it cannot be stopped by this run; empty: it can."""

    async def see(one: KubeApiserver) -> tuple[str, str]:
        try:
            return one.name, await see_apiserver(run, run.clients[one.name], one)
        except RunbookError as error:
            return one.name, error.message

    return dict(await together(map(see, run.inventory.kube_apiservers)))


@step("stop the API server on {host}", retry_delays_seconds=())
async def silence_apiserver(run: Run, host: HostConnection, planned: SilenceApiserver) -> bool:
    """Take its manifest out of the kubelet's directory, and wait until its process has ended."""
    one = _declared(run, planned.host)
    (result,) = await host.run(
        pods.pause_command(one.pod), changes=True, timeout_seconds=pods.LIMIT_SECONDS
    )
    return files.parse_change(result)


@step("start the API server on {host}", retry_delays_seconds=())
async def resume_apiserver(run: Run, host: HostConnection, planned: ResumeApiserver) -> bool:
    """Put its manifest back and wait until it is live; raises CommandFailed."""
    one = _declared(run, planned.host)
    (result,) = await host.run(
        pods.resume_live_command(one.pod, one.livez),
        changes=True,
        timeout_seconds=pods.START_SECONDS + 30.0,
    )
    return files.parse_change(result)


def _declared(run: Run, name: str | None) -> KubeApiserver:
    return next(one for one in run.inventory.kube_apiservers if one.name == name)
