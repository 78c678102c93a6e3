"""Reads etcd's `--config-file`, with the place of each value; etcd reads nothing else beside it.

Owns its keys (server/embed/config.go, configYAML), YAML 1.1's words for true and false, and what
of a value's kind ends etcd (3.5.16, 3.6.16 and 3.7.3 were run with each).
"""

from __future__ import annotations

from collections.abc import Iterator

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tasks.config.flags import BOOLEANS, DURATIONS, NUMBERS
from tasks.config.launch import Given, Launch, NotUnderstood, Slot
from tasks.config.scalars import (
    FALSE,
    NUMBER,
    TRUE,
    compose,
    is_plain,
    place_of,
    scalar_slots,
    text_slots,
)
from tasks.model.member_settings import Notice, parse_boolean, parse_number, parse_seconds

_SECTIONS = {"client-transport-security": "", "peer-transport-security": "peer-"}
_RENAMED = {
    "allowed-cn": "cert-allowed-cn",
    "allowed-hostname": "cert-allowed-hostname",
}
# They have flags of their own kind, which no runbook asks for.
_OTHERS = frozenset({"discovery-config", "socket-options"})
_LISTS = frozenset(
    "log-outputs cipher-suites peer-cert-allowed-cn peer-cert-allowed-hostname "
    "client-cert-allowed-hostname".split()
)
_NOT_IN_ALL = frozenset({"enable-v2"})
"""Keys that some versions drop with whatever value, as they do the experimental ones."""


def read_config_file(path: str, text: str) -> tuple[dict[str, Given], Launch]:
    """Read the settings by flag name; the second part has the faults and what etcd passes over."""
    try:
        root = compose(path, text)
    except NotUnderstood as error:
        return {}, Launch(faults=(error.notice,))
    found: dict[str, Given] = {}
    faults: list[Notice] = []
    ignored: list[Notice] = []
    for name, node in _pairs(root):
        place = place_of(path, node)
        if name in found:
            said = f"{name} is ignored: it is set again in line {place.line}"
            ignored.append(Notice(found[name].place, said))
        try:
            found[name] = Given(_value(name, node), place, tuple(_slots(path, name, node)))
        except ValueError as error:
            faults.append(Notice(place, f"{name}: {error}; etcd would end", is_fatal=True))
    return found, Launch(faults=tuple(faults), ignored=tuple(ignored))


def _pairs(root: MappingNode) -> Iterator[tuple[str, Node]]:
    for key, node in root.value:
        prefix = _SECTIONS.get(key.value)
        if key.value in _OTHERS:
            continue
        if prefix is None or not isinstance(node, MappingNode):
            yield key.value, node
            continue
        for inner, value in node.value:
            name = _RENAMED.get(inner.value, inner.value)
            client = "client-" if name in _RENAMED.values() and not prefix else ""
            yield f"{prefix}{client}{name}", value


def _value(name: str, node: Node) -> str:
    """Write a node's value as the flag has it; raises ValueError for what etcd would refuse."""
    if isinstance(node, SequenceNode):
        if name not in _LISTS or not all(isinstance(part, ScalarNode) for part in node.value):
            raise ValueError("a list stands where one value belongs")
        return ",".join(part.value for part in node.value)
    if not isinstance(node, ScalarNode):
        raise ValueError("a mapping stands where a value belongs")  # noqa: TRY004 - of the file
    text = str(node.value)
    if is_plain(node) and text in {"", "~", "null", "Null", "NULL"}:
        return ""
    if name.startswith("experimental-") or name in _NOT_IN_ALL:
        return text
    if name in _LISTS:
        raise ValueError("it is no list ([a, b])")
    return _plain_value(name, text) if is_plain(node) else _quoted_value(name, text)


def _quoted_value(name: str, text: str) -> str:
    if name in BOOLEANS | DURATIONS | NUMBERS:
        raise ValueError(f"{text!r} is a text; take the quotes out")
    return text


def _plain_value(name: str, text: str) -> str:
    is_number = NUMBER.fullmatch(text) is not None
    if name in BOOLEANS:
        if text not in TRUE | FALSE:
            raise ValueError(f"{text!r} is neither true nor false")
        return "true" if text in TRUE else "false"
    if name in DURATIONS:
        if not is_number:
            raise ValueError(f"{text!r} is no number of nanoseconds, which this file needs")
        return f"{text}ns"
    if (name in NUMBERS) is not is_number:
        kind = "no number" if name in NUMBERS else "a number; put it in quotes"
        raise ValueError(f"{text!r} is {kind}")
    return text


def _slots(path: str, name: str, node: Node) -> Iterator[Slot]:
    """Make the slots of one scalar; of a list that has several parts there is none."""
    if isinstance(node, SequenceNode) and len(node.value) == 1:
        node = node.value[0]
    if name in BOOLEANS:
        yield from scalar_slots(path, node, lambda v: "true" if parse_boolean(v) else "false")
    elif name in DURATIONS:
        yield from scalar_slots(path, node, lambda v: str(round(parse_seconds(v) * 1e9)))
    elif name in NUMBERS:
        yield from scalar_slots(path, node, lambda v: str(parse_number(v)))
    else:
        yield from text_slots(path, node)
