"""The command line that dies by kill -9 right after one line of its journal is on disk.

    python -m tests.integration.killed_run "event|step" RUNBOOK --cluster X …

The line is the boundary: it is written, nothing after it has happened. "event|step#2" is the
second line of that kind.
"""

from __future__ import annotations

import os
import signal
import sys

from flows.__main__ import main
from tasks.engine.journal import Journal
from tasks.model.record import Event


def die_at(point: str) -> None:
    """Let every journal kill its process at a kill point."""
    written = Journal.append
    line, _, count = point.partition("#")
    left = int(count or 1)

    def append(self: Journal, event: Event, **details: object) -> None:
        nonlocal left
        written(self, event, **details)
        left -= f"{event}|{details.get('step', '')}" == line
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = append  # type: ignore[method-assign]


if __name__ == "__main__":
    die_at(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
