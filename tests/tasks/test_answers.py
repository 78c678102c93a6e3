"""What Prefect's API is told and asked beside a run: a person's answer, the words of an end."""

from __future__ import annotations

import socket
import uuid

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.engine.recording import end_state
from tasks.model.errors import RecordUnreachable
from tasks.model.outcome import Outcome
from tasks.steps.approvals import decide


async def test_an_answer_while_prefect_is_away_is_refused_with_the_ways_out() -> None:
    """It was told as a fault of the command line's own."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with (
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}),
        pytest.raises(RecordUnreachable, match=r"nothing listens there\. Nothing was changed"),
    ):
        await decide(str(uuid.uuid4()), approve=True, by=None, note="")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no", "no. Nothing was changed."),
        ("no.", "no. Nothing was changed."),
        ("is the key there?", "is the key there? Nothing was changed."),
    ],
)
def test_a_states_message_ends_its_sentences_once(said: str, told: str) -> None:
    """A question is one, too."""
    assert end_state(Outcome("Refused", "refused", said, 2), []).message == told
