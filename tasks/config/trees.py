"""Walking a YAML text's nodes: what is under a key, a list's entries, a scalar's text."""

from __future__ import annotations

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode


def get(node: Node | None, name: str) -> Node | None:
    """Get what a mapping has under a key, the last where there are several; None else."""
    if not isinstance(node, MappingNode):
        return None
    found: Node | None = None
    for key, value in node.value:
        if key.value == name:
            found = value
    return found


def items(node: Node | None) -> tuple[Node, ...]:
    """List the entries of a list; none for everything else."""
    return tuple(node.value) if isinstance(node, SequenceNode) else ()


def text_of(node: Node | None) -> str:
    """Get a scalar's text; empty for everything else, and for a null."""
    if not isinstance(node, ScalarNode) or (node.style is None and node.value in {"null", "~"}):
        return ""
    return str(node.value)
