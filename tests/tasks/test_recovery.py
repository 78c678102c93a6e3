"""The record of runs that are gone: each for itself, and an API that stumbles is asked again."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from tasks.engine import recording
from tasks.engine.journal import Journal, find_undelivered
from tasks.model.record import Event


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Leave the files of three runs that Prefect has heard nothing of."""
    monkeypatch.setattr(recording, "STUMBLE_SECONDS", 0.01)
    with temporary_settings({PREFECT_HOME: tmp_path}):
        paths = [recording.runs_directory() / f"2026-{n}.jsonl" for n in range(3)]
        for path in paths:
            with Journal(path) as journal:
                journal.append(Event.BEGUN, key="a key", runbook="anything", api="", tags=[])
        yield paths


def answering(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[[Path, int], Exception | None]
) -> list[str]:
    """Deliver runs as an API would that fails so; returns the names that are asked for."""
    asked: list[str] = []

    async def deliver(journal: Journal) -> uuid.UUID:
        asked.append(journal.path.stem)
        error = fails(journal.path, asked.count(journal.path.stem))
        if error is not None:
            raise error
        journal.append(Event.RECORDED)
        return uuid.UUID(int=int(journal.path.stem[-1]))

    monkeypatch.setattr(recording, "deliver", deliver)
    return asked


async def test_a_file_that_cannot_be_delivered_keeps_no_other(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up in this run after some attempts."""
    cannot = {files[0]: OSError("no answer"), files[1]: KeyError("run")}
    asked = answering(monkeypatch, lambda path, _: cannot.get(path))
    assert await recording.recover(Path("own")) == [str(uuid.UUID(int=2))]
    assert asked.count(files[0].stem) == asked.count(files[1].stem) == recording.ATTEMPTS
    assert asked.count(files[2].stem) == 1


async def test_an_api_that_stumbles_is_asked_again(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its database was locked, or it was started again."""
    away = OSError("no answer")
    asked = answering(
        monkeypatch, lambda path, times: away if path == files[1] and times == 1 else None
    )
    assert len(await recording.recover(Path("own"))) == len(files)
    assert asked.count(files[1].stem) == 2
    assert len(asked) == len(files) + 1, "what is delivered is not delivered again"


async def test_an_api_that_hangs_is_given_up(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the bound, and nothing is raised; the run's own file is left to the run."""
    asked: list[Path] = []

    async def hang(journal: Journal) -> None:
        asked.append(journal.path)
        await asyncio.sleep(60)

    monkeypatch.setattr(recording, "RECOVERY_SECONDS", 0.1)
    monkeypatch.setattr(recording, "deliver", hang)
    assert await recording.recover(files[0]) == []
    assert asked == files[1:2]
    assert list(find_undelivered(files[0].parent)) == files
