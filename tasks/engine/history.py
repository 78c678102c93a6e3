"""Past runs, from the journals of this machine: found, read, and their seals compared.

Reads files alone: neither Prefect nor a server is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.engine.archive import LINES, list_files, name_of, read_content
from tasks.engine.journal import parse_journal, read_end, read_journal
from tasks.model.chain import SHORT as SEAL
from tasks.model.chain import CheckedLines, check_lines
from tasks.model.errors import Refused
from tasks.report.stories import SHORT, Story

_TIME = "%Y%m%dT%H%M%S.%fZ"
MANY = 5
DONE = "done"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs: of what time, cluster, runbook and person; None stands for any."""

    cluster: str | None = None
    runbook: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    by: str | None = None
    changes: bool = False

    def is_in_time(self, path: Path) -> bool:
        """Say by the name of a journal whether its run began then."""
        when = began(path)
        since, until = (_aware(at) for at in (self.since, self.until))
        return (since is None or when >= since) and (until is None or when < until)

    def takes(self, story: Story) -> bool:
        """Say by what a run wrote whether it is one of these."""
        return (
            self.runbook in (None, story.begun.get("runbook"))
            and (self.by or "") in story.begun.get("operator", "")
            and (not self.changes or story.work.has_changed)
        )


def began(path: Path) -> datetime:
    """Tell by the name of a journal when its run began."""
    return datetime.strptime(path.name.partition("-")[0], _TIME).replace(tzinfo=UTC)


def _aware(at: datetime | None) -> datetime | None:
    return at.astimezone(UTC) if at is not None else None


def journals(directory: Path, cluster: str | None = None) -> list[Path]:
    """List the journals of all clusters or one, the oldest first, those that are archived too."""
    return sorted(list_files(directory, f"{cluster or '*'}/*"), key=name_of)


def newest_before(path: Path) -> dict[str, str] | None:
    """Name the journal that was the cluster's newest when another one begins, and its seal."""
    others = [one for one in list_files(path.parent) if name_of(one) < path.name]
    if not others:
        return None
    last = max(others, key=name_of)
    return {"journal": name_of(last), "seal": read_end(last)[0]}


def find_stories(directory: Path, wanted: Wanted, limit: int) -> list[Story]:
    """Read the last runs that are wanted, the oldest first."""
    found: list[Story] = []
    for path in reversed(journals(directory, wanted.cluster)):
        if len(found) == limit:
            break
        if wanted.is_in_time(path) and (story := read_story(path)) and wanted.takes(story):
            found.append(story)
    return found[::-1]


def read_story(path: Path) -> Story | None:
    """Read one run; None where not even its first line was written."""
    records = tuple(read_journal(path))
    return Story(name_of(path), records) if records else None


def find_settled(directory: Path, cluster: str) -> frozenset[str]:
    """Find the runs whose work is done: by them, or by a later one of the same runbook.

    By the beginnings of their ids, which the directories of what they replaced have.
    """
    settled: set[str] = set()
    left: dict[str, set[str]] = {}
    for path in journals(directory, cluster):
        story = read_story(path)
        if story is None:
            continue
        earlier = left.setdefault(story.begun.get("runbook", ""), set())
        if story.outcome == DONE:
            settled |= earlier | {story.run[:SHORT]}
            earlier.clear()
        elif story.work.has_changed:
            earlier.add(story.run[:SHORT])
        else:
            settled.add(story.run[:SHORT])
    return frozenset(settled)


def find_run(directory: Path, run: str) -> list[Path]:
    """Find a run's journals, one for each cluster, by its id or the beginning of it.

    Raises Refused, with the last runs there are, where none or several are called so.
    """
    every = journals(directory)
    found = [path for path in every if _id(path).startswith(run)] if run else []
    ids = sorted({_id(path) for path in found})
    if len(ids) > 1:
        told = ", ".join(ids[:MANY])
        raise Refused(f"{len(ids)} runs are called {run}: {told}; write more of the id")
    if not found:
        last = ", ".join(dict.fromkeys(_id(path)[:8] for path in every[-MANY:]))
        known = f"the last ones are {last}" if last else "there are none yet"
        raise Refused(
            f"there is no journal of a run {run} in {directory}; {known}. What another machine's "
            f"worker did is there: the run's tag on:MACHINE in Prefect says which"
        )
    return found


def _id(path: Path) -> str:
    return name_of(path).removesuffix(LINES).partition("-")[2]


def check_journals(
    directory: Path, cluster: str | None, reported: Mapping[str, set[str]] | None = None
) -> Iterator[tuple[Path, CheckedLines]]:
    """Compare all seals of journals, those too that a later journal has of an earlier one.

    A journal that is gone, or was cut short, is told at the one that names it. `reported` are the
    seals that reports elsewhere have, by the journal's name.
    """
    for folder in sorted({path.parent for path in journals(directory, cluster)}):
        checked: dict[str, CheckedLines] = {}
        for path in journals(directory, folder.name):
            content = read_content(path)
            found = check_lines(content.splitlines())
            checked[name_of(path)] = found
            before = Story(name_of(path), tuple(parse_journal(content))).begun.get("previous")
            faults = [_is_missed(before, checked)] if before else []
            if not (reported or {}).get(name_of(path), set()) <= {s[:SEAL] for s in found.seals}:
                faults.append("it is not the one whose seal its run's report has: it was replaced")
            more = tuple(filter(None, faults))
            yield path, CheckedLines((*found.faults, *more), found.remarks, found.seals)


def _is_missed(before: dict[str, str], checked: dict[str, CheckedLines]) -> str | None:
    name, seal = before["journal"], before["seal"]
    if name not in checked:
        return f"{name}, which was there when this run began, is gone"
    if seal and seal not in checked[name].seals:
        return f"{name} was cut short or changed: this run saw a line of it that it has no more"
    return None
