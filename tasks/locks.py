"""The cluster's lock: `flock` on the hosts, held by an open SSH session.

When the runner dies the session ends, and with it the lock; nothing needs cleaning up. The first
host is asked alone, so that of two runners that begin at once exactly one goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import monotonic

from tasks.engine import Run, step, together
from tasks.hosts.batch import Command, Result
from tasks.hosts.connection import HostConnection, Session
from tasks.hosts.sessions import (
    HELD_BY_ANOTHER,
    SILENCE_LIMIT_SECONDS,
    lock_fence,
    lock_session,
)
from tasks.model.cluster import quorum
from tasks.model.errors import LockHeld, LockLost, Refused, RunbookError

HEARTBEAT_SECONDS = SILENCE_LIMIT_SECONDS / 3
ANSWER_SECONDS = 10.0


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
                f"{run.inventory.name} is being worked on by {answer}; wait for it, or stop it",
                host=host.name,
            )
        raise LockLost("the lock's session ended before it held the lock", host=host.name)
    host.fence = lock_fence(run.inventory.name, run.id)
    return session


async def lock_cluster(
    run: Run, *, majority: bool = False, among: frozenset[str] | None = None
) -> dict[str, str]:
    """Take the lock on every host that can be reached, and watch it until the run ends.

    Returns why the other hosts could not be locked. Raises LockHeld, and with `majority` Refused
    when half of the hosts or more (of `among`, where it is given) cannot be locked, since another
    runner may reach those; what was taken by then is given back when the run ends.
    """
    voting = frozenset(run.hosts) if among is None else among
    sessions: dict[HostConnection, Session] = {}
    failures: dict[str, str] = {}

    async def take(host: HostConnection) -> None:
        try:
            sessions[host] = await lock_host(run, host)
        except LockHeld:
            raise
        except RunbookError as error:
            failures[host.name] = error.message

    waiting = list(run.hosts.values())
    while waiting and not sessions:
        await take(waiting.pop(0))
    await together(map(take, waiting))
    await run.on_exit.enter_async_context(_watched(run, sessions))
    locked = sum(host.name in voting for host in sessions)
    if majority and locked < quorum(len(voting)):
        raise Refused(
            f"only {locked} of {len(voting)} hosts can be locked, and "
            f"{quorum(len(voting))} are needed to keep other runs away:\n  - "
            + "\n  - ".join(f"{name}: {why}" for name, why in failures.items())
        )
    return failures


@contextlib.asynccontextmanager
async def _watched(run: Run, sessions: dict[HostConnection, Session]) -> AsyncIterator[None]:
    async def watch(host: HostConnection, session: Session) -> None:
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

    watchers = [asyncio.create_task(watch(*pair)) for pair in sessions.items()]
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
