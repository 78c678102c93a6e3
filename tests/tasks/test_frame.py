"""The frame: what ends a run is its body and its operator, never a call to Prefect's API."""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from prefect.exceptions import Abort
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from rich.console import Console

from tasks.engine import frame, recording
from tasks.engine.frame import Frame
from tasks.engine.journal import read_journal
from tasks.model.errors import MemberFailed
from tasks.model.outcome import INTERRUPTED
from tasks.model.record import Event

BOUND = 0.5


@pytest.fixture
async def framed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Frame]:
    """Begin a run whose Prefect API takes connections and never answers."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setattr(frame, "PUBLISH_SECONDS", BOUND)
    monkeypatch.setattr(frame, "RECORD_SECONDS", BOUND)
    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with temporary_settings(
        {PREFECT_API_URL: f"http://127.0.0.1:{port}/api", PREFECT_HOME: tmp_path}
    ):
        begun = Frame("anything")
        begun.know(uuid.uuid4())
        yield begun
    server.close()


def read_end(framed: Frame) -> dict[str, Any]:
    """Read how a run's file says that it ended."""
    return [r for r in read_journal(framed.journal.path) if r.event is Event.ENDED][-1].details


async def test_an_api_that_hangs_ends_no_body(framed: Frame) -> None:
    """It is waited for once, and the body goes on to its end."""
    done = []

    async def body() -> None:
        began = monotonic()
        for number in range(3):
            await framed.publish("a-key", f"text {number}", "about", report=False)
        done.append(monotonic() - began)
        await asyncio.sleep(2 * BOUND)

    state = await framed.perform(body(), {})
    assert BOUND <= done[0] < 3 * BOUND, "it was waited for three times"
    assert (state.name, read_end(framed)["state"]) == ("Completed", "Completed")
    assert framed.is_behind
    kept = [r for r in read_journal(framed.journal.path) if r.event is Event.ARTIFACT]
    assert len(kept) == 4, "three of the body's and the report"


async def test_a_reader_of_its_output_that_died_ends_no_body(framed: Frame) -> None:
    """A worker that is killed, or a pager that is left, is at the other end of a pipe."""

    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    async def body() -> None:
        Console(file=Gone(), force_terminal=True).print("a line")

    state = await framed.perform(body(), {})
    assert (state.name, read_end(framed)["state"]) == ("Completed", "Completed")


@pytest.mark.parametrize("error", [None, MemberFailed("a member is ill")])
async def test_a_cancelled_engine_ends_no_body(framed: Frame, error: Exception | None) -> None:
    """Prefect's engine, or a timeout of its client's that came too late, cancels its own task."""
    begun, done = asyncio.Event(), []

    async def body() -> None:
        begun.set()
        await asyncio.sleep(BOUND)
        done.append("work")
        if error is not None:
            raise error

    engine = asyncio.ensure_future(framed.perform(body(), {}))
    await begun.wait()
    for _ in range(3):
        engine.cancel()
        await asyncio.sleep(BOUND / 10)
    assert (await engine).name == ("Failed" if error else "Completed")
    assert done == ["work"]
    assert engine.cancelling() == 0


async def test_the_operator_ends_a_body(framed: Frame) -> None:
    """By a signal, which the command line turns into this."""
    begun, cleaned = asyncio.Event(), []

    async def body() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append("connections closed")

    engine = asyncio.ensure_future(framed.perform(body(), {}))
    await begun.wait()
    assert framed.cancel()
    assert (await engine).name == "Interrupted"
    assert cleaned
    assert not framed.cancel(), "it has ended"


async def test_a_run_that_was_given_up_does_not_begin(framed: Frame) -> None:
    """An engine that hung may come back after the operator was told that nothing was changed."""

    async def body() -> None:
        pytest.fail("it began")

    framed.end_without_a_body(INTERRUPTED)
    with pytest.raises(Abort):
        await framed.perform(body(), {})


async def test_a_dry_run_says_that_it_was_one(framed: Frame) -> None:
    """In the runs list it is Completed as any other."""
    state = await framed.perform(asyncio.sleep(0), {"dry_run": True})
    assert state.name == "Completed"
    assert state.message == "this was a dry run. Nothing was changed."


async def test_a_bound_cancels_the_call_alone() -> None:
    """A call that is deaf to it is left behind; one that is cancelled from within has no answer."""
    ended = []

    async def deaf() -> None:
        for _ in range(2):
            try:
                await asyncio.sleep(BOUND)
            except asyncio.CancelledError:
                continue
        ended.append("deaf")

    async def broken() -> None:
        raise asyncio.CancelledError

    for call in (deaf(), broken()):
        with pytest.raises(TimeoutError):
            await recording.within(BOUND / 4, call)
    await asyncio.sleep(2 * BOUND)
    assert ended == ["deaf"]
    own = asyncio.current_task()
    assert own is not None
    assert own.cancelling() == 0
