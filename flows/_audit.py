"""The commands of an audit: past runs listed, shown, written to one file, and their seals compared.

They read journals under PREFECT_HOME; nothing is changed, and no server is needed but for the seals
that reports have.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from tasks.engine.archive import name_of
from tasks.engine.history import (
    Wanted,
    check_journals,
    find_run,
    find_stories,
    journals,
    read_story,
)
from tasks.engine.journal import read_end
from tasks.model.errors import Refused
from tasks.report.stories import Story, history_table, story_html, story_json, story_lines
from tasks.report.terminal import table_lines

WIDTH = 160


def history(
    *,
    cluster: str | None = None,
    runbook: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    by: str | None = None,
    changes: bool = False,
    limit: int = 50,
) -> None:
    """List past runs, the last ones at the end.

    Args:
        cluster: only this cluster's
        runbook: only this runbook's
        since: only from this day or time on
        until: only before this day or time
        by: only those whose account or machine has this in its name
        changes: only those that changed something
        limit: at most so many, the last ones
    """
    wanted = Wanted(cluster, runbook, since, until, by, changes)
    table = history_table(find_stories(_directory(), wanted, limit))
    if not table.rows:
        _tell([f"no such run in {_directory()}"])
        return
    _tell(table_lines(table.columns, table.rows, _width()))


def show(run: str) -> None:
    """Tell a past run in sentences, with the time of each.

    Args:
        run: its id, or the beginning of it
    """
    stories, _ = _read(run)
    _tell(line for story in stories for line in [*story_lines(story), ""])


def export(run: str, *, output: Path) -> None:
    """Write a past run to one file that needs no server: .html to read, .json for a program.

    Args:
        run: its id, or the beginning of it
        output: the file; its ending says what is written
    """
    stories, seals = _read(run)
    kind = output.suffix.lower()
    if kind not in (".html", ".json"):
        raise Refused(f"{output} ends neither in .html nor in .json; nothing was written")
    text = story_html(stories, seals)
    if kind == ".json":
        text = json.dumps(story_json(stories, seals), indent=2, ensure_ascii=False) + "\n"
    try:
        # Scripts and host names are in it: for its owner, as the journal is.
        with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise Refused(
            f"{output} cannot be written ({error.strerror}); name another file"
        ) from error
    _tell([f"wrote {output}"])


def verify(*, cluster: str | None = None, reports: bool = False) -> int:
    """Compare the seals of all journals: what was changed, added or taken away is told by its line.

    The last seal of each cluster is printed; kept elsewhere, it proves later that nothing before it
    was written anew. Exit status: 1 where something does not fit.

    Args:
        cluster: only this cluster's
        reports: compare with the seals in the reports that Prefect has, too
    """
    lines, faults, last = 0, 0, dict[str, str]()
    reported = _read_reports() if reports else {}
    for path, checked in check_journals(_directory(), cluster, reported):
        lines += len(checked.seals)
        faults += len(checked.faults)
        _tell(f"{path}: {said}" for said in (*checked.faults, *checked.remarks))
        if not checked.is_sealed:
            _tell([f"{path}: has no seals: written by an earlier version"])
        elif checked.seals:
            last[path.parent.name] = f"{checked.seals[-1]} ({path.name})"
    _tell(f"{name}: last seal {seal}" for name, seal in last.items())
    if reports:
        there = {name_of(path) for path in journals(_directory())}
        gone = len(set(reported) - there)
        of_others = f", {gone} of them not of this machine" if gone else ""
        _tell([f"the seals of {len(reported)} journals are in Prefect's reports{of_others}"])
    _tell([f"{lines} sealed lines: " + (f"{faults} fault(s)" if faults else "all as written")])
    return 1 if faults else 0


def _read_reports() -> dict[str, set[str]]:
    from tasks.engine.past import read_seals  # noqa: PLC0415 - Prefect takes seconds to load

    try:
        return asyncio.run(read_seals())
    except Exception as error:
        raise Refused(
            f"Prefect's API fails ({type(error).__name__}: {error}); without --reports the seals "
            "are compared with each other alone"
        ) from error


def _read(run: str) -> tuple[list[Story], list[str]]:
    found = [(story, path) for path in find_run(_directory(), run) if (story := read_story(path))]
    if not found:
        raise Refused(f"the journal of {run} has no line: its runner died before it began")
    return [story for story, _ in found], [read_end(path)[0] for _, path in found]


def home() -> Path:
    """Find PREFECT_HOME without Prefect, which takes seconds to load."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


def _directory() -> Path:
    return home() / "etcd-runbooks" / "journal"


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        return WIDTH


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
