"""The highest revision that this machine has ever seen of a cluster, for the day of a restore.

Clients remember revisions, and a restored cluster must not give one of them to another write.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from tasks.engine.recording import journal_directory
from tasks.engine.run import Run
from tasks.model.cluster import ClusterHealth


def note_revision(run: Run, seen: int) -> None:
    """Note a revision that was seen, if it is higher than what is noted.

    A disk that takes no note is no reason for a check to fail.
    """
    if seen > read_revision(run):
        with suppress(OSError):
            path = _path(run)
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}.{run.id}")
            new.write_text(json.dumps({"revision": seen}) + "\n")
            new.replace(path)


def read_revision(run: Run) -> int:
    """Read what is noted; 0 where nothing is."""
    try:
        return int(json.loads(_path(run).read_text())["revision"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def highest_answer(health: ClusterHealth) -> int:
    """Tell the highest revision that a member answers; 0 where none does."""
    return max((e.status.revision for e in health.endpoints if e.status), default=0)


def _path(run: Run) -> Path:
    return journal_directory().parent / "revisions" / f"{run.inventory.name}.json"
