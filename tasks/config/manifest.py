"""Reads a static pod's manifest: what its etcd is started with, word by word.

Owns where a pod says so: its container's `command`, `args` and `env`. Where the pod's paths lie on
the host is not told here.
"""

from __future__ import annotations

from collections.abc import Iterator

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tasks.config.launch import Given, Launch, NotUnderstood
from tasks.config.scalars import compose, place_of, text_slots
from tasks.model.member_settings import Notice, TextFile


def read_manifest(file: TextFile) -> Launch:
    """Tell what a manifest starts; what could not be understood is among the faults."""
    try:
        container = _find_container(file)
        words = tuple(_words(file, container))
        variables = dict(_variables(file, container))
    except NotUnderstood as error:
        return Launch(faults=(error.notice,))
    # Kubernetes puts $(NAME) in; kubeadm and others that are known write none.
    faults = tuple(
        Notice(word.place, f"what {word.text!r} becomes cannot be told; write the value itself")
        for word in (*words, *variables.values())
        if "$(" in word.text
    )
    return Launch(words, variables, faults)


def _find_container(file: TextFile) -> MappingNode:
    root = compose(file.path, file.text)
    spec = _get(root, "spec")
    listed = _get(spec, "containers")
    containers = [each for each in _items(listed) if isinstance(each, MappingNode)]
    named = [each for each in containers if _text(_get(each, "name")) == "etcd"]
    if len(named or containers) != 1:
        place = place_of(file.path, listed or root)
        raise NotUnderstood(place, "it has no container of the name etcd, or several")
    return (named or containers)[0]


def _words(file: TextFile, container: MappingNode) -> Iterator[Given]:
    command = _items(_get(container, "command"))
    if not command:
        said = "its container has no command, so what the image starts cannot be told"
        raise NotUnderstood(place_of(file.path, container), said)
    for node in (*command, *_items(_get(container, "args"))):
        if not isinstance(node, ScalarNode):
            raise NotUnderstood(place_of(file.path, node), "it is no word of a command")
        place = place_of(file.path, node)
        yield Given(str(node.value), place, tuple(text_slots(file.path, node)))


def _variables(file: TextFile, container: MappingNode) -> Iterator[tuple[str, Given]]:
    if (others := _get(container, "envFrom")) is not None:
        said = "what envFrom gives to etcd cannot be told; name the variables"
        raise NotUnderstood(place_of(file.path, others), said)
    for entry in _items(_get(container, "env")):
        name, node = _text(_get(entry, "name")), _get(entry, "value")
        place = place_of(file.path, node or entry)
        if _get(entry, "valueFrom") is not None:
            if name.startswith("ETCD_"):
                raise NotUnderstood(place, f"what {name} becomes cannot be told; write its value")
            continue
        slots = tuple(text_slots(file.path, node)) if node is not None else ()
        yield name, Given(_text(node), place, slots)


def _get(node: Node | None, name: str) -> Node | None:
    """Get what a mapping has under a key; None for everything else."""
    if not isinstance(node, MappingNode):
        return None
    found: Node | None = next((value for key, value in node.value if key.value == name), None)
    return found


def _items(node: Node | None) -> tuple[Node, ...]:
    return tuple(node.value) if isinstance(node, SequenceNode) else ()


def _text(node: Node | None) -> str:
    return str(node.value) if isinstance(node, ScalarNode) else ""
