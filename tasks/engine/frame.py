"""The frame around every runbook: its body's true end, whatever Prefect's API does meanwhile.

The body decides how a run ended. Prefect is told, with the report, and where it cannot be told in
RECORD_SECONDS, the run's file keeps it for the next run to deliver. Nothing of Prefect's stops or
delays the body: it runs in a task of its own, which only the operator and the end of the process
cancel; what it publishes is on disk first, and is sent within a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import signal
import socket
import traceback
import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec

from prefect import Flow, State, flow
from prefect.context import FlowRunContext
from prefect.exceptions import Abort, Pause
from prefect.logging import get_run_logger
from rich.console import Console

from tasks.engine import asking, checkout, recording
from tasks.engine.bounds import refuse_paths
from tasks.engine.journal import Journal, Room, read_end, read_journal
from tasks.model.chain import SHORT
from tasks.model.errors import RecordUnreachable, Refused, RunbookError
from tasks.model.outcome import DRY, Outcome, outcome_of, work_of
from tasks.model.record import Event, Record
from tasks.report.ends import end_markdown
from tasks.report.runs import run_name

P = ParamSpec("P")

APPROVAL, DRY_RUN = "approval", "dry_run"
"""Parameters: the first of every runbook that changes something, and of no other."""
CHANGES, DRY_TAG, BY, ON = "changes", "dry-run", "by:", "on:"
"""Tags; the last two say who asked for a run, and on which machine its journals are."""
PUBLISH_SECONDS = 5.0
RECORD_SECONDS = 15.0
"""How long an ended body waits for Prefect to have its record."""

current: ContextVar[Frame | None] = ContextVar("frame", default=None)


class Frame:
    """One run: its file, how it ended, and whether Prefect has heard all of it.

    Raises Refused when PREFECT_HOME takes no file.
    """

    def __init__(self, runbook: str, tags: tuple[str, ...] = ()) -> None:
        self.runbook = runbook
        self.key = str(uuid.uuid4())
        self.changes = CHANGES in tags and DRY_TAG not in tags
        self.run: uuid.UUID | None = None
        self.outcome: Outcome | None = None
        self.is_behind = False
        self.has_begun = False
        self.ended = asyncio.Event()
        self.interrupt: Callable[[], None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._started = datetime.now(UTC)
        self._opened: list[Path] = []
        self._telling: asyncio.Future[None] | None = None
        self._has_report = False
        directory = recording.runs_directory()
        try:
            self.room = Room(directory)
            path = directory / f"{self._started:%Y%m%dT%H%M%S.%fZ}-{self.key}.jsonl"
            self.journal = Journal(path, room=self.room)
            self.journal.append(
                Event.BEGUN, key=self.key, runbook=runbook, api=recording.api_name(), tags=tags
            )
        except (OSError, RunbookError) as error:
            raise unwritable(directory, error) from error

    def know(self, run: uuid.UUID) -> None:
        """Write down which flow run of Prefect's this is."""
        if self.run is None:
            self.run = run
            self.journal.append(Event.KNOWN, run=str(run))

    def open(self, path: Path) -> None:
        """Write down that the run has a journal for a cluster."""
        self._opened.append(path)
        self.journal.append(Event.OPENED, path=str(path))
        if self.run is not None and not self.is_behind and self._telling is None:
            # Beside the work: who looks for the cluster's runs finds this one while it goes on.
            records = read_journal(self.journal.path)
            telling = recording.within(PUBLISH_SECONDS, recording.tag(self.run, records))
            self._telling = asyncio.ensure_future(telling)
            self._telling.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def publish(self, key: str, markdown: str, description: str, *, report: bool) -> None:
        """Keep an artifact, and give it to Prefect, which is not waited for a second time."""
        self._keep(key, markdown, description, report=report)
        if self.run is None or self.is_behind:
            return
        try:
            told = recording.publish(self.run, key, markdown, description)
            await recording.within(PUBLISH_SECONDS, told)
        except Exception:  # noqa: BLE001 - whatever it is, it is in the file and is sent later
            self.is_behind = True

    async def perform(
        self, body: Coroutine[Any, Any, None], given: Mapping[str, Any]
    ) -> State[Any]:
        """Run the body to its end, and return the state that tells it; `given` are parameters."""
        if self.outcome is not None:
            body.close()
            raise Abort("the run has been given up before it began")
        context = FlowRunContext.get()
        is_deployed = False
        if context is not None and context.flow_run is not None:
            self.know(context.flow_run.id)
            is_deployed = context.flow_run.deployment_id is not None
        self.has_begun = True
        # Where who reads what this process says has died, a worker or a pager, rich would end it.
        Console.on_broken_pipe = _fall_silent  # type: ignore[method-assign, assignment]
        if self.interrupt is not None:
            # Prefect has put its own handler here, which would raise anywhere.
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.interrupt)
        recovery = asyncio.ensure_future(recording.recover(self.journal.path))
        broken: BaseException | None = None
        try:
            if is_deployed:
                await self._admit(given)
            await self._carry(body)
        except (Pause, Abort):
            self._end(Outcome("Suspended", "waiting", "waits for approval", 0), None)
            if self.run is not None:
                recording.tell_suspension(self.run)
            logging.getLogger("prefect.flow_runs").addFilter(_call_no_error)
            raise
        except BaseException as error:  # noqa: BLE001 - a cancelled run has an end, too
            body.close()
            broken = error
        outcome = DRY if given.get(DRY_RUN) and broken is None else outcome_of(broken)
        outcome = outcome.after(work_of(self._records()))
        outcome = await self._share(outcome) if is_deployed else outcome
        self.room.free()
        if not self._has_report:
            await self.publish(*self._report(outcome), report=True)
        self._end(outcome, broken)
        await self._settle(recovery)
        state = recording.end_state(outcome, self._records())
        state.data = broken if isinstance(broken, Exception) else None
        self.ended.set()
        if is_deployed and broken is not None and not isinstance(broken, Exception):
            raise broken  # Prefect's runner knows who stopped it, and why
        return state

    def cancel(self) -> bool:
        """Interrupt the body, if it is under way."""
        if self._task is None or self.outcome is not None:
            return False
        self._task.cancel()
        return True

    async def deliver(self, seconds: float) -> None:
        """Give Prefect what it lacks, within a bound; sets whether it is behind."""
        try:
            await recording.within(seconds, recording.deliver(self.journal))
        except Exception:  # noqa: BLE001 - the next run tries again
            self.is_behind = True
        else:
            self.is_behind = False

    def end_without_a_body(self, outcome: Outcome) -> Outcome:
        """Note the end of a run that never began, and its report."""
        self.room.free()
        self._keep(*self._report(outcome), report=True)
        self._end(outcome, None)
        return outcome

    async def _carry(self, body: Coroutine[Any, Any, None]) -> None:
        """Await the body in a task that no cancellation of Prefect's engine reaches.

        A bound on a call to the API, in Prefect's client or around it, cancels the task that
        calls; one that came too late would look as if somebody had interrupted the run.
        """
        self._task = carried = asyncio.ensure_future(body)
        stopped: BaseException | None = None
        while not carried.done():
            try:
                await asyncio.wait({carried})
            except asyncio.CancelledError:
                if (own := asyncio.current_task()) is not None:
                    own.uncancel()
            except BaseException as error:  # noqa: BLE001 - a signal of Prefect's runner
                stopped = error
                carried.cancel()
        if stopped is not None and carried.cancelled():
            raise stopped
        carried.result()

    async def _admit(self, given: Mapping[str, Any]) -> None:
        """Refuse what a worker's run may not be told, and bring a team's inventories up to date.

        Where they cannot be, what only looks does without, and says so.
        """
        refuse_paths(given)
        try:
            await checkout.synchronize(checkout.LEFT)
        except Refused as error:
            if self.changes:
                raise
            get_run_logger().warning("%s", error)

    async def _share(self, outcome: Outcome) -> Outcome:
        """Give a team's other workers what the run has written; says what they do not have."""
        if not self.changes:
            return outcome
        try:
            await checkout.synchronize(f"{self.runbook}: {outcome.word} (run {self.run})")
        except Refused as error:
            said = f"{outcome.message}; {error}" if outcome.message else str(error)
            return replace(outcome, message=said)
        return outcome

    def _records(self) -> list[Record]:
        return [record for path in self._opened for record in read_journal(path)]

    def _end(self, outcome: Outcome, error: BaseException | None) -> None:
        self.outcome = outcome
        fault = isinstance(error, Exception) and "fault of the runbook" in outcome.message
        self.journal.append(
            Event.ENDED,
            state=outcome.state,
            word=outcome.word,
            message=outcome.message,
            exit_status=outcome.exit_status,
            traceback=traceback.format_exception(error) if fault and error else None,
        )

    def _keep(self, key: str, markdown: str, description: str, *, report: bool) -> None:
        self._has_report |= report
        self.journal.append(
            Event.ARTIFACT, key=key, markdown=markdown, description=description, report=report
        )

    def _report(self, outcome: Outcome) -> tuple[str, str, str]:
        took = (datetime.now(UTC) - self._started).total_seconds()
        facts = {
            "started by": asking.describe(),
            "run": str(self.run),
            "took": f"{took:.1f} s",
            "journal": ", ".join(map(str, self._opened)) or str(self.journal.path),
            **sealed(self._opened),
        }
        return (
            f"{self.runbook}-report".replace("_", "-"),
            end_markdown(self.runbook, outcome, work_of(self._records()), facts),
            f"{self.runbook}: {outcome.word}",
        )

    async def _settle(self, recovery: asyncio.Future[list[str]]) -> None:
        """Wait, within RECORD_SECONDS, until Prefect has the steps and the artifacts."""

        async def settle() -> None:
            while True:
                try:
                    await recording.settle(self.journal.path)
                except Exception:  # noqa: BLE001 - an API that stumbles is asked again
                    self.is_behind = True
                    await asyncio.sleep(recording.STUMBLE_SECONDS)
                else:
                    self.is_behind = False
                    break
            await asyncio.wait({recovery})

        with contextlib.suppress(TimeoutError):
            await recording.within(RECORD_SECONDS, settle())
        recovery.cancel()


