"""The shape of every run: its context, its steps as Prefect tasks, its journal.

Stands below the steps and above the plain folders.
Truth comes from the hosts, so a task keeps no result and is never cached; it is tried again only
on Transient.
"""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from prefect import State, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from tasks.engine import asking, frame
from tasks.engine.history import newest_before
from tasks.engine.journal import Journal
from tasks.engine.recording import journal_directory
from tasks.engine.secret import read_secret
from tasks.etcd.login import Login
from tasks.hosts.batch import Command, Result
from tasks.hosts.connection import HostConnection
from tasks.hosts.logins import Logins
from tasks.model.certificates import Generation
from tasks.model.credentials import SecretSource
from tasks.model.errors import AccessRefused, HostSilent, LockLost, RunbookError, Transient
from tasks.model.gap import Absences
from tasks.model.inventory import Inventory
from tasks.model.inventory_file import load_inventory
from tasks.model.machines import Host
from tasks.model.plan import Plan, Step
from tasks.model.record import Event, Record

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

RETRY_DELAYS_SECONDS = (0.5, 2.0, 5.0)

listeners: list[Callable[[Record], None]] = []
"""Who sees every journal line as it is written: the command line's progress display."""


class Run:
    """One run of a runbook on one cluster: who, what, where, and the open connections."""

    def __init__(self, inventory: Inventory, runbook: str, journal: Journal, run_id: str) -> None:
        self.inventory = inventory
        self.runbook = runbook
        self.journal = journal
        self.id = run_id
        self.started = datetime.now(UTC)
        self.operator = asking.describe()
        self.logins = Logins(_read_passphrase)
        self.hosts = {
            host.name: HostConnection(host, inventory.ssh, self.transcribe, self.logins)
            for host in inventory.hosts
        }
        others = [c for c in inventory.clients if c.certificate is not None]
        self.clients = {
            other.name: self.hosts[other.host]
            if other.host
            else HostConnection(
                Host(name=other.name, address=other.address, ssh=other.ssh),
                inventory.ssh,
                self.transcribe,
                self.logins,
            )
            for other in (*others, *inventory.dependents)
        }
        self.login: Login | None = None
        self.authorities: dict[Generation, bytes] = {}
        self.trusted = b""
        self.lock_lost: str | None = None
        self.outcome = "done"
        self.snapshot: str | None = None
        self.absences = Absences()
        self.on_exit = AsyncExitStack()

    @property
    def backup(self) -> str:
        """The name of the directory that replaced files go to: run time and id."""
        return f"{self.started:%Y%m%dT%H%M%SZ}-{self.id[:8]}"

    def check_lock(self) -> None:
        """Raise LockLost when the cluster's lock is known to be gone."""
        if self.lock_lost:
            raise LockLost(self.lock_lost)

    def transcribe(self, host: str, command: Command, result: Result) -> None:
        """Write a command that ended to the journal and to the task's log in Prefect."""
        self.journal.append(
            Event.COMMAND,
            host=host,
            command=command.name,
            script=command.script,
            status=result.status,
            seconds=round(result.seconds, 4),
            stderr=result.stderr.strip(),
        )
        try:
            logger = get_run_logger()
        except MissingContextError:
            return
        told = (host, command.name, result.status, result.seconds)
        logger.info("%s: %s: exit status %d, %.3f s", *told)
        logger.debug("%s: %s:\n%s", host, command.name, command.script)


def step(
    name: str, *, retry_delays_seconds: tuple[float, ...] = RETRY_DELAYS_SECONDS
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Task[P, Coroutine[Any, Any, T]]]:
    """Make a coroutine function a named, journalled Prefect task; its first parameter is the Run.

    `name` is a template over {host} ("start etcd on {host}"). It is tried again on Transient,
    after each of the delays, but not where a host never answered; each attempt is journalled.
    """

    def decorate(function: Callable[P, Coroutine[Any, Any, T]]) -> Task[P, Coroutine[Any, Any, T]]:
        @functools.wraps(function)
        async def journalled(*args: P.args, **kwargs: P.kwargs) -> T:
            run: Any = args[0]
            host = next((str(arg) for arg in args if isinstance(arg, HostConnection)), None)
            context = TaskRunContext.get()
            about = {
                "step": name.format(host=host),
                "host": host,
                "task_run": str(context.task_run.id) if context else None,
            }
            run.journal.append(Event.STEP_STARTED, **about)
            began = monotonic()
            try:
                outcome = await function(*args, **kwargs)
            except BaseException as error:
                run.journal.append(
                    Event.STEP_FAILED,
                    **about,
                    seconds=round(monotonic() - began, 4),
                    error=f"{type(error).__name__}: {error}",
                )
                raise
            run.journal.append(
                Event.STEP_FINISHED,
                **about,
                seconds=round(monotonic() - began, 4),
                changed=outcome if isinstance(outcome, bool) else None,
            )
            return outcome

        return task(
            name=name.replace(" on {host}", ""),
            task_run_name=name,
            retries=len(retry_delays_seconds),
            retry_delay_seconds=list(retry_delays_seconds),
            retry_condition_fn=_is_transient,
            persist_result=False,
            cache_policy=NO_CACHE,
        )(journalled)

    return decorate


