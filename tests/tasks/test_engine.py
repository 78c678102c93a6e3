"""The engine: steps are journalled, only Transient is tried again, tracks run side by side."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import exception_to_failed_state

from tasks.engine import run as engine
from tasks.engine.journal import Journal, read_journal
from tasks.engine.run import perform, step, together, unless
from tasks.model.errors import (
    CommandFailed,
    HostSilent,
    HostUnreachable,
    LockLost,
    PreflightFailed,
    RunbookError,
)
from tasks.model.plan import Plan, Stage, Step
from tasks.model.record import Event
from tasks.plans.bootstrap import AUTHORITY, PREPARE, START


class OneThing(Step):
    """A step of these tests."""


def planned(host: str | None, stage: Stage, sentence: str = "do it") -> OneThing:
    """Plan one step."""
    return OneThing(stage=stage, host=host, sentence=sentence)


def fake_run(journal: Journal | None = None, lost: str | None = None) -> Any:  # noqa: ANN401 - a stand-in for Run
    """Make what the engine needs of a Run."""

    def check_lock() -> None:
        if lost:
            raise LockLost(lost)

    silent = SimpleNamespace(append=lambda *_, **__: None)
    return SimpleNamespace(
        clients={},
        journal=journal or silent,
        check_lock=check_lock,
        hosts={"m1": "host m1", "m2": "host m2"},
    )


async def test_a_step_writes_its_begin_and_its_end(tmp_path: Path) -> None:
    """Two lines, the second with whether something changed."""

    @step("do it")
    async def do_it(_run: object) -> bool:
        return True

    with Journal(tmp_path / "j.jsonl") as journal:
        assert await do_it.fn(fake_run(journal)) is True
    begin, end = read_journal(tmp_path / "j.jsonl")
    assert (begin.event, end.event) == (Event.STEP_STARTED, Event.STEP_FINISHED)
    assert end.details["changed"] is True
    assert begin.details["step"] == end.details["step"] == "do it"


async def test_a_step_that_fails_writes_why_and_raises(tmp_path: Path) -> None:
    """The error escapes as it is."""

    @step("do it")
    async def do_it(_run: object) -> None:
        raise CommandFailed("m1", "true", 3, "no")

    with Journal(tmp_path / "j.jsonl") as journal, pytest.raises(CommandFailed):
        await do_it.fn(fake_run(journal))
    assert (
        "'true' ended with status 3: no" in read_journal(tmp_path / "j.jsonl")[1].details["error"]
    )


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (HostUnreachable("gone", host="m1"), True),
        (HostSilent("nobody is there", host="m1"), False),
        (CommandFailed("m1", "x", 1, ""), False),
        (PreflightFailed(("no",)), False),
        (LockLost("lost"), False),
        (ValueError("a bug"), False),
    ],
)
async def test_only_transient_is_tried_again(error: Exception, again: bool) -> None:
    """Everything else is the operator's."""
    state: State[Any] = await exception_to_failed_state(error)
    retry: Any = engine._is_transient
    assert await retry(None, None, state) is again


async def test_a_step_keeps_no_result_and_is_never_cached() -> None:
    """Truth comes from the hosts, and secrets could be in a result."""

    @step("do it")
    async def do_it(_run: object) -> None: ...

    assert do_it.persist_result is False
    assert do_it.cache_policy is NO_CACHE


async def test_together_waits_for_all_and_tells_all_failures() -> None:
    """One host's failure does not cut the others off, and no failure is lost."""
    ended = []

    async def slow() -> None:
        await asyncio.sleep(0.01)
        ended.append("slow")

    async def fail(error: Exception) -> None:
        raise error

    with pytest.raises(RunbookError) as raised:
        await together(
            [fail(HostUnreachable("a", host="m1")), slow(), fail(LockLost("b", host="m2"))]
        )
    assert ended == ["slow"]
    assert "m1: a" in str(raised.value)
    assert "m2: b" in str(raised.value)


async def test_together_does_not_hide_a_bug_behind_a_runbook_error() -> None:
    """An unexpected exception comes first."""

    async def fail(error: Exception) -> None:
        raise error

    with pytest.raises(ZeroDivisionError):
        await together([fail(HostUnreachable("a")), fail(ZeroDivisionError())])


async def test_a_stage_begins_when_the_one_before_has_ended_on_all_hosts() -> None:
    """And a host's own steps are in order."""
    done: list[tuple[str, str]] = []

    async def act(_run: object, host: object, one: Step | None = None) -> None:
        if one is None:
            done.append(("runner", "do it"))
            return
        if host == "host m1":
            await asyncio.sleep(0.01)
        done.append((str(host), one.sentence))

    plan = Plan(
        "r",
        "c",
        "goal",
        (
            planned("m1", PREPARE, "1"),
            planned("m1", PREPARE, "2"),
            planned("m2", PREPARE, "1"),
            planned("m2", START, "3"),
            planned(None, AUTHORITY),
        ),
    )
    await perform(fake_run(), plan, {OneThing: act})
    assert done == [
        ("runner", "do it"),
        ("host m2", "1"),
        ("host m1", "1"),
        ("host m1", "2"),
        ("host m2", "3"),
    ]


async def test_no_step_begins_once_the_lock_is_lost() -> None:
    """The runner stops before its next step."""

    async def act(*_: object) -> None:
        pytest.fail("a step began")

    plan = Plan("r", "c", "goal", (planned("m1", PREPARE),))
    with pytest.raises(LockLost):
        await perform(fake_run(lost="m1: gone"), plan, {OneThing: act})


async def test_a_failed_host_keeps_the_next_stage_from_starting() -> None:
    """The others still end their own track."""
    done = []

    async def act(_run: object, host: object, one: Step) -> None:
        if host == "host m1":
            raise CommandFailed("m1", "x", 1, "")
        done.append(one.sentence)

    plan = Plan(
        "r",
        "c",
        "goal",
        (
            planned("m1", PREPARE, "1"),
            planned("m2", PREPARE, "2"),
            planned("m2", START, "3"),
        ),
    )
    with pytest.raises(CommandFailed):
        await perform(fake_run(), plan, {OneThing: act})
    assert done == ["2"]


async def test_a_guard_that_raises_ends_the_work() -> None:
    """What would never end is not waited for."""

    async def guard() -> None:
        raise CommandFailed("m1", "x", 1, "")

    with pytest.raises(CommandFailed):
        await unless(guard(), asyncio.sleep(60))


async def test_the_work_ends_its_guard() -> None:
    """And returns what it has."""

    async def work() -> str:
        return "done"

    assert await unless(asyncio.sleep(60), work()) == "done"