def _call_no_error(record: logging.LogRecord) -> bool:
    """Prefect logs every end but Completed as an error, and who is to approve reads that last."""
    if record.getMessage().startswith("Finished in state Suspended"):
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    return True


def _fall_silent(console: Console) -> None:
    console.quiet = True


def tags_for(
    runbook: str, signature: inspect.Signature, given: Mapping[str, Any]
) -> tuple[str, ...]:
    """Say by which words a run is found in Prefect, beside its clusters: what it is, and whose."""
    changes = CHANGES if APPROVAL in signature.parameters else "read-only"
    dry = (DRY_TAG,) if given.get(DRY_RUN) else ()
    return (runbook, changes, *dry, BY + asking.who_asked(), ON + socket.gethostname())


def sealed(journals: Iterable[Path]) -> dict[str, str]:
    """Tell the last seals of journals, for a report: kept in Prefect, they prove what was written.

    `python -m flows verify --reports` compares them.
    """
    told = ", ".join(f"{path.name} {read_end(path)[0][:SHORT]}" for path in journals)
    return {"seal": told} if told else {}


async def publish(key: str, markdown: str, description: str, *, report: bool = False) -> None:
    """Publish an artifact of the current run, on disk first."""
    frame = current.get()
    if frame is not None:
        await frame.publish(key, markdown, description, report=report)


