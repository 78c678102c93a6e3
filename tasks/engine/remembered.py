"""What this machine remembers of a cluster, for the day of a restore and the days after it.

Clients remember revisions, and a restored cluster must not give one of them to another write. And
members that were dead on that day may come back: by their cluster's id they are known.
"""

from __future__ import annotations

import fcntl
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.engine.recording import journal_directory


class Remembered(BaseModel):
    """The highest revision that was seen of a cluster, and the ids that are no longer its own.

    `pending` are ids that a restore which has begun is to end; `fenced` are those that one has
    ended, with what ended them.
    """

    model_config = ConfigDict(frozen=True)

    revision: int = 0
    pending: tuple[str, ...] = ()
    fenced: dict[str, str] = {}


def recall(cluster: str) -> Remembered:
    """Read what is remembered of a cluster; nothing where there is no note, or it is spoilt."""
    try:
        return Remembered.model_validate_json(_path(cluster).read_bytes())
    except (OSError, ValidationError):
        return Remembered()


def remember(cluster: str, **changes: object) -> None:
    """Note what has changed; a disk that takes no note is no reason for a run to fail.

    Runs of one cluster may note at once, and none of them takes another's note away.
    """
    with suppress(OSError):
        path = _path(cluster)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = recall(cluster)
            new = known.model_copy(update=changes)
            if new != known:
                made = path.with_name(f".{path.name}.new")
                made.write_text(new.model_dump_json() + "\n")
                made.replace(path)


def _path(cluster: str) -> Path:
    return journal_directory().parent / "revisions" / f"{cluster}.json"
