"""The command line with a lock that is lost after two seconds of silence instead of thirty."""

from __future__ import annotations

import sys

from flows.__main__ import main
from tasks.hosts import sessions
from tasks.steps import locks

if __name__ == "__main__":
    sessions.SILENCE_LIMIT_SECONDS = 2
    locks.HEARTBEAT_SECONDS = 0.5
    sys.exit(main(sys.argv[1:]))
