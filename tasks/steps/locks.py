"""The cluster's lock: `flock` on the hosts, held by an open SSH session.

When the runner dies the session ends, and with it the lock; nothing needs cleaning up. The first
host is asked alone, so that of two runners that begin at once exactly one goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import monotonic

from tasks.engine.run import Run, end_all, step, together
from tasks.hosts.batch import Command, Result
from tasks.hosts.connection import HostConnection
from tasks.hosts.sessions import (
    HELD_BY_ANOTHER,
    SILENCE_LIMIT_SECONDS,
    Session,
    lock_fence,
    lock_session,
)
from tasks.model.errors import LockHeld, LockLost, Refused, RunbookError
from tasks.model.members import quorum

HEARTBEAT_SECONDS = SILENCE_LIMIT_SECONDS / 3
ANSWER_SECONDS = 10.0
ALONE_SECONDS = 1.5
"""How long the others wait for the first host."""

Late = dict[str, asyncio.Task[str | None]]
"""Hosts that have not answered; each task ends with None when it is locked, or with the reason."""


@step("lock the cluster on {host}", retry_delays_seconds=())
async def lock_host(run: Run, host: HostConnection) -> Session:
    """Take the lock on one host for the run's life; raises LockHeld that names the holder."""
    holder = (
        f"run {run.id} of {run.runbook} by {run.operator} since {run.started:%Y-%m-%d %H:%M:%S} UTC"
    )
    script = lock_session(run.inventory.name, run.id, holder)
    began = monotonic()
    session = await run.on_exit.enter_async_context(host.hold(script))
    answer = await session.read_line(ANSWER_SECONDS)
    status = session.exit_status() or 0
    result = Result("hold the lock", status, answer, "", monotonic() - began)
    run.transcribe(host.name, Command("hold the lock", script), result)
    if answer != "locked":
        if session.exit_status() in (HELD_BY_ANOTHER, None) and answer:
            raise LockHeld(
                f"{run.inventory.name} is being worked on by {answer}; wait for it, or interrupt "
                "it where it runs (Ctrl-C, or SIGTERM to its process): the lock goes with it, and "
                f"{SILENCE_LIMIT_SECONDS:.0f} s after its last sign of life where it is cut off",
                host=host.name,
            )
        if (refused := await session.why_refused()) is not None:
            raise refused
        raise LockLost("the lock's session ended before it held the lock", host=host.name)
    host.fence = lock_fence(run.inventory.name, run.id)
    return session


async def lock_cluster(
    run: Run,
    *,
    majority: bool = False,
    among: frozenset[str] | None = None,
    patient: frozenset[str] = frozenset(),
) -> tuple[dict[str, str], Late]:
    """Take the lock on every host that can be reached, and watch it until the run ends.

    Returns why the other hosts could not be locked, and those of the `patient`, who are asked last
    and not waited for, that have not answered yet: they are still being asked, and locked if they
    answer. Raises LockHeld, and with `majority` Refused when half of the hosts or more (of `among`,
    where it is given) cannot be locked, since another runner may reach those; what was taken is
    given back at the run's end.
    """
    voting = frozenset(run.hosts) if among is None else among
    locked: set[str] = set()
    failures: dict[str, str] = {}

    async def take(host: HostConnection) -> str | None:
        try:
            session = await lock_host(run, host)
            await run.on_exit.enter_async_context(_watched(run, host, session))
        except LockHeld:
            raise
        except RunbookError as error:
            failures[host.name] = error.message
            return error.message
        locked.add(host.name)
        return None

    asked: Late = {}
    greeting = [asyncio.ensure_future(host.greet()) for host in run.hosts.values()]
    run.on_exit.push_async_callback(end_all, greeting)
    try:
        # The first that answers is asked alone. One that is silent is passed over after a moment:
        # it costs two runners at once no more than that both may be refused.
        for host in sorted(run.hosts.values(), key=lambda host: host.name in patient):
            asked[host.name] = asyncio.ensure_future(take(host))
            if not locked:
                await asyncio.wait({asked[host.name]}, timeout=ALONE_SECONDS)
            await _raise_met(asked)
        await together(task for name, task in asked.items() if name not in patient)
        if majority and len(locked & voting) < quorum(len(voting)):
            await together(asked.values())
        await _raise_met(asked)
    except BaseException:
        await end_all(asked.values())
        raise
    late = {name: task for name, task in asked.items() if not task.done()}
    run.on_exit.push_async_callback(end_all, late.values())
    failures |= dict.fromkeys(late, "has not answered over SSH yet")
    if majority:
        _refuse_minority(len(locked & voting), len(voting), failures)
    return failures, late


async def _raise_met(asked: Late) -> None:
    await together(task for task in asked.values() if task.done())


def _refuse_minority(locked: int, voting: int, failures: dict[str, str]) -> None:
    if locked < quorum(voting):
        raise Refused(
            f"only {locked} of {voting} hosts can be locked, and {quorum(voting)} are needed to "
            "keep other runs away:\n  - "
            + "\n  - ".join(f"{name}: {why}" for name, why in failures.items())
        )


@contextlib.asynccontextmanager
async def _watched(run: Run, host: HostConnection, session: Session) -> AsyncIterator[None]:
    async def watch() -> None:
        while run.lock_lost is None:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                answer = await session.ask("held", ANSWER_SECONDS)
            except RunbookError as error:
                answer = str(error)
            if answer != "held":
                run.lock_lost = (
                    f"{host.name}: the cluster's lock is lost ({answer or 'its session ended'}); "
                    "no further step was started. Run the runbook again"
                )

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