async def _is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    outcome = await state.aresult(raise_on_failure=False)
    # A host without power has been given its time; each further attempt would take as much.
    return isinstance(outcome, Transient) and not isinstance(outcome, HostSilent)


async def together(awaitables: Iterable[Awaitable[T]]) -> tuple[T, ...]:
    """Await all of them side by side, all to their end; then raise what failed, if anything did.

    Several failures are raised as one error of the first's class with all the messages.
    """
    return settle(await asyncio.gather(*awaitables, return_exceptions=True))


def settle(outcomes: Iterable[T | BaseException]) -> tuple[T, ...]:
    """Return what all have come to, or raise what failed, as `together` does."""
    outcomes = tuple(outcomes)
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if not failures:
        return outcomes  # type: ignore[return-value]
    ours = [failure for failure in failures if isinstance(failure, RunbookError)]
    if len(failures) == 1 or len(ours) < len(failures):
        raise next((f for f in failures if not isinstance(f, RunbookError)), failures[0])
    worst = next((f for f in ours if f.exit_status == 1), ours[0])
    worst.message = "\n".join(str(failure) for failure in ours)
    worst.host = None
    raise worst


async def both(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """Await two of different kinds, as `together` does."""
    one, other = await together([first, second])
    return one, other  # type: ignore[return-value]


async def end_all(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel what still goes on, and wait until all has ended, however it has."""
    for future in (ending := tuple(futures)):
        future.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


async def unless(guard: Coroutine[Any, Any, None], work: Coroutine[Any, Any, T]) -> T:
    """Await the work, unless the guard raises first; what is not needed any more is cancelled."""
    guarding, working = asyncio.ensure_future(guard), asyncio.ensure_future(work)
    try:
        await asyncio.wait({guarding, working}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            guarding.result()
        return await working
    finally:
        await end_all((guarding, working))


Action = Callable[[Run, HostConnection | None, Step], Awaitable[Any]]


async def perform(
    run: Run,
    plan: Plan,
    actions: dict[type[Step], Callable[..., Any]],
    *,
    gate: Callable[[Step], Awaitable[Any]] | None = None,
    mark: Callable[[str], None] = lambda _: None,
) -> None:
    """Do a plan's steps: stage after stage; in a stage, all hosts at once, each in its order.

    A host's failure ends its own track; the others end theirs; the next stage does not start. In
    a serial stage one step is done at a time, the first failure ends it, and before each step
    the `gate` must pass. `mark` is told what begins, for the probe. Raises KeyError, before
    anything is done, for a kind of step that has no action.
    """
    for one in plan.steps:
        actions[type(one)]

    async def do(one: Step) -> None:
        run.check_lock()
        told = {"host": one.host, "sentence": one.sentence}
        where = () if one.host is None else ((run.hosts | run.clients)[one.host],)
        try:
            await actions[type(one)](run, *where, one)
        except BaseException:
            run.journal.append(Event.BROKEN, **told)
            raise
        run.journal.append(Event.PERFORMED, **told)

    async def follow(steps: tuple[Step, ...]) -> None:
        for one in steps:
            await do(one)

    for stage in plan.stages():
        if not stage.is_serial:
            mark(stage.title)
            await together(map(follow, plan.tracks(stage).values()))
            continue
        for one in (one for one in plan.steps if one.stage == stage):
            mark(one.heading)
            if gate is not None:
                run.check_lock()
                await gate(one)
            await do(one)


async def _read_passphrase(source: SecretSource, field: str) -> bytes:
    return await read_secret(source, field, refusal=AccessRefused)


def tell(record: Record) -> None:
    """Let the terminal hear a record, as it hears those of every journal."""
    for listen in listeners:
        listen(record)


@asynccontextmanager
async def open_run(
    cluster: str | Inventory, runbook: str, *, reason: str | None = None
) -> AsyncIterator[Run]:
    """Read the inventory and open the run's journal and connections; all closed at the end."""
    inventory = cluster if isinstance(cluster, Inventory) else load_inventory(cluster)
    context = FlowRunContext.get()
    flow_run_id = str(context.flow_run.id) if context and context.flow_run else str(uuid.uuid4())
    now = datetime.now(UTC)
    # To the microsecond: one flow run may open a cluster twice.
    path = journal_directory() / inventory.name / f"{now:%Y%m%dT%H%M%S.%fZ}-{flow_run_id}.jsonl"
    framed = frame.current.get()
    try:
        opened = Journal(path, tell, framed.room if framed else None)
    except OSError as error:
        raise frame.unwritable(path.parent, error) from error
    with opened as journal:
        if framed is not None:
            framed.open(path)
        run = Run(inventory, runbook, journal, flow_run_id)
        journal.append(
            Event.RUN_STARTED,
            runbook=runbook,
            cluster=inventory.name,
            run=flow_run_id,
            operator=run.operator,
            reason=reason,
            parameters=dict(context.parameters) if context and context.parameters else {},
            previous=newest_before(path),
            hosts=[host.name for host in inventory.hosts],
        )
        outcome = ""
        try:
            async with run.on_exit:
                yield run
            outcome = run.outcome
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
            raise
        finally:
            await asyncio.gather(*(host.close() for host in (run.hosts | run.clients).values()))
            await run.logins.close()
            journal.append(Event.RUN_FINISHED, outcome=outcome)
