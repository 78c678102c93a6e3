"""A run that ends in one way, without hosts: `python -m tests.integration.ended_run END`.

`hang PID` stops the Prefect server in mid-run, so that it takes connections and never answers.
Prints the word, and the seconds between the body's end and the outcome.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

from tasks.engine.frame import runbook
from tasks.engine.launch import Launch
from tasks.model.errors import LockHeld, MemberFailed, Refused, Rejected

ERRORS = {
    "refused": Refused("no"),
    "rejected": Rejected("Eve said no to the plan"),
    "lockedout": LockHeld("another run works on it"),
    "failed": MemberFailed("a member is ill"),
}


@runbook(flow_run_name="end: {end}")
async def end_so(end: str, server: int) -> None:
    """End in one way."""
    global ended  # noqa: PLW0603 - the body's own clock
    if end == "interrupted":
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
    if end == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if server:
        os.kill(server, signal.SIGSTOP)
    ended = time.monotonic()
    if end in ERRORS:
        raise ERRORS[end]


ended = 0.0

if __name__ == "__main__":
    end, server = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    launch = Launch(end_so, (end, server), {})
    outcome = launch.run()
    print(outcome.word, f"{time.monotonic() - ended:.1f}", launch.behind, flush=True)  # noqa: T201
    os._exit(outcome.exit_status)
