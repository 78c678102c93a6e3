"""The embedded API over a PREFECT_HOME that is new."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.engine.embedded import EmbeddedApi
from tasks.model.errors import RecordUnreachable


@pytest.mark.chaos
def test_three_first_runs_at_once_all_have_their_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All make the database's tables, and those that lose that race start again."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    started = [EmbeddedApi() for _ in range(3)]
    try:
        for api in started:
            api.wait_until_ready()
    finally:
        for api in started:
            api.stop()


@pytest.mark.chaos
def test_a_home_that_cannot_be_written_is_told_after_a_few_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the whole patience for a slow machine."""
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("PREFECT_HOME", str(file / "home"))
    api = EmbeddedApi()
    try:
        with pytest.raises(RecordUnreachable, match=r"ended 3 times.*Nothing was changed"):
            api.wait_until_ready()
    finally:
        api.stop()
