"""A run from the command line: Prefect's engine around a flow, and an outcome in bounded time.

Prefect makes the run and keeps its state; when its API dies, its engine hangs in retries. So the
engine runs beside: the outcome is the body's, and the engine is left behind when it does not end.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import signal
from typing import Any
from urllib.parse import urlsplit

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow_async
from prefect.settings import get_current_settings
from prefect.states import Pending
from prefect.utilities.callables import get_call_parameters

from tasks.engine import recording
from tasks.engine.frame import RECORD_SECONDS, Frame, current, tags_for
from tasks.model.errors import RecordUnreachable, Refused
from tasks.model.outcome import INTERRUPTED, Outcome, outcome_of

CONNECT_SECONDS = 5.0
CREATE_SECONDS = 20.0
BEGIN_SECONDS = 60.0
FINAL_SECONDS = 4.0
"""How long Prefect's engine has for its last state, and then the delivery for putting it right."""
TOLD_SECONDS = RECORD_SECONDS + 2 * FINAL_SECONDS + 2
"""The longest time between the end of a body and its outcome on the terminal."""


class Launch:
    """One run from the command line; `behind` names its file where Prefect has not heard all."""

    def __init__(self, flow: Flow[..., Any], arguments: tuple[Any, ...], options: Any) -> None:  # noqa: ANN401 - the flow's own
        self.flow = flow
        self.parameters = get_call_parameters(flow.fn, arguments, options)
        self.frame: Frame | None = None

    @property
    def behind(self) -> str | None:
        """The file that holds what Prefect has not heard yet."""
        if self.frame is None or not self.frame.is_behind:
            return None
        return str(self.frame.journal.path)

    def run(self) -> Outcome:
        """Run it to its end; nothing of Prefect's is raised."""
        # Not asyncio.run: that would wait for what Prefect's engine still hangs in.
        loop = asyncio.new_event_loop()
        main = loop.create_task(self._run())

        def interrupt() -> None:
            if self.frame is None or not self.frame.cancel():
                main.cancel()

        self._interrupt = interrupt
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, interrupt)
        while True:
            try:
                return loop.run_until_complete(main)
            except asyncio.CancelledError:
                return self._ended() or INTERRUPTED
            except Exception as error:  # noqa: BLE001 - the outcome is the body's
                return self._ended() or outcome_of(error)
            except BaseException:  # noqa: BLE001 - a signal of Prefect's; the run ends in order
                interrupt()

    def _ended(self) -> Outcome | None:
        return self.frame.outcome if self.frame is not None else None

    async def _run(self) -> Outcome:
        try:
            signature = inspect.signature(self.flow.fn)
            tags = tags_for(self.flow.name, signature, self.parameters)
            self.frame = frame = Frame(self.flow.name, tags)
            frame.interrupt = self._interrupt
            current.set(frame)
            flow_run = await self._create(frame)
        except Refused as error:
            if self.frame is not None:
                self.frame.end_without_a_body(outcome_of(error))
            return outcome_of(error)
        except asyncio.CancelledError:
            if self.frame is not None:
                self.frame.end_without_a_body(INTERRUPTED)
                await self.frame.deliver(FINAL_SECONDS)
            return INTERRUPTED
        engine = asyncio.ensure_future(
            run_flow_async(
                self.flow, flow_run=flow_run, parameters=self.parameters, return_type="state"
            )
        )
        engine.add_done_callback(lambda done: done.cancelled() or done.exception())
        ended = asyncio.ensure_future(frame.ended.wait())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEGIN_SECONDS):
                    while not frame.has_begun and not engine.done():
                        await asyncio.sleep(0.02)
            if frame.has_begun:
                await asyncio.wait({engine, ended}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            engine.cancel()
            if frame.outcome is None:
                frame.end_without_a_body(INTERRUPTED)
        if frame.outcome is None:
            outcome = outcome_of(await self._not_begun(engine))
            frame.end_without_a_body(outcome)
        await asyncio.wait({engine}, timeout=0 if frame.is_behind else FINAL_SECONDS)
        await frame.deliver(FINAL_SECONDS)
        return self._ended() or INTERRUPTED

    async def _create(self, frame: Frame) -> Any:  # noqa: ANN401 - Prefect's FlowRun
        """Make the flow run; raises RecordUnreachable, in bounded time, when Prefect cannot."""
        await reach_api()
        try:
            making = asyncio.ensure_future(
                recording.within(CREATE_SECONDS, self._create_run(frame.key))
            )
            try:
                flow_run = await asyncio.shield(making)
            except asyncio.CancelledError:
                # A run that the API has made needs an end there; one half-asked for has none.
                await asyncio.wait({making}, timeout=FINAL_SECONDS)
                making.cancel()
                raise
        except Exception as error:
            raise unreachable(error) from error
        frame.know(flow_run.id)
        return flow_run

    async def _create_run(self, name: str) -> Any:  # noqa: ANN401 - Prefect's FlowRun
        async with get_client() as client:
            _check_version(await client.api_version())
            return await client.create_flow_run(
                flow=self.flow,
                name=name,
                parameters=self.flow.serialize_parameters(self.parameters),
                tags=[recording.TAG],
                state=Pending(),
            )

    async def _not_begun(self, engine: asyncio.Future[Any]) -> Refused:
        """Say why Prefect's engine has not let the body begin; it will not any more."""
        if not engine.done():
            engine.cancel()
            return unreachable(TimeoutError())
        if engine.cancelled():
            return unreachable(TimeoutError())
        error = engine.exception()
        if error is not None:
            return unreachable(error)
        return Refused(f"Prefect did not begin the run: {engine.result().message}")


async def reach_api() -> None:
    """Connect to Prefect's API once; raises RecordUnreachable where nobody answers."""
    address = urlsplit(get_current_settings().api.url or "")
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(address.hostname, port)
            writer.close()
    except Exception as error:
        raise unreachable(error) from error


def _check_version(version: object) -> None:
    if not isinstance(version, str) or not version[:1].isdigit():
        raise ValueError(f"its version is {version!r}")


def unreachable(error: BaseException) -> RecordUnreachable:
    """Say that Prefect's API cannot be used, and the ways out."""
    if isinstance(error, TimeoutError):
        reason = "no answer in time"
    elif isinstance(error, ConnectionRefusedError):
        reason = "nothing listens there"
    elif isinstance(error, json.JSONDecodeError | ValueError):
        reason = f"what answers there is not Prefect's API ({str(error).splitlines()[0]})"
    else:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if recording.is_embedded:
        return RecordUnreachable(
            f"the embedded Prefect API cannot record the run: {reason}. Nothing was changed. Is "
            f"there room in {get_current_settings().home}? `prefect server start` says more"
        )
    return RecordUnreachable(
        f"Prefect's API at {get_current_settings().api.url} cannot be used: {reason}. Nothing was "
        "changed. Start it (`prefect server start`), or run without it: `unset PREFECT_API_URL`, "
        "or `prefect profile use ephemeral`"
    )
