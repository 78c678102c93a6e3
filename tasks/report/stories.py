"""A past run, told from its journal alone: a row of the history, sentences, JSON, one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from tasks.model.outcome import Work, work_of
from tasks.model.record import Event, Record
from tasks.report.tables import Table

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
SHORT = 8
"""So many characters of a run's id tell it from others."""
OUTCOME_CHARACTERS = 100
WAITS = "Pause: "


@dataclass(frozen=True)
class Story:
    """One run on one cluster: the name of its journal, and what that says."""

    file: str
    records: tuple[Record, ...]

    @cached_property
    def begun(self) -> dict[str, Any]:
        """What was written when it began."""
        return next((r.details for r in self.records if r.event is Event.RUN_STARTED), {})

    @property
    def run(self) -> str:
        """The id of the run, as in Prefect."""
        return str(self.begun.get("run", self.file.removesuffix(".jsonl").partition("-")[2]))

    @property
    def started(self) -> datetime:
        """When its first line was written."""
        return datetime.fromtimestamp(self.records[0].time, UTC)

    @property
    def seconds(self) -> float:
        """From its first to its last line."""
        return self.records[-1].time - self.records[0].time

    @property
    def outcome(self) -> str:
        """How it ended, as the operator was told."""
        ends = [r.details["outcome"] for r in self.records if r.event is Event.RUN_FINISHED]
        if not ends:
            return "no end is written: it goes on, or its runner died"
        return "waits for approval" if ends[-1].startswith(WAITS) else str(ends[-1])

    @cached_property
    def work(self) -> Work:
        """What it changed."""
        return work_of(self.records)

    @property
    def facts(self) -> dict[str, str]:
        """Who, why, when, with what, and where its snapshot is."""
        begun = self.begun
        given = {k: v for k, v in begun.get("parameters", {}).items() if v not in (None, [], "")}
        snapshots = [r.details["url"] for r in self.records if r.event is Event.SNAPSHOT]
        facts = {
            "cluster": begun.get("cluster", "?"),
            "run": self.run,
            "started by": begun.get("operator", "?"),
            "reason": begun.get("reason") or "not given",
            "parameters": ", ".join(f"{name}: {value}" for name, value in given.items()),
            "started": f"{self.started:%Y-%m-%d %H:%M:%S} UTC",
            "took": f"{self.seconds:.1f} s",
            "outcome": self.outcome,
            "what was done": self.work.sentence(),
            "snapshot": ", ".join(snapshots),
            "journal": self.file,
        }
        return {name: value for name, value in facts.items() if value}


def history_table(stories: Iterable[Story]) -> Table:
    """List runs, a line each."""
    return Table(
        ("started (UTC)", "run", "cluster", "runbook", "by", "reason", "changes", "outcome"),
        tuple(
            (
                f"{one.started:%Y-%m-%d %H:%M}",
                one.run[:SHORT],
                one.begun.get("cluster", "?"),
                one.begun.get("runbook", "?"),
                one.begun.get("operator", "?"),
                one.begun.get("reason") or "-",
                str(one.work.changes),
                _first(one.outcome),
            )
            for one in stories
        ),
    )


def _first(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= OUTCOME_CHARACTERS else f"{line[: OUTCOME_CHARACTERS - 1]}…"


def sentences(story: Story) -> Iterator[tuple[datetime, str]]:
    """Tell what happened, in order, each with its time; remote commands are left out."""
    for record in story.records:
        if record.event in _SAID:
            said = _SAID[record.event](record.details)
            yield datetime.fromtimestamp(record.time, UTC), said


def _planned(details: dict[str, Any]) -> str:
    findings = [f"{f['severity']}: {f['finding']}" for f in details["findings"]]
    told = [f"{s['host'] or 'runner'}: {s['sentence']}" for s in details["steps"]]
    return "\n".join([f"planned: {details['goal']}", *told, *findings])


def _finished(details: dict[str, Any]) -> str:
    how = {True: "changed", False: "was so already", None: "done"}[details.get("changed")]
    return f"{details['step']}: {how} ({details['seconds']:.2f} s)"


_SAID: dict[Event, Callable[[dict[str, Any]], str]] = {
    Event.RUN_STARTED: lambda d: f"{d['operator']} started {d['runbook']}",
    Event.PLANNED: _planned,
    Event.OBSERVED: lambda d: "\n".join(
        [f"looked: {len(d['rows'])} rows", *d["problems"], *d.get("remarks", ())]
    ),
    Event.STEP_FINISHED: _finished,
    Event.STEP_FAILED: lambda d: f"{d['step']}: failed ({d['seconds']:.2f} s): {d['error']}",
    Event.SNAPSHOT: lambda d: f"saved {d['url']}",
    Event.PROGRESS: lambda d: str(d["text"]),
    Event.MEASURED: lambda d: str(d["summary"]),
    Event.BROKEN: lambda d: f"ended in the middle of: {d['host'] or 'runner'}: {d['sentence']}",
    Event.RUN_FINISHED: lambda d: f"ended: {d['outcome']}",
}


def story_lines(story: Story) -> list[str]:
    """Tell a run on a terminal."""
    lines = [f"{name}: {value}" for name, value in story.facts.items()]
    for when, said in sentences(story):
        first, *rest = said.splitlines()
        lines += [f"{when:%H:%M:%S}  {first}", *(f"          {line}" for line in rest)]
    return lines


def story_json(stories: Sequence[Story], seals: Sequence[str]) -> dict[str, Any]:
    """Write a run for a program: facts, and every line of its journals as it is."""
    return {
        "runs": [
            {
                **story.facts,
                "last_seal": seal,
                "records": [
                    {"time": r.time, "event": r.event.value, **r.details} for r in story.records
                ],
            }
            for story, seal in zip(stories, seals, strict=True)
        ]
    }


def story_html(stories: Sequence[Story], seals: Sequence[str]) -> str:
    """Write a run as one page that needs no server and no other file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    told = [
        {
            "facts": story.facts,
            "seal": seal,
            "is_well": story.outcome == "done",
            "sentences": list(sentences(story)),
            "tables": [r.details for r in story.records if r.event is Event.OBSERVED],
            "commands": [
                (datetime.fromtimestamp(r.time, UTC), r.details)
                for r in story.records
                if r.event is Event.COMMAND
            ],
        }
        for story, seal in zip(stories, seals, strict=True)
    ]
    first = stories[0]
    title = f"{first.begun.get('runbook', '?')}, {first.started:%Y-%m-%d %H:%M} UTC"
    return environment.get_template("run.html.j2").render(title=title, stories=told)
