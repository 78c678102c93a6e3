"""Progress, from the journal's lines: steps by hosts, alive on a terminal, plain in a pipe."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tasks.model.record import Event, Record
from tasks.report.terminal import table_lines

RUNNER = "runner"
MARKS = {"changed": ("green", "✔ changed"), "same": ("dim", "✔ as it was"), "done": ("green", "✔")}


class Progress:
    """Shows records as they come; used as `with`, and given to the engine as a listener."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title = ""
        self._hosts: list[str] = []
        self._cells: dict[str, dict[str, Text | Spinner]] = {}
        self._changes = 0
        self._is_alive = console.is_terminal
        self._live = Live(console=console, refresh_per_second=10, get_renderable=self._table)

    def __enter__(self) -> Self:
        if self._is_alive:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_alive:
            self._live.__exit__(kind, error, trace)

    def __call__(self, record: Record) -> None:
        """Show one record."""
        details = record.details
        if record.event is Event.RUN_STARTED:
            self._hosts = list(details["hosts"])
            title = f"{details['runbook']} {details['cluster']}: run {details['run']}"
            if title != self._title:  # a run may have to look before it knows what it does
                self.tell(title)
            self._title = title
        elif record.event is Event.PLANNED:
            self._show_plan(details)
        elif record.event is Event.OBSERVED:
            self._show_table(details)
        elif record.event is Event.PROGRESS:
            self.tell(details["text"])
        elif record.event is Event.MEASURED:
            self.tell(details["summary"])
        elif record.event in (Event.STEP_STARTED, Event.STEP_FINISHED, Event.STEP_FAILED):
            self._show_step(record.event, details)

    def tell(self, text: str, style: str = "") -> None:
        """Print a line below everything, to the letter: an IPv6 address is no markup."""
        self._console.print(text, style=style, highlight=False, markup=False)

    def tell_done(self) -> None:
        """Print the last line of a run that did what was asked."""
        said = f"{self._changes} step(s) changed something" if self._changes else "no changes"
        self._console.print(f"done: {said}")

    def _show_plan(self, plan: dict[str, Any]) -> None:
        self.tell(f"plan: {plan['goal']}")
        if not plan["steps"]:
            self.tell("  nothing to do: everything is as the inventory wants it")
        for one in plan["steps"]:
            self.tell(f"  {one['host'] or RUNNER}: {one['sentence']}")
        for one in plan["findings"]:
            self.tell(f"  {one['severity']}: {one['finding']}", "yellow")

    def _show_table(self, health: dict[str, Any]) -> None:
        if health["rows"]:
            for line in table_lines(health["columns"], health["rows"], self._console.width):
                self.tell(line)
        for problem in health["problems"]:
            self.tell(f"- {problem}", "red")
        for remark in health.get("remarks", ()):
            self.tell(f"- {remark}", "yellow")

    def _show_step(self, event: Event, details: dict[str, Any]) -> None:
        host = details["host"] or RUNNER
        label = details["step"].removesuffix(f" on {host}").replace(f" {host}", "")
        row = self._cells.setdefault(label, {})
        if event is Event.STEP_STARTED:
            row[host] = Spinner("dots")
            return
        seconds = f"{details['seconds']:.2f} s"
        if event is Event.STEP_FAILED:
            row[host] = Text("✘ failed", style="red")
            was_stopped = details["error"].startswith("CancelledError")
            said = "interrupted" if was_stopped else f"failed: {details['error']}"
        else:
            kind = {True: "changed", False: "same", None: "done"}[details["changed"]]
            self._changes += kind == "changed"
            style, text = MARKS[kind]
            row[host] = Text(f"{text} {seconds}", style=style)
            said = {"changed": "changed", "same": "as it was", "done": "done"}[kind]
        if not self._is_alive:
            self.tell(f"{host}: {label}: {said} ({seconds})")

    def _table(self) -> Table | Text:
        if not self._cells:
            return Text()
        columns = [*self._hosts]
        if any(RUNNER in row for row in self._cells.values()):
            columns.insert(0, RUNNER)
        table = Table("step", *columns, box=None, padding=(0, 1))
        for label, row in self._cells.items():
            table.add_row(label, *(row.get(host, "") for host in columns))
        return table
