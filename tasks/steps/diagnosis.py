"""The steps of a diagnosis: metrics, a timed read, and counts of what was logged. Read-only."""

from __future__ import annotations

from contextlib import suppress
from statistics import median
from time import monotonic

from tasks.engine.run import Run, step
from tasks.etcd.client import EtcdClient
from tasks.hosts.connection import HostConnection
from tasks.hosts.logs import count_logs_command, parse_log_counts
from tasks.model.diagnosis import MemberMetrics
from tasks.model.errors import RunbookError

READS = 5
LOG_SECONDS = 30.0


@step("read the members' metrics", retry_delays_seconds=())
async def read_metrics(
    _run: Run, client: EtcdClient
) -> tuple[dict[str, MemberMetrics], dict[str, float]]:
    """Read every member's metrics, and time some linearizable reads; who fails is left out."""
    metrics: dict[str, MemberMetrics] = {}
    reads: dict[str, float] = {}
    for endpoint in client.endpoints:  # in turn: a read is timed, and nothing shall be beside it
        with suppress(RunbookError):
            metrics[endpoint.name] = await client.get_metrics(endpoint)
        with suppress(RunbookError):
            taken = []
            for _ in range(READS):
                began = monotonic()
                await client.read_linearizable(endpoint)
                taken.append(monotonic() - began)
            reads[endpoint.name] = median(taken)
    return metrics, reads


@step("count what {host} has logged", retry_delays_seconds=())
async def count_logs(run: Run, host: HostConnection) -> dict[str, int] | None:
    """Count a member's sayings of the last hour; None where it has logged nothing."""
    layout = run.inventory.layout(host.name)
    (result,) = await host.run(count_logs_command(layout), timeout_seconds=LOG_SECONDS)
    return parse_log_counts(result)
