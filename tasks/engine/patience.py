"""A worker that ends no run: not when it is told to stop, nor while Prefect's API is away.

Prefect's own ends all its runs on SIGTERM, and also after some minutes in which its API has
answered nothing. This one takes no further run when it is told to stop, waits for those under way,
and ends; and it asks an API that is away again for as long as it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import warnings
from collections.abc import Iterator

from prefect.client.schemas.objects import FlowRun
from prefect.workers.process import ProcessWorker
from typing_extensions import override

POLL_SECONDS = 0.5

with warnings.catch_warnings():
    # It takes the place of Prefect's own among the types of workers, of which Prefect warns.
    warnings.simplefilter("ignore", UserWarning)

    class PatientWorker(ProcessWorker):
        """Outlives its API, and can be told to take no more runs; it has a limit of runs."""

        type = "process"
        is_draining = False

        @property
        def runs(self) -> int:
            """How many runs are under way here."""
            return int(self.limiter.borrowed_tokens)

        @override
        async def get_and_submit_flow_runs(self) -> list[FlowRun]:
            """Take the runs that are due, unless it is draining."""
            if not self.is_draining:
                with self._forgiving("asking for runs"):
                    return await super().get_and_submit_flow_runs()
            return []

        @override
        async def sync_with_backend(self) -> None:
            """Send a heartbeat, and hear of the work pool."""
            with self._forgiving("a heartbeat"):
                await super().sync_with_backend()

        @contextlib.contextmanager
        def _forgiving(self, what: str) -> Iterator[None]:
            try:
                yield
            except Exception as error:  # noqa: BLE001 - whatever it is, to end would end the runs
                self._logger.warning("%s failed: %s: %s", what, type(error).__name__, error)


async def work(worker: PatientWorker) -> None:
    """Work until SIGTERM or SIGINT, and then until no run is under way any more."""
    working = asyncio.ensure_future(worker.start())

    def drain() -> None:
        if not worker.is_draining:
            said = f"{worker.name}: takes no further run, and ends after those under way"
            sys.stdout.write(f"{said}: {worker.runs}\n")
            sys.stdout.flush()
        worker.is_draining = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, drain)
    while not working.done() and not (worker.is_draining and worker.runs == 0):
        await asyncio.wait({working}, timeout=POLL_SECONDS)
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
