"""A person at Prefect's UI: starts a run from its form, answers one that waits, filters the list.

`python tests/browser/walk.py`, by an environment that has Playwright and nothing of ours; a line on
standard input for each act, as JSON, and on standard output what was read there. Both of Prefect's
UIs are walked, `v1` and `v2`, with a picture of each page that a person stops at.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
WAIT_MS = 30_000
SETTLE_MS = 2500
"""Pages fill in from several requests, and forms forget what was typed before the last one."""


class Visit:
    """One page of one of the UIs, and where its pictures go."""

    def __init__(self, page: Page, url: str, ui: str, pictures: Path) -> None:
        self.page, self.url, self.ui, self.pictures = page, url, ui, pictures
        self.is_new = ui == "v2"

    def go(self, path: str) -> None:
        """Open a page and let it fill in."""
        self.page.goto(f"{self.url}{'/v2' if self.is_new else ''}/{path}")
        self.settle()

    def settle(self) -> None:
        """Wait for what the page still loads."""
        self.page.wait_for_timeout(SETTLE_MS)

    def picture(self, name: str) -> None:
        """Take a picture of what is seen."""
        self.page.screenshot(path=str(self.pictures / f"{self.ui}-{name}.png"))

    def start(self, deployment: str, reason: str, tag: str) -> str:
        """Fill a deployment's form, without its dry run, and start; returns what the page says."""
        self.go(f"deployments/deployment/{deployment}/run")
        self.page.get_by_text("Parameters").first.wait_for()
        self.page.locator("textarea").first.fill(reason)
        self.page.locator("button[role=switch], label[role=switch]").first.click()
        self.page.get_by_text("Additional Options").click()
        self.settle()
        if self.is_new:
            self.page.get_by_placeholder("Enter tags").fill(tag)
            self.page.keyboard.press("Enter")
        else:
            self.page.locator("button", has_text="etcd-runbooks").last.click()
            self.page.keyboard.type(tag)
            self.page.get_by_text(tag).last.click()
            self.page.get_by_text("Run Name").first.click()
        self.picture("form")
        self.page.get_by_role("button", name="Submit").click()
        self.settle()
        return str(self.page.inner_text("body"))

    def answer(self, run: str, answer: str, by: str, note: str) -> str:
        """Answer a run that waits; returns what the request for approval says."""
        self.go(f"runs/flow-run/{run}")
        self.page.get_by_text("Suspended").first.wait_for()
        self.settle()
        self.picture("waiting")
        if self.is_new:
            self.page.get_by_role("button", name="Open menu").last.click()
            self.page.get_by_role("menuitem", name="Resume").click()
        else:
            self.page.get_by_role("button", name="Resume").first.click()
        self.page.get_by_text("Who decides").wait_for()
        dialog = self._dialog()
        asked = str(dialog.inner_text())
        if self.is_new:
            dialog.get_by_text("Select", exact=True).first.click()
            self.page.get_by_role("option", name=answer, exact=True).click()
        else:
            # A click as fast as this one opens the list and closes it again.
            self.page.locator(".p-select-button__control").last.focus()
            self.page.keyboard.press("ArrowDown")
            self.page.locator(".p-select-option__text").filter(has_text=answer).click()
        dialog.locator("textarea").nth(0).fill(by)
        dialog.locator("textarea").nth(1).fill(note)
        self.picture(answer)
        dialog.get_by_role("button", name="Resume" if self.is_new else "Submit").last.click()
        self.settle()
        return asked

    def _dialog(self) -> Locator:
        if self.is_new:
            return self.page.get_by_role("dialog").last
        return self.page.locator(".p-modal, body").last

    def show(self, run: str) -> str:
        """Look at a run's page after its end; returns its text."""
        self.go(f"runs/flow-run/{run}")
        self.picture("ended")
        return str(self.page.inner_text("body"))

    def list_runs(self, states: str) -> str:
        """List the runs of some states, as ticked in the menu; returns the page's text."""
        self.go("runs")
        self.page.get_by_text("All run states").first.click()
        for state in states.split(","):
            self.page.get_by_role("option").or_(self.page.get_by_role("menuitemcheckbox")).or_(
                self.page.get_by_role("menuitem")
            ).filter(has_text=state).last.click()
        self.settle()
        self.picture("states")
        self.page.keyboard.press("Escape")
        self.settle()
        self.picture("listed")
        return str(self.page.inner_text("body"))


def main() -> int:
    """Do what is asked, line by line, each in a tab of its own."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for line in sys.stdin:
            asked: dict[str, Any] = json.loads(line)
            page = browser.new_page(viewport={"width": 1100, "height": 1050})
            page.set_default_timeout(WAIT_MS)
            visit = Visit(page, asked.pop("url"), asked.pop("ui"), Path(asked.pop("pictures")))
            act: Callable[..., str] = getattr(visit, asked.pop("act"))
            print(json.dumps(act(**asked)), flush=True)
            page.close()
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
