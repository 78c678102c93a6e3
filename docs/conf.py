"""How `make docs` builds these pages: Sphinx, with every warning an error.

A page of docs/runbooks says `{runbook}` once: the runbook's own docstring stands there, with its
stages and its options, so that neither can differ from what `--help` and the UI's form say.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

project = "etcd runbooks"
project_copyright = "the authors of etcd runbooks"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = project
html_show_copyright = False
html_copy_source = False
myst_heading_anchors = 3
highlight_language = "text"
nitpicky = True

FLOWS = Path(__file__).resolve().parents[1] / "flows"


class Runbook(SphinxDirective):
    """Tell what a runbook does and takes, from its docstring."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        """Read flows/<this page>.py and put its docstring here."""
        path = FLOWS / f"{Path(self.env.docname).name}.py"
        self.env.note_dependency(str(path))
        return self.parse_text_to_nodes(tell_runbook(path))


def tell_runbook(path: Path) -> str:
    """Write a runbook's docstring as Markdown: what it does, its stages, and a table of options."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    flow = next(
        node
        for node in tree.body
        if isinstance(node, ast.AsyncFunctionDef) and node.name == path.stem
    )
    said, _, options = (ast.get_docstring(flow) or "").partition("\nArgs:\n")
    needed = {arg.arg for arg in flow.args.args[: -len(flow.args.defaults) or None]}
    rows = [
        f"| `--{name.replace('_', '-')}`{' (must be given)' if name in needed else ''} "
        f"| {' '.join(help_.split()).replace('|', chr(92) + '|')} |"
        for name, help_ in re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", options, re.MULTILINE)
    ]
    return "\n".join([said.strip(), "", "| option | what it says |", "| --- | --- |", *rows])


def setup(app: Sphinx) -> None:
    """Let pages say `{runbook}`."""
    app.add_directive("runbook", Runbook)
