"""README and docs/: every command in them can be typed, every runbook and file in them is there."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from flows import __main__ as commands
from flows.__main__ import runbook_names
from tasks.model.inventory import Inventory

ROOT = Path(__file__).parents[2]
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (
    ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))
)}  # fmt: skip
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
RUNBOOK = re.compile(
    r"\b(?:bootstrap|adopt|check|show|harden|rotate|recover|replace|add|remove|update|move|take|rehearse|reclaim|repair|apply"
    r"|upgrade)_(?:cluster|health|certificates|authority|member|members|leader|snapshot|space|corruption|retention)\b"
)
AUDIT = {command.__name__: command for command in commands.AUDIT}
PLACE = re.compile(r"<([\w ]+)>")


def typed() -> list[tuple[str, str]]:
    """List the commands of runbooks: document and what stands behind `python -m flows`."""
    return [
        (name, line.partition(" -m flows ")[2])
        for name, text in DOCUMENTS.items()
        for _, block in BLOCK.findall(text)
        for line in block.splitlines()
        if " -m flows " in line
    ]


def function_of(name: str) -> Any:  # noqa: ANN401 - a flow's function
    """Get what the command line calls."""
    if name == "approve":
        return lambda run, by=None, note="", reject=False: commands._approve(
            None, run, by=by, note=note, reject=reject
        )
    if name in AUDIT:
        return AUDIT[name]
    return getattr(importlib.import_module(f"flows.{name}"), name).fn


@pytest.mark.parametrize(("document", "command"), sorted(set(typed())))
def test_a_command_can_be_typed(document: str, command: str) -> None:
    """Its runbook and options are there, and nothing that is needed is missing."""
    name, *words = shlex.split(PLACE.sub(lambda found: found[1].replace(" ", "-"), command))
    assert name in {*runbook_names(), "approve", *AUDIT}, document
    app = App()
    app.default(function_of(name))
    app.parse_args(words, exit_on_error=False, print_error=False)


def test_each_document_has_commands_of_its_own() -> None:
    """Else the pattern that finds them has gone blind."""
    assert {document for document, _ in typed()} == set(DOCUMENTS)
    assert len(typed()) > 20


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_is_there(document: str) -> None:
    """Runbooks, and files that are linked."""
    text = DOCUMENTS[document]
    assert set(RUNBOOK.findall(text)) <= set(runbook_names())
    for link in LINK.findall(text):
        assert (ROOT / document).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("name", runbook_names())
def test_each_runbook_has_a_page_with_its_command_and_its_docstring(name: str) -> None:
    """Linked from README; the docstring comes in when the pages are built."""
    page = f"docs/runbooks/{name}.md"
    text = DOCUMENTS[page]
    assert any(command.split()[0] == name for where, command in typed() if where == page)
    assert "```{runbook}\n```" in text
    assert "## What you see" in text
    assert "## What can go wrong" in text
    row = next(r for r in DOCUMENTS["README.md"].splitlines() if f"[`{name}`]({page})" in r)
    _, does, needs, survives = (cell.strip() for cell in row.strip("|").split("|"))
    assert all((does, needs, survives))


def test_the_pages_are_built_without_a_warning(tmp_path: Path) -> None:
    """A dead link, a page in no list, or an option without its line ends it."""
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "docs", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True)
    page = (tmp_path / "runbooks" / "replace_member.html").read_text()
    assert "--write-inventory" in page
    assert "Quorum is counted before" in page


def test_the_parts_of_inventories_in_documents_are_such_as_the_inventory_takes() -> None:
    """The clients of kubespray's kube-apiserver, and where snapshots go."""
    parts = [
        part
        for text in DOCUMENTS.values()
        for language, block in BLOCK.findall(text)
        if language == "yaml"
        for part in YAML(typ="safe").load(block).items()
    ]
    assert {"clients", "snapshots"} <= {field for field, _ in parts}
    for field, part in parts:
        kind: Any = Inventory.model_fields[field].annotation
        TypeAdapter(kind).validate_python(part)
