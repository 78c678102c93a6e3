"""How long what runs leave behind stays, and what of it there is; reads and removes nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import Field

from tasks.model.certificates import Strict

_BACKUP = re.compile(r"(\d{8}T\d{6}Z)-([0-9a-f]{8})(?:-refused)?")


class Retention(Strict):
    """How long journals lie as they are, and replaced files on the hosts."""

    journals_days: int = Field(
        60,
        ge=1,
        description="Older journals are compressed where they lie; none is ever deleted.",
        examples=[60],
    )
    backups_days: int | None = Field(
        None,
        ge=1,
        description="How long files that runs have replaced stay on the hosts, under "
        "`paths.backups`; without it, for ever.",
        examples=[180],
    )
    backups_keep: int = Field(
        5, ge=1, description="So many of them stay on each host, however old they are."
    )


@dataclass(frozen=True, slots=True)
class Backup:
    """What one run has replaced on a host: the directory's name, and its size."""

    name: str
    kibibytes: int

    @property
    def run(self) -> str | None:
        """The beginning of the run's id; None where the name is none of ours."""
        found = _BACKUP.fullmatch(self.name)
        return found[2] if found else None

    @property
    def taken(self) -> datetime | None:
        """When the run began."""
        found = _BACKUP.fullmatch(self.name)
        return datetime.strptime(found[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) if found else None
