"""Pointers from a message to the runbook that leads on, for both who reads it.

In Prefect's UI there is no command line and in a shell there is no form, so each says a parameter
in both ways. A test follows every pointer: the runbook exists, and takes such a parameter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

Value = str | bool | int | Sequence[str]


def pointer(name: str, **parameters: Value) -> str:
    """Name a runbook and what it is to be run with, for a form and for a command line."""
    if not parameters:
        return name
    return f"{name} with {_form(parameters)} (command line: {name} {_options(parameters)})"


def parameter(**parameters: Value) -> str:
    """Name a parameter of the runbook that speaks, for a form and for a command line."""
    return f"{_form(parameters)} (command line: {_options(parameters)})"


def answer(run: str) -> str:
    """Name the ways to answer a run that waits for approval, in the UI and on a command line."""
    return (
        "Resume on its page in the UI, under /v2 in the menu at the upper right "
        f"(command line: python -m flows approve {run} --by NAME)"
    )


def _form(parameters: Mapping[str, Value]) -> str:
    return ", ".join(
        f"{name}={value if isinstance(value, str) else _json(value)}"
        for name, value in parameters.items()
    )


def _json(value: bool | int | Sequence[str]) -> str:
    return json.dumps(value if isinstance(value, int) else list(value), ensure_ascii=False)


def _options(parameters: Mapping[str, Value]) -> str:
    words = []
    for name, value in parameters.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        else:
            every = [value] if isinstance(value, str | int) else value
            words += [f"{option} {one}" for one in every]
    return " ".join(words)
