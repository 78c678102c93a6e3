"""Scalars of a YAML text, with the place of each: read, and written anew with all else kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from tasks.config.launch import NotUnderstood, Slot
from tasks.model.member_settings import Place

_PLAIN = re.compile(r"[A-Za-z0-9/-][A-Za-z0-9_./:,=@+-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
NUMBER = re.compile(r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)([eE][-+]?\d+)?|0[xXoObB][0-9a-fA-F_]+")
TRUE = frozenset("y Y yes Yes YES true True TRUE on On ON".split())
FALSE = frozenset("n N no No NO false False FALSE off Off OFF".split())


def compose(path: str, text: str) -> MappingNode:
    """Read a text into nodes; raises NotUnderstood for one that is no mapping."""
    try:
        root = YAML(pure=True).compose(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = Place(path, mark.line + 1 if mark else None)
        problem = getattr(error, "problem", None) or error
        raise NotUnderstood(place, f"it is not YAML ({problem})", is_fatal=True) from error
    if not isinstance(root, MappingNode):
        raise NotUnderstood(Place(path, 1), "it is no mapping", is_fatal=True)
    return root


def place_of(path: str, node: Node) -> Place:
    """Say where a node begins."""
    return Place(path, node.start_mark.line + 1)


def is_plain(node: Node) -> bool:
    """Whether a scalar stands there without quotes."""
    return isinstance(node, ScalarNode) and node.style is None


def text_slots(path: str, node: Node) -> Iterator[Slot]:
    """Make the slots of a text: without quotes where it was and can be, or in quotes.

    A text in a block (| or >) has none.
    """
    if is_plain(node):
        yield from scalar_slots(path, node, _write_plain)
    yield from scalar_slots(path, node, _write_quoted)


def scalar_slots(path: str, node: Node, write: Callable[[str], str]) -> Iterator[Slot]:
    """Make the slot of a scalar that is written in a way of its own."""
    start, end = node.start_mark.index, node.end_mark.index
    if isinstance(node, ScalarNode) and node.style not in {"|", ">"} and end > start:
        yield Slot(path, start, end, write)


def _write_plain(value: str) -> str:
    is_word = value in TRUE | FALSE or NUMBER.fullmatch(value) is not None
    if is_word or not _PLAIN.fullmatch(value) or value.endswith(":") or not value.strip("-"):
        raise ValueError(f"{value!r} needs quotes")
    return value


def _write_quoted(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError(f"{value!r} has a control character")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