def runbook(
    *, flow_run_name: str
) -> Callable[[Callable[P, Coroutine[Any, Any, None]]], Flow[P, Coroutine[Any, Any, None]]]:
    """Make a coroutine function a flow of Prefect's whose body runs in the frame.

    The flow has the function's name, docstring and parameters.
    """

    def decorate(
        function: Callable[P, Coroutine[Any, Any, None]],
    ) -> Flow[P, Coroutine[Any, Any, None]]:
        signature = inspect.signature(function, eval_str=True)

        @functools.wraps(function)
        async def framed(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 - a state
            frame, given = current.get(), signature.bind(*args, **kwargs).arguments
            if frame is None:
                try:
                    frame = Frame(function.__name__, tags_for(function.__name__, signature, given))
                except RunbookError as error:
                    return recording.end_state(outcome_of(error), [])
                current.set(frame)
            return await frame.perform(function(*args, **kwargs), given)

        # Prefect looks their names up where the function is defined, which would be here.
        told: Any = framed
        told.__signature__ = signature
        told.__annotations__ = inspect.get_annotations(function, eval_str=True)

        def name() -> str:
            context = FlowRunContext.get()
            given = signature.bind_partial(**(context.parameters or {})) if context else None
            if given is None:
                return function.__name__
            given.apply_defaults()
            return run_name(flow_run_name, given.arguments)

        made: Any = flow(name=function.__name__, flow_run_name=name, persist_result=False)(framed)
        return made  # type: ignore[no-any-return]

    return decorate


def unwritable(directory: Path, error: Exception) -> RecordUnreachable:
    """Say that a directory of PREFECT_HOME takes no file."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    reason = getattr(cause, "strerror", None) or str(error)
    return RecordUnreachable(
        f"{directory} cannot be written ({reason}), and no run begins without its record; nothing "
        "was changed. Make room there, or set PREFECT_HOME to a directory that can be written"
    )
